"""Runs from configs: what composes, what is the same for every advantage, what a kill cannot lose."""

import json
import random
import sys
import time
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from scripts import start_command
from short_runs import GROUPS, SMOKE, configure, ignored_warnings, scalars
from torchrl.envs import VmasEnv

from torchrl_ob.diagnostics.branching.simulator import load_simulator_state, simulator_state
from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.envs.teams import find_group_names
from torchrl_ob.experiments.envs.vmas import make_vmas
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.loop import train
from torchrl_ob.experiments.run import run
from torchrl_ob.experiments.saved import evaluate_run
from torchrl_ob.train import config_folder, main

pytestmark = ignored_warnings


@pytest.mark.parametrize(
    ("group", "choice"),
    [
        (group, choice)
        for group, choices in GROUPS.items()
        for choice in choices
        if group not in ("experiment", "env")  # the others have tests of their own
    ],
)
def test_every_choice_builds(group, choice, tmp_path):
    extra = ["loss=mappo"] if group == "value_norm" else []
    if "_value" in choice:
        extra = ["advantage=gae"]
    if choice == "ob_streams":
        extra = ["env.shared_reward=true"]
    if choice.endswith(("gru", "lstm")):
        extra.append("trainer.sequence_length=10")
    if choice in ("a2c", "reinforce"):
        extra = ["trainer.num_epochs=1", "trainer.minibatch_size=200"]
    parts = build(configure(*extra, f"{group}={choice}"), tmp_path)
    parts.close()
    env = parts.evaluation.env
    action, spec = (
        parts.actor(env.reset())["agents", "action"],
        env.full_action_spec[env.action_key],
    )
    assert action.shape == spec.shape
    assert len(action) == 10


@pytest.mark.parametrize("choice", GROUPS["experiment"])
def test_every_experiment_composes(choice):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", [f"experiment={choice}"])
    assert config.total_frames % config.collector.frames_per_batch == 0


@pytest.mark.parametrize("continuous", ["true", "false"])
def test_every_advantage_trains_from_the_same_actor_and_first_batch(continuous, tmp_path):
    firsts = set()
    for advantage in GROUPS["advantage"]:
        folder = tmp_path / advantage
        config = configure(
            f"advantage={advantage}",
            f"env.continuous_actions={continuous}",
            "env.max_steps=5",
            *(["env.shared_reward=true"] if advantage == "ob_streams" else []),
        )
        before = build(config, tmp_path / "untrained").actor.state_dict()
        after = run(config, folder).actor.state_dict()
        assert any(not before[key].equal(after[key]) for key in before)
        metrics = scalars(folder)
        assert len(metrics[Path("loss/objective.csv")].splitlines()) == 2
        firsts.add(metrics[Path("train/reward.csv")].splitlines()[0])
        weights = torch.cat([x.flatten() for x in before.values()])
        firsts.add(round(weights.double().sum().item(), 9))
        assert set(json.loads((folder / "evaluation.json").read_text())) == {
            f"{exploration}_{name}"
            for exploration in ("deterministic", "stochastic")
            for name in ("reward", "episode_length")
        }
    assert len(firsts) == 2  # one first reward and one sum of weights


def test_evaluation_leaves_the_random_numbers_and_training_as_they_are(tmp_path):
    seldom, often = (
        configure(f"evaluation.interval={k}", "env.scenario=balance") for k in (400, 200)
    )
    metrics = []
    for name, config in (("seldom", seldom), ("often", often)):
        run(config, tmp_path / name)
        found = scalars(tmp_path / name)
        metrics.append({k: v for k, v in found.items() if k.parts[0] != "eval"})
    assert metrics[0] == metrics[1]


def start(folder, *overrides):
    return start_command("train", *SMOKE, f"hydra.run.dir={folder}", *overrides)


def checkpoints(folder):
    return set(folder.glob("checkpoints/checkpoint-*.torchrl"))


def test_a_run_that_is_killed_and_resumed_ends_in_the_same_numbers(tmp_path):
    overrides = ["env.scenario=balance", "total_frames=1600", "loss=mappo", "value_norm=popart"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    undisturbed = start(whole, *overrides)
    moments = random.Random(0)
    for _ in range(2):
        process = start(killed, *overrides, "resume=auto")
        seen = checkpoints(killed)
        while process.poll() is None and not checkpoints(killed) - seen:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.communicate()
    out, errors = start(killed, *overrides, "resume=auto").communicate()
    assert "resumed from" in out, errors[-500:]
    undisturbed.communicate()
    assert undisturbed.returncode == 0
    assert scalars(whole) == scalars(killed)
    assert (whole / "evaluation.json").read_text() == (killed / "evaluation.json").read_text()


def test_a_truncated_checkpoint_falls_back_and_another_config_is_refused(tmp_path, capsys):
    overrides = ["total_frames=800", "env.scenario=balance"]
    run(configure(*overrides), tmp_path)
    first, config = scalars(tmp_path), (tmp_path / "config.yaml").read_text()
    with pytest.raises(ExperimentError, match="already holds a run"):
        run(configure(*overrides), tmp_path)
    with pytest.raises(ExperimentError, match=r"another config: seed=0 there and 1 here"):
        run(configure(*overrides, "resume=auto", "seed=1"), tmp_path)
    assert (tmp_path / "config.yaml").read_text() == config  # what was refused has left no trace
    newest = sorted((tmp_path / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    run(configure(*overrides, "resume=auto"), tmp_path)
    out = capsys.readouterr().out
    assert f"{newest} cannot be read" in out
    assert "resumed from" in out
    assert scalars(tmp_path) == first


def test_a_run_is_evaluated_from_its_folder_as_it_was_in_training(tmp_path):
    run(configure("env.scenario=balance"), tmp_path)
    at_the_end = json.loads((tmp_path / "evaluation.json").read_text())
    again = {name: [x.item() for x in y] for name, y in evaluate_run(tmp_path).items()}
    assert again == at_the_end
    assert evaluate_run(tmp_path, episodes=3).keys() == again.keys()
    with pytest.raises(ExperimentError, match=r"no config\.yaml"):
        evaluate_run(tmp_path / "checkpoints")
    OmegaConf.save(configure("policy.num_cells=16"), tmp_path / "config.yaml", resolve=True)
    with pytest.raises(ExperimentError, match=r"does not fit .*config\.yaml"):
        evaluate_run(tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(
        ExperimentError, match=r"has no checkpoint: .*000200\.torchrl.* cannot be read"
    ):
        evaluate_run(tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_change(tmp_path):
    parts = build(configure(), tmp_path)
    before = [x.clone() for x in parts.actor.parameters()]
    compute = parts.advantage.forward

    def broken(batch):
        compute(batch)["advantage"].fill_(torch.nan)
        return batch

    parts.advantage.forward = broken
    with pytest.raises(ExperimentError, match=r"loss_objective.*'advantage'.*nan_batch"):
        train(parts)
    assert torch.load(tmp_path / "nan_batch.pt", weights_only=True)["advantage"].isnan().any()
    assert all(x.equal(y) for x, y in zip(before, parts.actor.parameters(), strict=True))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["advantage=gae", "critic=pooled"], "critic=state_value"),
        (["critic=state_value"], r"needs Q\(s, a\)"),
        (["total_frames=500"], "multiple of collector.frames_per_batch=200"),
        (["env.num_envs=30"], "multiple of env.num_envs=30"),
        (["trainer.minibatch_size=500"], "larger than"),
        (["value_norm=popart"], "loss=mappo"),
        (["value_norm=popart", "loss=mappo", "trainer.compile=true"], "value_norm=none"),
        (["env.scenario=navigaton"], "did you mean 'navigation'"),
        (["+env.scenario_kwargs.n_agent=3"], "n_agent"),
        (["env.scenario=simple_tag", "critic=concat"], "2 groups.*adversary, agent.*critic=pooled"),
        (["env.group_map=by_name"], "group_map must be .*one_group_per_agent.*'by_name'"),
        (["resume=nowhere"], "does not exist"),
        (["resume=true"], "resume must be 'auto' or a text"),
        (["total_frames=abc"], "total_frames must be a whole number, got 'abc'"),
        (["env.max_steps=null"], "env.max_steps must be a whole number"),
        (["seed=-1"], "seed must be greater than or equal to 0"),
        (["env.continuous_actions=flase"], "must be true or false, got 'flase'"),
        (["optimizer.lr=-1"], "optimizer.lr must be greater than 0"),
        (["device=gpu"], "device=gpu cannot be used here"),
        (["loss=a2c"], "trainer.num_epochs=1 trainer.minibatch_size=200"),
    ],
)
def test_what_cannot_work_is_told_before_training(overrides, message, tmp_path):
    with pytest.raises(ExperimentError, match=message):
        run(configure(*overrides), tmp_path / "run")


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ExperimentError, match=r"cannot write to .*hydra\.run\.dir"):
        run(configure(), tmp_path / "file" / "run")


@pytest.mark.parametrize("scenario", VmasEnv.available_envs)
def test_a_simulator_goes_on_from_what_was_saved(scenario, tmp_path):
    env = make_vmas(scenario, num_envs=3, max_steps=8, seed=0)
    other = make_vmas(scenario, num_envs=3, max_steps=8, seed=1)
    last = env.rollout(11, break_when_any_done=False)[:, -1]["next"]
    last["done"] = last["terminated"] = last["truncated"] = torch.zeros_like(last["done"])
    torch.save(simulator_state(env), tmp_path / "state.pt")

    def go_on(env):
        torch.manual_seed(0)
        steps = [env.step(env.rand_action(last.clone()))["next"]]
        for _ in range(3):
            steps.append(env.step(env.rand_action(steps[-1].clone()))["next"])
        return torch.stack(steps)

    expected, reset = go_on(env), env.reset()
    load_simulator_state(other, torch.load(tmp_path / "state.pt", weights_only=True))
    found, other_reset = go_on(other), other.reset()
    for group in find_group_names(env):
        for key in ((group, "observation"), (group, "reward"), "done"):
            assert found[key].equal(expected[key])
        assert reset[group, "observation"].equal(other_reset[group, "observation"])


def test_the_command_says_what_it_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["torchrl-ob", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return (1, out, err + code) if isinstance(code, str) else (code, out, err)

    assert "coma" in call("list")[1]
    (tmp_path / "mine" / "env").mkdir(parents=True)
    (tmp_path / "mine" / "env" / "meet.yaml").touch()
    assert "env: lbf, mamujoco, meet, pettingzoo" in call("list", "--config-dir", "mine")[1]
    assert "there is no folder nowhere" in call("list", "--config-dir", "nowhere")[2]
    assert "advantage=coma" in call("--help")[1]
    assert "invalid choice: 'trian'" in call("trian")[2]
    for override, message in (
        ("env.scenario=navigaton", "VMAS has no scenario"),
        (
            "env.scenario_kwargs.n_agent=3",
            "VMAS refuses scenario 'navigation', which has no argument 'n_agent': leave it out; what an experiment sets is "
            "taken away by '~env.scenario_kwargs.n_agent'.",
        ),
        ("advantge=ob", "the config has no 'advantge'"),
        ("env.scenario_kwargs={n_agnts: 3}", "VMAS refuses scenario 'navigation'"),
        ("hydra.run.dir=/dev/null/x", "[Errno"),
        ("hydra/launcher=jobli", "hydra/launcher has no choice"),
    ):
        code, _, err = call("train", f"hydra.run.dir={tmp_path / 'x'}", override)
        assert code == 1
        (line,) = err.splitlines()
        assert line.startswith(f"torchrl-ob: {message}")
    code, out, _ = call("train", "-m", f"hydra.sweep.dir={tmp_path}/s", "env.scenario=nowhere,none")
    assert "#1 : env.scenario=none" in out  # it goes on after a run that failed
    assert code == 1
