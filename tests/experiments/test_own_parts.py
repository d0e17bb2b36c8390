"""The page about parts of one's own: its example trains, is evaluated, drawn and reported; transforms; load_run."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from scripts import run_command
from short_runs import SMOKE, configure, ignored_warnings, scalars
from torchrl.envs import check_env_specs

from torchrl_ob.experiments import load_run
from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.config.check import check_config
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.run import run
from torchrl_ob.experiments.saved import evaluate_run
from torchrl_ob.train import config_folder

pytestmark = [*ignored_warnings, pytest.mark.filterwarnings("ignore:Support of VecNormV2")]
PAGE = (Path(__file__).parents[2] / "docs" / "how_to" / "own_parts.md").read_text()
LOAD = (Path(__file__).parents[2] / "docs" / "how_to" / "load_policy.md").read_text()
OWN = ("env=my_env", "policy=my_policy", "critic=my_critic", "advantage=my_advantage")
SCALING = "{_target_: torchrl.envs.transforms.RewardScaling, loc: 0.0, scale: 0.5, in_keys: [[agents, reward]]}"
NORM = "{_target_: torchrl.envs.transforms.VecNormV2, in_keys: [[agents, observation]]}"


def write_files(folder):
    """What the page shows."""
    for path, text in re.findall(r"```\w+\n# (\S+\.(?:py|yaml))\n(.*?)```", PAGE, re.DOTALL):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


def test_the_example_of_the_page_trains_and_is_taken_by_every_command(tmp_path):
    write_files(tmp_path)
    (experiment,) = re.findall(r"```yaml\n(# @package.*?)```", PAGE, re.DOTALL)
    (tmp_path / "mine" / "experiment").mkdir()
    (tmp_path / "mine" / "experiment" / "my_task.yaml").write_text(experiment)

    command = partial(run_command, folder=tmp_path)

    shown = command("train", "--config-dir", "mine", "experiment=my_task", "--cfg", "job").stdout
    assert "_target_: my_parts.HalfOfComa" in shown
    assert "wind: 2.0" in shown
    small = ("experiment=smoke", "device=cpu", "progress_bar=false", "trainer.num_epochs=1")
    sweep = ("seed=0,1", "hydra.sweep.dir=runs")
    done = command("train", "-m", "--config-dir", "mine", *small, *OWN, "loss=my_loss", *sweep)
    assert done.returncode == 0, done.stderr[-1000:]
    first = next(x.parent for x in (tmp_path / "runs").rglob("run.json"))
    refused = command("eval", str(first))
    assert refused.returncode == 1
    assert "env._target_='my_parts.make_env'" in refused.stderr
    assert "policy._target_='my_parts.make_policy'" in refused.stderr
    taken = command("eval", str(first), "--config-dir", "mine", "--episodes", "2")
    assert "mean episode reward, deterministic" in taken.stdout, taken.stderr
    drawn = command("render", str(first), "--config-dir", "mine")
    assert drawn.returncode == 0 or "cannot draw here" in drawn.stderr
    reported = command("report", "runs")
    assert "| task | algorithm |" in reported.stdout, reported.stderr
    assert "my_advantage" in reported.stdout


def test_the_environment_from_nothing_keeps_its_specs_and_is_loaded_as_the_page_says(
    tmp_path, monkeypatch
):
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        overrides = [
            "env=meet",
            *SMOKE,
            "env.num_agents=2",
            f"hydra.searchpath=[file://{tmp_path}/mine]",
        ]
        own = compose("train", overrides)
        team = compose("train", ["experiment=[team_reward,smoke]", *overrides[:1], *overrides[2:]])
    batches = []
    for config in (own, team):
        check_config(config)
        parts = build(config, tmp_path / "none")
        check_env_specs(parts.evaluation.env)
        batches.append(next(iter(parts.collector)).clone())
        parts.close()
    batch, shared = (x["next", "walkers"] for x in batches)
    gap = batch["observation"][..., 1:].abs()  # to the middle of all
    torch.testing.assert_close(batch["reward"], -gap)
    middle = batch["reward"].mean(-2, keepdim=True).expand_as(batch["reward"])
    torch.testing.assert_close(shared["reward"], middle)
    assert shared["episode_reward"].equal(batch["episode_reward"])
    env = parts.evaluation.env
    before = env.reset()
    some = before.clone().set("_reset", torch.arange(10).reshape(10, 1) < 4)
    kept = (env.reset(some)["walkers", "observation"] == before["walkers", "observation"]).all(-1)
    assert kept.all(-1).tolist() == [False] * 4 + [True] * 6

    run(team, tmp_path / "runs" / "meet")
    with pytest.raises(ExperimentError, match=r"env\._target_='my_world.make_env'.*trust=True"):
        load_run("runs/meet")
    with pytest.raises(ExperimentError, match="there is no folder elsewhere"):
        load_run("runs/meet", config_dir="elsewhere")
    (call,) = re.findall(r"```py\n(trained = load_run\(\"runs/meet\".*?)```", LOAD, re.DOTALL)
    scope = {"load_run": load_run}
    exec(call, scope)
    assert scope["trained"].env.rollout(3, scope["trained"].policy).shape == (10, 3)


def test_a_transform_acts_on_what_is_learned_from_in_every_environment(tmp_path):
    batches = []
    for more in ((), (f"++env.transforms=[{SCALING}]",)):
        parts = build(configure("env.scenario=balance", *more), tmp_path)
        batches.append(next(iter(parts.collector)).clone())
        parts.close()
    key = ("next", "agents", "reward")
    torch.testing.assert_close(batches[1][key], 0.5 * batches[0][key])
    key = ("next", "agents", "episode_reward")
    assert batches[1][key].equal(batches[0][key])


def test_what_a_transform_has_learned_is_evaluated_saved_and_resumed(tmp_path):
    config = configure("env.scenario=balance", f"++env.transforms=[{NORM}]")
    check_config(config)
    run(config, tmp_path)
    first = scalars(tmp_path)
    assert load_run(tmp_path).env.transform[-1].loc.any()
    again = {name: [x.item() for x in y] for name, y in evaluate_run(tmp_path).items()}
    assert again == json.loads((tmp_path / "evaluation.json").read_text())
    sorted((tmp_path / "checkpoints").iterdir())[-1].unlink()  # as if it had been killed
    config.resume = "auto"
    run(config, tmp_path)
    assert scalars(tmp_path) == first


def test_a_loaded_policy_is_the_one_that_was_trained(tmp_path):
    parts = run(configure("env.scenario=balance"), tmp_path)
    loaded = load_run(tmp_path)
    for name, value in loaded.policy.state_dict().items():
        assert value.equal(parts.actor.state_dict()[name])
    assert loaded.config.env.scenario == "balance"
    assert loaded.env.rollout(2, loaded.policy).shape == (10, 2)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (SCALING.replace("[[agents, reward]]", "[reward]"), r"reads \['reward'\].*set its in_keys"),
        (SCALING.replace("scale: 0.5", "scal: 1"), "RewardScaling: TypeError"),
        (SCALING.replace("RewardScaling", "RewardScalin"), "RewardScalin"),
    ],
)
def test_a_transform_that_cannot_be_is_told(transform, message, tmp_path):
    with pytest.raises(ExperimentError, match=message):
        build(configure(f"++env.transforms=[{transform}]"), tmp_path)


def test_workers_would_each_learn_a_state_of_their_own(tmp_path):
    config = configure("collector=multi_sync", f"++env.transforms=[{NORM}]")
    with pytest.raises(ExperimentError, match="collector=single"):
        build(config, tmp_path)
