"""Observations of every kind: one vector of floats for each agent, in a rollout and in the command, or one sentence."""

import odd_games
import pytest
import torch
from odd_games import ACTIONS, OBSERVATIONS
from short_runs import configure, ignored_warnings, scalars
from spec_game import SpecGame
from torchrl.data import (
    Bounded,
    Categorical,
    Composite,
    MultiCategorical,
    OneHot,
    Unbounded,
)
from torchrl.data.tensor_specs import Stacked
from torchrl.envs import check_env_specs
from torchrl.envs.libs.pettingzoo import PettingZooWrapper

from torchrl_ob import JointQCritic
from torchrl_ob.envs.flat import flat_env
from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.gae import state_value_from_env
from torchrl_ob.experiments.loop import train
from torchrl_ob.policies import policy_from_env

pytestmark = [
    *ignored_warnings,
    pytest.mark.filterwarnings("ignore:PettingZoo in TorchRL is tested:UserWarning"),
]
GAMES = [
    *({"observation": name} for name in OBSERVATIONS if name != "image"),
    *({"action": name} for name in ACTIONS if name != "half open"),
    {"masked": "observation", "observation": "dict"},
    {"masked": "observation", "observation": "float64"},
    {"masked": "info"},
]


def wrap(**options):
    return PettingZooWrapper(env=odd_games.parallel_env(**options), done_on_any=True)


def networks(env, group="agent"):
    policy = policy_from_env(env, group=group, num_cells=8)
    critic = JointQCritic.from_env(env, group=group, hidden_dim=8)
    return policy, critic, state_value_from_env(env, group=group, num_cells=8)


@pytest.mark.parametrize("options", GAMES, ids=lambda options: "-".join(options.values()))
def test_a_game_is_played_with_vectors_of_what_is_observed(options):
    env = flat_env(wrap(**options))
    check_env_specs(env)
    policy, critic, value = networks(env)
    batch = env.rollout(7, policy, break_when_any_done=False)  # the game checks its actions
    assert critic(batch)["agent", "state_action_value"].shape == (7, 2, 1)
    assert value(batch)["agent", "state_value"].shape == (7, 2, 1)
    assert batch["agent", "observation"].dtype == torch.float32
    if options.get("masked"):
        assert not batch["agent", "action_mask"][..., 0].any()


ENTRIES = {  # specs of one agent, and an entry's value as floats
    "double": (Unbounded((3,), dtype=torch.float64), lambda x: x.float()),
    "number": (Unbounded((), dtype=torch.int32), lambda x: x.float().unsqueeze(-1)),
    "matrix": (Unbounded((2, 3)), lambda x: x.flatten(-2)),
    "flag": (Categorical(2, (), dtype=torch.bool), lambda x: x.float().unsqueeze(-1)),
    "choice": (Categorical(4, ()), lambda x: torch.eye(4)[x]),
    "choices": (Categorical(3, (2,)), lambda x: torch.eye(3)[x].flatten(-2)),
    "factors": (
        MultiCategorical([2, 5]),
        lambda x: torch.cat([torch.eye(2)[x[..., 0]], torch.eye(5)[x[..., 1]]], -1),
    ),
    "one_hot": (OneHot(3), lambda x: x.float()),
}
ACTION = Categorical(3, (2,))


@pytest.mark.parametrize("batch_size", [(), (5,), (2, 3)])
@pytest.mark.parametrize("names", [[name] for name in ENTRIES] + [list(ENTRIES)], ids="-".join)
def test_the_vector_is_that_of_all_entries_side_by_side(names, batch_size):
    torch.manual_seed(0)
    specs = {name: ENTRIES[name][0] for name in names}
    team = {name: spec.unsqueeze(0).expand(2, *spec.shape) for name, spec in specs.items()}
    bare = SpecGame(ACTION, Composite(**team, shape=(2,)), batch_size=batch_size)
    env = flat_env(bare)
    bare_td = bare.observation_spec.rand()
    vector = env.transform(bare_td.clone())["agents", "observation"]
    told = bare_td["agents", "observation"]
    expected = torch.cat([ENTRIES[name][1](told[name]) for name in names], -1)
    assert vector.equal(expected)
    assert env.observation_spec["agents", "observation"].shape == vector.shape
    check_env_specs(env)
    policy, critic, value = networks(env, "agents")
    batch = env.rollout(3, policy)
    value(critic(batch))


def test_what_is_a_vector_already_is_left_as_it_is():
    env = SpecGame(ACTION)
    assert flat_env(env) is env


def test_a_double_state_and_a_mask_of_integers_are_cast():
    env = flat_env(
        SpecGame(
            ACTION,
            state=Unbounded((3,), dtype=torch.float64),
            action_mask=Bounded(1, 1, (2, 3), dtype=torch.int8),
        )
    )
    check_env_specs(env)
    policy, critic, _ = networks(env, "agents")
    batch = critic(env.rollout(3, policy))
    assert critic.state_shapes["state"] == (3,)
    assert batch["state"].dtype == torch.float32
    assert batch["agents", "action_mask"].dtype == torch.bool


@pytest.mark.parametrize(
    ("observation", "error", "message"),
    [
        (Bounded(0, 255, (2, 8, 8, 3), dtype=torch.uint8), TypeError, "image.*MultiAgentConvNet"),
        (Unbounded((2, 3, 8, 8)), TypeError, "image.*ToTensorImage.*FlattenObservation"),
        (Bounded(0, 255, (2, 8, 8), dtype=torch.uint8), TypeError, "image.*ToTensorImage"),
        (Unbounded((2, 0)), ValueError, "is empty"),
        (Stacked(Unbounded((2,)), Unbounded((3,)), dim=0), ValueError, "Stacked.*group_map"),
    ],
)
def test_images_and_what_has_no_vector_are_refused_everywhere(observation, error, message):
    env = SpecGame(ACTION, observation)
    for build_from in (flat_env, policy_from_env, JointQCritic.from_env, state_value_from_env):
        with pytest.raises(error, match=rf"^[^\n]*'observation'[^\n]*{message}[^\n]*$"):
            build_from(env)


@pytest.mark.parametrize("options", GAMES, ids=lambda options: "-".join(options.values()))
def test_networks_work_or_say_in_one_sentence_what_does(options):
    env = wrap(**options)
    for build_from in (policy_from_env, JointQCritic.from_env, state_value_from_env):
        message = refusal(build_from, env)
        if message is None:
            build_from(env, group="agent")(env.rollout(2))
        else:
            assert "flat_env" in message
            assert "\n" not in message


def refusal(build_from, env):
    try:
        build_from(env, group="agent")
    except (TypeError, ValueError) as told:
        return str(told)


GAME = ("env=pettingzoo", "env.task=odd_games", "env.num_envs=4", "evaluation.num_envs=3")


@pytest.mark.parametrize(
    "options",
    [
        {"observation": "dict", "masked": "observation"},
        {"observation": "bytes", "action": "bits"},
        {"observation": "choices", "action": "double"},
        {"action": "factors"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_a_game_is_trained_on_by_the_command(options, tmp_path):
    more = (f"++env.scenario_kwargs.{name}={value}" for name, value in options.items())
    train(build(configure(*GAME, *more), tmp_path))
    assert len(scalars(tmp_path)) > 10


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("observation=image", "is an image: .*MultiAgentConvNet"),
        ("action='half open'", "each dimension of every agent must have two finite ones"),
    ],
)
def test_what_the_command_cannot_play_is_told(option, message, tmp_path):
    with pytest.raises(ExperimentError, match=rf"^[^\n]*{message}[^\n]*$"):
        build(configure(*GAME, f"++env.scenario_kwargs.{option}"), tmp_path)


def test_a_command_whose_agents_move_along_two_axes(tmp_path):
    pair = ("env=vmas", "env.scenario=balance", "env.continuous_actions=false")
    parts = build(configure(*pair, "++env.scenario_kwargs.multidiscrete_actions=true"), tmp_path)
    with torch.no_grad():
        action = parts.evaluation.env.rollout(5, parts.actor)["agents", "action"]
    assert action.shape[-1] == 2
