"""Reports: what is read from runs, the statistics of known numbers, and overrides that are mistyped."""

import json
from functools import cache
from itertools import product

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from matplotlib.figure import Figure
from omegaconf import OmegaConf, open_dict

from torchrl_ob.diagnostics.plots import plot_metrics
from torchrl_ob.experiments import report
from torchrl_ob.experiments.config.help import write_help
from torchrl_ob.experiments.config.optimizers import OPTIMIZERS, register_optimizers
from torchrl_ob.experiments.config.overrides import explain
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.report import write_report
from torchrl_ob.experiments.results import read_results, score_matrices
from torchrl_ob.experiments.run import run
from torchrl_ob.train import config_folder

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
    pytest.mark.filterwarnings("ignore:Force limits not specified:UserWarning"),
]


@pytest.fixture(autouse=True)
def _short_intervals(monkeypatch):
    monkeypatch.setattr(report, "RESAMPLES", 200)


@cache
def configure(*overrides):
    """The config, and the choice of each group."""
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", [*overrides], return_hydra_config=True)
    choices = dict(config.hydra.runtime.choices)
    with open_dict(config):
        del config.hydra
    return config, choices


def made_up(folder, advantage, seed, rewards, *overrides):
    """The folder of a run that was never made, evaluated every 100 frames."""
    config, choices = configure(f"advantage={advantage}", f"seed={seed}", *overrides)
    (folder / "metrics" / "scalars" / "eval").mkdir(parents=True)
    OmegaConf.save(config, folder / "config.yaml", resolve=True)
    (folder / "run.json").write_text(json.dumps({"choices": choices}))
    rows = "".join(f"{100 * k},{reward}\n" for k, reward in enumerate(rewards))
    for exploration in ("deterministic", "stochastic"):
        (folder / f"metrics/scalars/eval/{exploration}_reward.csv").write_text(rows)


def table(text):
    rows = (line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| "))
    return {tuple(cell.strip() for cell in row[:-2]): [x.strip() for x in row[-2:]] for row in rows}


def test_a_report_of_runs_that_were_made(tmp_path):
    for advantage in ("ob", "gae"):
        for seed in (0, 1):
            overrides = ("experiment=smoke", "progress_bar=false", "env.scenario=balance")
            config, choices = configure(*overrides, f"advantage={advantage}", f"seed={seed}")
            run(config, tmp_path / "runs" / f"{advantage}{seed}", choices)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    text = write_report([tmp_path / "runs"], tmp_path / "report")
    assert (before == np.random.get_state()[1]).all()  # noqa: NPY002
    assert text == (tmp_path / "report" / "report.md").read_text()
    assert text == write_report([tmp_path / "runs"], tmp_path / "report")
    assert "Beyond the advantage the runs differ in: critic." in text
    rows = table(text)
    finals = [
        json.loads((tmp_path / f"runs/ob{seed}/evaluation.json").read_text())[
            "deterministic_reward"
        ][0]
        for seed in (0, 1)
    ]
    low, high = sorted(finals)
    expected = f"{np.mean(finals):.3f} [{low:.3f}, {high:.3f}]"
    assert rows["balance", "ob", "2"][0] == expected
    assert (tmp_path / "report/report.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads((tmp_path / "report/marl_eval.json").read_text())["vmas"]["balance"]
    assert data.keys() == {"gae", "ob"}
    steps = data["ob"]["seed_1"]
    assert [steps[f"step_{k}"]["step_count"] for k in range(3)] == [0, 200, 400]
    assert steps["absolute_metrics"] == {"return": [pytest.approx(finals[1])]}
    assert (tmp_path / "runs/ob0/metrics.png").read_bytes().startswith(b"\x89PNG")


def test_every_axis_is_labelled(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    for seed in (0, 1):
        for advantage, task in product(("ob", "gae"), ("balance", "navigation")):
            folder = tmp_path / f"{advantage}{task}{seed}"
            made_up(folder, advantage, seed, [0, seed], f"env.scenario={task}")
    write_report([tmp_path], tmp_path / "report", metric="reward")
    drawn.append(plot_metrics(folder / "metrics"))
    curves, metrics = ([x for x in figure.axes if x.axison] for figure in drawn)
    assert [x.get_title() for x in curves[:3]] == ["balance", "navigation", "all tasks, scaled"]
    assert [x.get_ylabel() for x in curves[:3]] == ["mean episode reward, interquartile mean"] * 3
    assert [x.get_ylabel() for x in curves[3:]] == ["Algorithm X", "Algorithm Y"]  # left and right
    assert [x.get_ylabel() for x in metrics] == ["deterministic reward", "stochastic reward"]
    assert all(x.get_xlabel() for x in [*curves[:4], *metrics])


def test_statistics_of_known_numbers(tmp_path):
    for seed in range(8):
        for task, scale in (("balance", 1), ("navigation", 100)):
            of_task = (f"env.scenario={task}",)
            made_up(tmp_path / f"o{task}{seed}", "ob", seed, [0, scale * seed], *of_task)
            made_up(tmp_path / f"c{task}{seed}", "coma", seed, [0, -scale], *of_task)
    rows = table(write_report([tmp_path], tmp_path / "report"))
    # the outer quarters, 0, 1, 6 and 7, are left out
    assert rows["balance", "ob", "8"][0].startswith("3.500 [")
    assert rows["navigation", "ob", "8"][0].startswith("350.000 [")
    assert rows["navigation", "ob", "8"][1].startswith("175.000 [")
    # scaled to [-1, 7] of either task: (3.5 + 1) / 8
    assert rows["all tasks, scaled", "ob", "8"][0].startswith("0.562 [")
    assert rows["all tasks, scaled", "coma", "8"][0] == "0.000 [0.000, 0.000]"
    assert rows["coma > ob",][0] == "0.000 [0.000, 0.000]"


def test_one_seed_each_has_values_and_curves_alone(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    for advantage, rewards in (("ob", [0, 3]), ("gae", [1, 2])):
        made_up(tmp_path / "runs" / advantage, advantage, 0, rewards)
    text = write_report([tmp_path / "runs"], tmp_path / "report")
    assert "policy; one seed each: no intervals, 2 evaluations" in text
    assert "resampling" not in text
    assert "probability" not in text
    assert table(text)["navigation", "ob", "1"] == ["3.000", "1.500"]
    assert table(text)["navigation", "gae", "1"] == ["2.000", "1.500"]
    (axis,) = (x for x in drawn[0].axes if x.axison)
    assert [x.get_ydata().tolist() for x in axis.lines] == [[1, 2], [0, 3]]
    for advantage in ("coma", "mapg"):  # beside two that can be compared, by little
        for seed in (0, 1):
            made_up(tmp_path / f"runs/{advantage}{seed}", advantage, seed, [0, seed])
    text = write_report([tmp_path / "runs"], tmp_path / "report")
    assert "stratified resampling (one seed each of gae, ob: no intervals)" in text
    assert table(text)["navigation", "ob", "1"] == ["3.000", "1.500"]
    assert table(text)["navigation", "coma", "2"][0] == "0.500 [0.000, 1.000]"
    assert table(text)["coma > mapg",][0] == "0.500 [0.000, 1.000], too few seeds to tell"
    assert text.count(" > ") == 1


def test_a_report_of_one_group_or_of_battles_won(tmp_path):
    runs = [(0, "3m", [0, -3], [0, 1]), (1, "3m", [0, -5], [0, 1])]
    runs += [(seed, "27m_vs_30m", [0, 0], [0, 0]) for seed in (0, 1)]  # never won
    for seed, battle, hunted, won in runs:
        folder = tmp_path / f"{battle}{seed}"
        made_up(folder, "ob", seed, [0, 7], "env=smax", f"env.map_name={battle}")
        for name, values in (("reward_prey", hunted), ("win_rate", won)):
            rows = "".join(f"{100 * k},{value}\n" for k, value in enumerate(values))
            (folder / f"metrics/scalars/eval/deterministic_{name}.csv").write_text(rows)
    text = write_report([tmp_path], tmp_path / "report", metric="reward_prey")
    assert "Mean episode reward of prey, deterministic policy" in text
    assert table(text)["smax 3m", "ob", "2"][0] == "-4.000 [-5.000, -3.000]"
    text = write_report([tmp_path], tmp_path / "report", metric="win_rate")
    assert "Battles won, deterministic policy" in text
    assert table(text)["all tasks, scaled", "ob", "2"][0].startswith("0.500 [")
    data = json.loads((tmp_path / "report/marl_eval.json").read_text())["smax"]["smax 3m"]
    assert data["ob"]["seed_1"]["absolute_metrics"] == {"win_rate": [1]}
    with pytest.raises(
        ExperimentError, match=r"no evaluation of 'prey': choose from .*reward_prey"
    ):
        write_report([tmp_path], tmp_path / "report", metric="prey")


def test_names_tell_what_differs(tmp_path):
    made_up(tmp_path / "a", "ob", 0, [0, 1])
    made_up(tmp_path / "b", "ob", 0, [0, 1], "optimizer.lr=0.01")
    made_up(tmp_path / "c", "gae", 0, [0, 1], "+env.scenario_kwargs.n_agents=5")
    names = {(x.task, x.algorithm) for x in read_results([tmp_path])[0]}
    assert names == {
        ("navigation env.scenario_kwargs.n_agents=None", "ob optimizer.lr=0.001"),
        ("navigation env.scenario_kwargs.n_agents=None", "ob optimizer.lr=0.01"),
        ("navigation env.scenario_kwargs.n_agents=5", "gae"),
    }


def test_longer_runs_are_cut_and_named(tmp_path):
    for seed, rewards in enumerate([[0, 1], [0, 2, 9]]):
        made_up(tmp_path / f"{seed}", "ob", seed, rewards)
    text = write_report([tmp_path], tmp_path / "report")
    assert table(text)["navigation", "ob", "2"][0] == "1.500 [1.000, 2.000]"
    assert f"cut to the frames that all have: {tmp_path / '1'}." in text
    assert "Left out" not in text
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "run.json").touch()
    text = write_report([tmp_path], tmp_path / "report")
    assert f"Left out: {tmp_path / 'failed'} (never evaluated)." in text


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config.yaml", "", "config.yaml is not the config of a run"),
        ("config.yaml", "[1, 2]", "config.yaml is not the config of a run: it has no keys"),
        ("config.yaml", "\0\x01\x02", "config.yaml is not the config of a run"),
        ("config.yaml", "env: {", "config.yaml is not the config of a run"),
        ("config.yaml", "env: !!python/name:os.system ", "could not determine a constructor"),
        ("config.yaml", "seed: 0", "config.yaml has no env, or no seed"),
        ("config.yaml", "env: {}\nseed: [0]", "config.yaml has no env, or no seed"),
        ("run.json", "", "run.json is cut short, or no JSON"),
        ("run.json", '{"choices": {"env"', "run.json is cut short, or no JSON"),
        ("run.json", "[" * 100_000, "run.json is cut short, or no JSON"),
        ("run.json", "[]", "run.json does not tell the choices of env and advantage"),
        ("run.json", "{}", "run.json does not tell the choices of env and advantage"),
        ("run.json", '{"choices": {"env": 3}}', "run.json does not tell the choices"),
        ("run.json", None, "run.json cannot be read: it is a folder"),
        ("metrics/scalars/eval/deterministic_reward.csv", "0,1\n100,\n", "is no number"),
        ("metrics/scalars/eval/deterministic_reward.csv", "0,1\n100", "is no number"),
        ("metrics/scalars/eval/deterministic_reward.csv", "", "deterministic_reward.csv is empty"),
        (
            "metrics/scalars/eval/deterministic_reward.csv",
            None,
            "csv cannot be read: it is a folder",
        ),
    ],
)
def test_one_damaged_run_is_left_out_and_named(name, content, told, tmp_path):
    for seed in range(3):
        made_up(tmp_path / f"{seed}", "ob", seed, [0, seed])
    path = tmp_path / "2" / name
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)
    text = write_report([tmp_path], tmp_path / "report")
    assert table(text)["navigation", "ob", "2"][0] == "0.500 [0.000, 1.000]"
    (line,) = [line for line in text.splitlines() if line.startswith("Left out: ")]
    assert line.startswith(f"Left out: {tmp_path / '2'} (")
    assert told in line
    with pytest.raises(ExperimentError, match=r"no run can be compared: .*2 \("):
        write_report([tmp_path / "2"], tmp_path / "report")


def test_a_report_that_cannot_be_written_is_told(tmp_path):
    for seed in (0, 1):
        made_up(tmp_path / f"{seed}", "ob", seed, [0, 1])
    (tmp_path / "report" / "report.png").mkdir(parents=True)
    with pytest.raises(ExperimentError, match=r"cannot write .*report\.png .*--output"):
        write_report([tmp_path], tmp_path / "report")


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "no run can be compared"),
        ([("ob", 0), ("ob", 0)], "are the same run: navigation ob 0"),
        (
            [("ob", 0), ("ob", 1), ("ob", 0, "env.scenario=balance")],
            "ob has runs of 1 on balance, 2 on navigation",
        ),
        ([("ob", 0), ("ob", 1, "evaluation.seed=3")], r"evaluation\.seed differs"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(runs, message, tmp_path):
    for k, (advantage, seed, *overrides) in enumerate(runs):
        made_up(tmp_path / f"{k}", advantage, seed, [0, 1], *overrides)
    with pytest.raises(ExperimentError, match=message):
        write_report([tmp_path], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_runs_without_a_common_frame_are_refused(tmp_path):
    for seed in (0, 1):
        made_up(tmp_path / f"{seed}", "ob", seed, [0, 1])
    path = tmp_path / "1/metrics/scalars/eval/deterministic_reward.csv"
    path.write_text("50,1\n")
    with pytest.raises(ExperimentError, match="no evaluation at the same frame"):
        score_matrices(read_results([tmp_path])[0])
    path.unlink()
    results, never = read_results([tmp_path])
    assert ([x.folder for x in results], [*never]) == ([tmp_path / "0"], [tmp_path / "1"])
    refused = tmp_path / "2"  # as Hydra leaves the folder of a run whose config does not fit
    (refused / ".hydra").mkdir(parents=True)
    results, never = read_results([tmp_path / "0", refused])
    assert ([x.folder for x in results], [*never]) == ([tmp_path / "0"], [refused])
    with pytest.raises(ExperimentError, match="there is no folder"):
        read_results([tmp_path / "0", tmp_path / "3"])
    (tmp_path / "0/metrics/scalars/eval/deterministic_reward.csv").unlink()
    with pytest.raises(ExperimentError, match=r"no run can be compared: .*never evaluated"):
        read_results([tmp_path])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("advantge=ob", "the config has no 'advantge': did you mean 'advantage'"),
        (
            "advantage=comma",
            "advantage has no choice 'comma': did you mean 'coma'? Configs of your own need --config-dir",
        ),
        (
            "env.n_agents=4",
            "the config has no 'env.n_agents': did you mean 'env.num_envs'? An argument of the scenario is env.scenario_kwargs.n_agents.",
        ),
        ("env.num_env=4", "the config has no 'env.num_env': did you mean 'env.num_envs' or 'eval"),
        (
            "trainer.zzzzzzzz=1",
            "the config has no 'trainer.zzzzzzzz': choose from trainer.clip_norm,",
        ),
        ("experiment=smok", "experiment has no choice 'smok': did you mean 'smoke'?"),
        ("optimizer.lrr=1", "the config has no 'optimizer.lrr': did you mean 'optimizer.lr'"),
        ("gamma=0.9", "the config has no 'gamma': choose from advantage.gamma."),
        ("smoke", "'smoke' is written experiment=smoke"),
        ("train", "cannot read the override 'train', of the form key=value"),
        ("/runs/mine", "cannot read the override '/runs/mine', of the form key=value"),
        ("experiment=coma,smoke", "Ambiguous value for argument 'experiment=coma,smoke'"),
        ("~seeds", "the config has no 'seeds': did you mean 'seed'"),
        ("loss.entropy=1", "the config has no 'loss.entropy': did you mean 'loss.entropy_coeff'"),
        ("seed=[1", "cannot read 'seed=[1': a value with any of"),
        ("seed", "cannot read the override 'seed', of the form key=value"),
        (
            "collector.num_workers=2",
            "'collector.num_workers' belongs to collector=multi_sync or collector=ray: choose",
        ),
        (
            "env.map_name=3m",
            "'env.map_name' belongs to env=smacv2 or env=smax: choose that, or leave",
        ),
    ],
)
def test_a_mistyped_override_is_told_in_one_line(override, message):
    with pytest.raises(HydraException) as error:
        configure(override)
    line = explain(error.value, config_folder())
    assert line.startswith(message)
    assert ("several experiments write experiment=[one,other]" in line) == ("," in override)
    assert "\n" not in line


@pytest.mark.parametrize(
    ("choices", "override", "message"),
    [
        (("collector=multi_sync",), "env.num_env=4", "or 'collector.num_envs'"),
        (("env=smax",), "env.scenari=4", "no 'env.scenari': did you mean 'env.scenario_kwargs'?"),
        (("env=mamujoco,vmas",), "env.agent_cnf=4", "did you mean 'env.agent_conf' or"),
        (("env=choice(vmas,smax)",), "env.agent_cnf=4", "did you mean 'env.agent_conf'"),
    ],
)
def test_the_names_that_are_suggested_are_those_of_the_choices(choices, override, message):
    with pytest.raises(HydraException) as error:
        configure(override)
    line = explain(error.value, config_folder(), ["-m", *choices, override])
    assert message in line


def test_a_choice_of_ones_own_is_explained_and_helped_by_its_folder(tmp_path):
    (tmp_path / "env").mkdir()
    text = "_target_: my_world.make_env\nnum_envs: 10\nmax_steps: 20\ngravity: 9.8\n"
    (tmp_path / "env" / "meet.yaml").write_text(text)
    overrides = ["--config-dir", str(tmp_path), "env=meet"]
    with pytest.raises(HydraException) as error:
        configure("env.gravit=3")
    line = explain(error.value, config_folder(), [*overrides, "env.gravit=3"])
    assert line == "the config has no 'env.gravit': did you mean 'env.gravity'?"
    assert "  gravity: 9.8\n" in write_help(["env=meet"], config_folder(), str(tmp_path))
    with pytest.raises(HydraException) as error:
        configure("env=met")
    assert "Configs of your own" in explain(error.value, config_folder())
    assert "Configs of your own" not in explain(error.value, config_folder(), overrides)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_torchs_optimizers_build(name, tmp_path):
    register_optimizers()
    from torchrl_ob.experiments.build import build

    overrides = (f"optimizer={name}", "optimizer.lr=0.5", "experiment=smoke", "device=cpu")
    config, _ = configure(*overrides)
    optimizer = build(config, tmp_path).optimizer
    assert type(optimizer).__name__.lower() == name
    assert optimizer.param_groups[0]["lr"] == 0.5
