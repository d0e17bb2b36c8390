"""Every experiment on every environment: what composes, and why the rest cannot."""

import pytest
from hydra import compose, initialize_config_dir
from short_runs import GROUPS, ignored_warnings
from smacv2_stand_in import install

from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.config.check import check_config
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.train import config_folder

pytestmark = ignored_warnings

ENVS = {
    "vmas": (),
    "smax": (),
    "mamujoco": (),
    "lbf": (),
    "pettingzoo": ("env.task=hunt_game",),
    "smacv2": ("env.parallel=false",),
}
ANY = ("coma", "coma_ob", "shared_reward", "smoke", "team_reward")  # of no environment
NAMES_A_TASK = {"lbf": ("lbf", "pettingzoo")}  # experiment: environments with its options
NAMES_A_TASK |= dict.fromkeys(
    ("mamujoco", "mamujoco_hopper", "mamujoco_swimmer", "mamujoco_walker2d"), ("mamujoco",)
)
NAMES_A_TASK |= {"search": ("vmas", "mamujoco"), "navigation": ("vmas", "mamujoco")}
NAMES_A_TASK |= {x: ("smax", "smacv2") for x in GROUPS["experiment"] if x.startswith("sma")}
REFUSED = {  # when it is built
    ("navigation", "mamujoco"): "has no scenario 'navigation'",
    ("lbf", "pettingzoo"): "hunt_game",  # another task is given here
    (
        "coma",
        "mamujoco",
    ): "'agents' are continuous, and env.continuous_actions=false asks for discrete",
    ("coma_ob", "mamujoco"): "'agents' are continuous",
    ("coma", "pettingzoo"): "'hare' are continuous",
    ("coma_ob", "pettingzoo"): "'hare' are continuous",
}
BUILT = [(x, env) for x in ("coma", "team_reward", "shared_reward") for env in ENVS]


def compose_config(experiment, env):
    sizes = ("evaluation.num_envs=2", "progress_bar=false", "device=cpu")
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", [f"experiment={experiment}", f"env={env}", *ENVS[env], *sizes])


@pytest.mark.parametrize("experiment", GROUPS["experiment"])
def test_a_pair_composes_or_is_refused_in_one_line(experiment):
    for env in ENVS:
        config = compose_config(experiment, env)
        if env in (ENVS if experiment in ANY else NAMES_A_TASK[experiment]):
            check_config(config)
        else:
            with pytest.raises(
                ExperimentError, match=r"^env\.[a-z_]+: .* has no '.*another environment\.$"
            ):
                check_config(config)


@pytest.mark.parametrize(("experiment", "env"), BUILT)
def test_a_pair_builds_or_is_refused_in_one_line(experiment, env, monkeypatch, tmp_path):
    if env == "smacv2":
        install(monkeypatch, tmp_path)
    if env == "smax":
        pytest.importorskip("jaxmarl")
    if env == "mamujoco":
        pytest.importorskip("gymnasium_robotics")
    config = compose_config(experiment, env)
    check_config(config)
    if (experiment, env) in REFUSED:
        with pytest.raises(ExperimentError, match=f"^[^\n]*{REFUSED[experiment, env]}[^\n]*$"):
            build(config, tmp_path)
    else:
        build(config, tmp_path).close()


def test_a_reward_of_the_team_cannot_be_taken_apart(tmp_path):
    config = compose_config("shared_reward", "mamujoco")
    config.env.shared_reward = False
    check_config(config)
    with pytest.raises(ExperimentError, match="gives all agents the reward of the team"):
        build(config, tmp_path)
