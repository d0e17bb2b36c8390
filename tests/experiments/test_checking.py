"""What the command refuses before anything is built: each in one line, with the key and the remedy."""

import copy
import re
import threading
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict
from short_runs import configure, ignored_warnings

from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.config.check import check_config
from torchrl_ob.experiments.config.overrides import folder_name, read_override
from torchrl_ob.experiments.config.settings import leaves
from torchrl_ob.experiments.errors import ExperimentError, first_line
from torchrl_ob.experiments.run import run
from torchrl_ob.experiments.update import clip_gradient
from torchrl_ob.train import config_folder, main

pytestmark = ignored_warnings


def line(message):
    return rf"^[^\n]*{message}[^\n]*$"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["trainer.clip_norm=abc"],
            r"trainer.clip_norm must be a number, or null for none, got 'abc'\.",
        ),
        (
            ["trainer.clip_norm=-1"],
            r"trainer.clip_norm must be greater than 0, or null for none, got -1\.",
        ),
        (["trainer.clip_norm=0"], "trainer.clip_norm must be greater than 0"),
        (["trainer.clip_norm=nan"], "trainer.clip_norm must be a finite number"),
        (
            ["variance_interval=-1"],
            "variance_interval must be greater than or equal to 1, or null for none, got -1",
        ),
        (["scheduler.end_factor=-1"], "scheduler.end_factor must be greater than or equal to 0"),
        (
            ["scheduler.start_factor=0"],
            "scheduler.start_factor must be greater than 0",
        ),
        (["optimizer.lr=1e300"], "optimizer.lr must be less than or equal to 100"),
        (["+optimizer.maximize=true"], "optimizer.maximize must be False"),
        (
            ["loss.normalize_advantage_exclude_dims=[7]"],
            "must be a list, each less than or equal to 2",
        ),
        (["loss.normalize_advantage_exclude_dims=[-1,2]"], "name none twice"),
        (["loss.normalize_advantage_exclude_dims=[0,1,2]"], "must leave one dimension"),
        (["loss.clip_epsilon=-1"], "loss.clip_epsilon must be greater than 0 or a list"),
        (["loss.clip_epsilon=[0.2]"], r"a list of two, \[low, high\]"),
        (["critic.hidden_dim=0"], "critic.hidden_dim must be greater than or equal to 1, got 0"),
        (["policy.num_cells=0"], "policy.num_cells must be greater than or equal to 1"),
        (["policy.share_params=maybe"], "policy.share_params must be true or false, got 'maybe'"),
        (
            ["advantage.num_points=0"],
            "advantage.num_points must be greater than or equal to 1, or null",
        ),
        (
            ["~advantage.rule", "advantage.num_points=7"],
            "num_points=7 .* 2 or 3 .*rule=monte_carlo",
        ),
        (["advantage.num_points=7"], "num_points=7 .* 2 or 3 .*advantage.rule=monte_carlo"),
        (["loss.critic_coeff=null"], "loss.critic_coeff must be a number, got null"),
        (
            ["loss.critic_coeff=0.0"],
            r"critic_coeff=0 leaves the critic .*: take loss.critic_coeff=1\.0\.$",
        ),
        (
            ["advantage=gae", "loss=mappo", "loss.critic_coeff=0"],
            r"critic_coeff=0 leaves the critic .*: take loss.critic_coeff=1\.0\.$",
        ),
        (
            ["advantage=ob_streams"],
            "env.shared_reward=false leaves each agent its own: take env.shared_reward=true, or advantage=ob",
        ),
        (
            ["advantage=ob_streams", "env.shared_reward=true", "critic=additive"],
            "critic=additive has one value for the team: take critic=pooled",
        ),
        (["advantage.rule=guess"], "advantage.rule must be 'gauss' or .*got 'guess'"),
        (
            ["+advantage.num_pointz=3"],
            "torchrl_ob.ObAdvantage has no 'num_pointz': did you mean 'num_points'",
        ),
        (["+advantage.value_network=3"], "advantage.value_network is given by the command"),
        (["+env.seed=3"], "env.seed is given by the command"),
        (["+evaluation.episodes=3"], "evaluation of the config has no 'episodes'"),
        (["~trainer.clip_norm"], "trainer.clip_norm is missing"),
        (["trainer=5"], "trainer must be a group of settings, got 5"),
        (["~optimizer"], "optimizer cannot be left out or null: choose with optimizer="),
        (["~env"], "env has no _target_, the name of what is built: choose with env="),
        (["optimizer._partial_=false"], "optimizer._partial_ must be True, got False"),
        (
            ["+env._convert_=much"],
            "env._convert_ must be 'none', 'partial', 'object' or 'all', got 'much'",
        ),
        (["optimizer.lr='${sed}'"], "optimizer.lr: Interpolation key 'sed' not found"),
        (
            ["optimizer._target_=torch.optim.Adan"],
            "torch.optim has no 'Adan': did you mean .*'Adam'",
        ),
        (
            ["collector=multi_sync", "collector.num_envs=4"],
            "must be env.num_envs=10: change env.num_envs",
        ),
        (
            ["experiment=lbf", "env=vmas"],
            "env.task: .*make_vmas has no 'task'.*another environment",
        ),
    ],
)
def test_nonsense_is_refused_in_one_line(overrides, message):
    with pytest.raises(ExperimentError, match=line(message)):
        check_config(configure(*overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["advantage=gae", "critic=pooled"],
            "take critic=state_value, or critic=pooled_value for the network",
        ),
        (
            ["advantage=gae", "critic=additive"],
            "take critic=state_value, or critic=additive_value for the network",
        ),
        (["advantage=gae", "critic=concat"], r"take critic=state_value\.$"),
        (
            ["advantage=gae", "critic=pooled_gru", "trainer.sequence_length=5"],
            r"take critic=pooled_value_gru\.$",
        ),
        (["critic=pooled_value_gru", "trainer.sequence_length=5"], r"take critic=pooled_gru\.$"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_a_command_that_does(overrides, message, tmp_path):
    config = configure(*overrides)
    check_config(config)
    with pytest.raises(ExperimentError, match=line(message)):
        build(config, tmp_path)
    for remedy in re.findall(
        r"(?:take|or) ((?:\S+=[\w.]+ ?)+)", refusal_of_build(config, tmp_path)
    ):
        config = configure(*overrides, *remedy.rstrip(". ").split())
        build(config, tmp_path).close()


def refusal_of_build(config, folder):
    with pytest.raises(ExperimentError) as error:
        build(config, folder)
    return str(error.value)


def test_an_advantage_that_refuses_a_batch_ends_the_run_in_one_line(tmp_path):
    own = "++env.scenario_kwargs.shared_rew=false"  # else they differ by collisions alone
    config = configure("advantage=ob_streams", "env.shared_reward=true", own)
    del config.env.shared_reward  # of which the rules know nothing
    check_config(config)
    with pytest.raises(
        ExperimentError, match=line("^StreamAdvantage: .*rewards differ.*train.log")
    ):
        run(config, tmp_path)
    text = (tmp_path / "train.log").read_text()
    assert "Traceback" in text
    assert "RuntimeError: the agents' rewards differ" in text
    assert (tmp_path / "run.json").is_file()


@pytest.mark.parametrize("advantage", ["ob", "gae"])
def test_every_key_is_checked_and_nothing_is_a_traceback(advantage):
    config = configure(f"advantage={advantage}", "loss=mappo", "value_norm=popart")
    check_config(config)
    may_be = {  # beside null where it stands for none, empty lists and mappings, and any text of texts
        0: ("seed", "evaluation.seed", "policy.depth", "critic.depth", "advantage.gamma", "advantage.lmbda",
            "loss.entropy_coeff", "scheduler.end_factor", "optimizer.weight_decay", "value_norm.beta"),
    }  # fmt: skip
    for key in leaves(OmegaConf.to_container(config)):
        for value in (-1, 0, 1e300, float("nan"), [], {}, None, "abc"):
            changed = copy.deepcopy(config)
            with open_dict(changed):
                OmegaConf.update(changed, key, value, merge=False)
            told = refusal(changed)
            if told is None:
                number = isinstance(value, int | float)
                assert not number or key in may_be.get(value, ()), (key, value)
            else:
                assert "\n" not in told
                assert key.split(".")[0] in told


def refusal(config):
    try:
        check_config(config)
    except ExperimentError as error:
        return str(error)
    return None


def test_null_is_the_empty_choice_where_there_is_one():
    configs = config_folder()
    assert read_override("scheduler=null", configs) == "scheduler=constant"
    assert read_override("experiment=null", configs) == ""
    assert (
        read_override("env.scenario_kwargs.n_agents=3", configs)
        == "++env.scenario_kwargs.n_agents=3"
    )
    for group in ("logger", "scheduler", "value_norm"):
        config = configure()
        config[group] = None
        check_config(config)
    for group in (
        "env",
        "policy",
        "critic",
        "loss",
        "advantage",
        "optimizer",
        "collector",
        "evaluation",
    ):
        with pytest.raises(
            ExperimentError, match=line(f"{group}=null: {group} takes the name of a choice")
        ):
            read_override(f"{group}=null", configs)
        config = configure()
        OmegaConf.set_struct(config, False)
        config[group] = None
        with pytest.raises(
            ExperimentError, match=r"^[^\n]*(cannot be left out or null|_target_)[^\n]*$"
        ):
            check_config(config)
    with pytest.raises(ExperimentError, match=line("env=5: env takes the name of a choice")):
        read_override("env=5", configs)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("hydra.run.dir=runs/a=b", r"in quotes, 'hydra.run.dir=\"runs/a=b\"' in a shell"),
        ("hydra.run.dir=runs/a[b", r"in quotes, 'hydra.run.dir=\"runs/a\[b\"'"),
        ("hydra.run.dir=runs/é", r"in quotes, 'hydra.run.dir=\"runs/é\"'"),
        ("hydra.run.dir=runs/a,b", "one value with a comma stands in quotes"),
        ("env={a: 1}", "env is a group: choose one"),
        ("logger=5", "logger takes the name of a choice"),
        ("=3", "a group takes the name of a choice"),
        ("~critic._target_", "critic has no _target_"),
    ],
)
def test_the_command_line_is_told_in_one_line(argument, message, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "sys.argv", ["torchrl-ob", "train", "experiment=smoke", "device=cpu", argument]
    )
    with pytest.raises(SystemExit, match=line(message)):
        main()


def test_no_limit_of_the_gradient_leaves_it_and_tells_its_norm():
    gradient = torch.full((4,), 3.0)
    assert clip_gradient([gradient], None) == 6
    assert gradient.equal(torch.full((4,), 3.0))
    assert clip_gradient([gradient], 1.0) == 6
    torch.testing.assert_close(gradient.norm(), torch.tensor(1.0))


def test_a_run_in_a_thread_trains(tmp_path):
    short = (
        "total_frames=200",
        "trainer.num_epochs=1",
        "trainer.clip_norm=null",
        "scheduler=constant",
    )
    config, failed = configure(*short), []

    def train():
        try:
            run(config, tmp_path)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert not failed
    assert (tmp_path / "evaluation.json").is_file()


def test_folders_of_a_sweep_have_names_that_a_file_system_takes(tmp_path):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", ["seed=0"], return_hydra_config=True)
    config.hydra.job.override_dirname = ",".join(f"env.scenario_kwargs.x{i}=1" for i in range(20))
    names = {
        config.hydra.sweep.subdir,
        *(
            folder_name(config.hydra.job.override_dirname + end)
            for end in ("é" * 300, "é" * 301, "a/b", "a-b", "")
        ),
    }
    assert len(names) == 5
    for name in names:
        assert name.startswith("env.scenario_kwargs.x0=1,env.scenario_kwargs.x1=1,")
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").touch()
    assert {path.parent.name for path in Path(tmp_path).glob("*/run.json")} == names
    assert folder_name("advantage=ob,seed=0") == "advantage=ob,seed=0"


def test_an_error_that_says_nothing_is_told_by_its_place():
    with pytest.raises(ValueError, match=r"^$") as found:
        raise ValueError
    assert first_line(found.value).startswith("ValueError in test_checking.py, line ")
    assert first_line(ValueError("this\nand that")) == "this"
