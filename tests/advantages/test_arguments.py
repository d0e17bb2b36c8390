"""Arguments and batches that an advantage does not take: one sentence each."""

import math

import pytest
import torch
from games import FunctionCritic, Plain, make_actor, random_batch
from small_teams import ALL, OBS, N, make, make_batch, make_team
from tensordict.nn import (
    CompositeDistribution,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    TensorDictSequential,
)
from torch import nn
from torchrl.modules import IndependentNormal, ProbabilisticActor

from torchrl_ob import (
    ComaAdvantage,
    JointQCritic,
    MapgAdvantage,
    ObAdvantage,
    diagnostics,
)
from torchrl_ob.critics.substitution import substitute_candidates


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# ---- of constructors ----------------------------------------------------------------------------


class Mine(ObAdvantage):
    """One of a user's own, with an argument more."""

    def __init__(self, *, temperature=1.0, **options):
        super().__init__(**options)
        self.temperature = temperature


@pytest.mark.parametrize("module", [ObAdvantage, ComaAdvantage, MapgAdvantage, Mine])
def test_wrong_arguments_name_the_class_and_the_nearest_name(module):
    actor, critic = make_team()
    options = {"actor_network": actor, "value_network": critic, "gamma": 0.9, "lmbda": 0.8}
    name = module.__name__
    with pytest.raises(
        TypeError, match=rf"^{name} has no argument 'lambda': did you mean 'lmbda'\?"
    ):
        module(**options, **{"lambda": 0.8})
    with pytest.raises(TypeError, match=rf"^{name} has no argument 'q'\. It takes .*actor_network"):
        module(**options, q=1)
    with pytest.raises(TypeError, match=rf"^{name} takes arguments by name, got 2"):
        module(actor, critic, gamma=0.9, lmbda=0.8)
    with pytest.raises(TypeError, match=rf"^{name} needs gamma, lmbda\."):
        module(actor_network=actor, value_network=critic)
    module(**options)


def test_a_subclass_with_an_argument_of_its_own():
    actor, critic = make_team()
    options = {"actor_network": actor, "value_network": critic, "gamma": 0.9, "lmbda": 0.8}
    assert Mine(**options, temperature=2.0).temperature == 2.0
    with pytest.raises(
        TypeError, match=r"^Mine has no argument 'temprature': did you mean 'temperature'"
    ):
        Mine(**options, temprature=2.0)


class MyCritic(JointQCritic):
    """One of a user's own, that hands its arguments on."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)


@pytest.mark.parametrize("critic", [JointQCritic, MyCritic])
def test_wrong_arguments_of_critics(critic):
    name = critic.__name__
    with pytest.raises(
        TypeError, match=rf"^{name} has no argument 'observation_dims': did you mean"
    ):
        critic(3, 2, observation_dims=4)
    with pytest.raises(TypeError, match=rf"^{name} needs action_dim\."):
        critic(num_agents=3, observation_dim=4)
    for argument in ("num_agents", "action_dim"):
        numbers = {"num_agents": 3, "action_dim": 2, argument: 0}
        with pytest.raises(ValueError, match=f"{argument} must be 1 or more, got 0"):
            critic(**numbers, observation_dim=4)
    with pytest.raises(TypeError, match=r"chunk_bytes must be a whole number, got 100000\.0"):
        critic(3, 2, observation_dim=4, chunk_bytes=1e5)


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ({"gamma": "a"}, TypeError, "gamma must be a number, got 'a'"),
        ({"lmbda": None}, TypeError, "lmbda must be a number, got None"),
        ({"gamma": math.nan}, ValueError, "gamma must be in"),
        ({"chunk_size": 100.5}, TypeError, r"chunk_size must be a whole number, got 100\.5"),
        ({"num_points": 0}, ValueError, "num_points must be 1 or more, got 0"),
        ({"num_points": 2.5}, TypeError, "num_points must be a whole number"),
        ({"num_points": True}, TypeError, "num_points must be a whole number"),
        ({"time_dim": "time"}, TypeError, "time_dim must be a whole number, got 'time'"),
    ],
)
@pytest.mark.parametrize("module", ALL)
def test_options_of_another_type(module, option, error, message):
    actor, critic = make_team()
    with pytest.raises(error, match=message):
        make(module, actor, critic, **option)


def test_bytes_of_substituted_copies():
    _, critic = make_team()
    td = make_batch(2, 3)
    candidates = torch.zeros(2, 3, N, 2, 2)
    keys = {"action_key": ("agents", "action"), "value_key": critic.out_keys[0]}
    with pytest.raises(TypeError, match="chunk_bytes must be a whole number"):
        substitute_candidates(Plain(critic), td, candidates, chunk_bytes=1e5, **keys)


# ---- of batches ---------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(2, 0), (0, 5), (0,)])
@pytest.mark.parametrize("module", ALL)
def test_an_empty_batch(module, batch):
    actor, critic = make_team()
    with pytest.raises(ValueError, match=rf"the batch is empty, of batch size \[{batch[0]}"):
        make(module, actor, critic)(make_batch(*batch))


def test_a_single_step():
    actor, critic = make_team()
    advantage, td = make(ObAdvantage, actor, critic), make_batch(2, 5)[0, 0]
    for ask in (advantage, advantage.value_estimate, lambda x: diagnostics.headroom(advantage, x)):
        with pytest.raises(ValueError, match=r"batch size is \[\].*\[\*B, time\]"):
            ask(td)


@pytest.mark.parametrize("randomness", ["error", "different"])
def test_vmap(randomness):
    actor, critic = make_team()
    advantage = make(ObAdvantage, actor, critic)
    with pytest.raises(TypeError, match=r"all dimensions of a batch at once.*without torch.vmap"):
        torch.vmap(advantage, randomness=randomness)(make_batch(3, 2, 5))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_reward_that_is_not_finite(value):
    actor, critic = make_team()
    td = make_batch(2, 5)
    td["next", "agents", "reward"][0, 1, 2] = value
    with pytest.raises(
        RuntimeError, match=r"the reward .*'reward'\) is not finite: it has NaN or inf"
    ):
        make(ObAdvantage, actor, critic)(td)


def test_a_return_that_overflows():
    actor, critic = make_team()
    td = make_batch(2, 5)
    td["next", "agents", "reward"][:] = 3e38
    with pytest.raises(RuntimeError, match=r"the return overflows torch\.float32"):
        make(ObAdvantage, actor, critic, gamma=1.0, lmbda=1.0)(td)


ENCODINGS = {
    "categorical": (torch.randint(5, (2, 4, N)), 5, [5, -1]),
    "one_hot": (torch.eye(5)[torch.randint(5, (2, 4, N))], 5, [0.0, 1.0]),
    "multi_categorical": (torch.randint(2, (2, 4, N, 2)), 5, [3, -1]),
}


@pytest.mark.parametrize("wrong", [0, 1])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_action_out_of_range(encoding, wrong):
    action, size, values = ENCODINGS[encoding]
    nvec = {"nvec": (2, 3)} if encoding == "multi_categorical" else {}
    critic = JointQCritic(N, size, OBS, action_encoding=encoding, hidden_dim=8, **nvec)
    td = random_batch([2, 4], action)
    assert critic(td.clone())[critic.out_keys[0]].isfinite().all()
    action = action.clone()
    action[1, 2, 0] = values[wrong]
    with pytest.raises(
        RuntimeError, match=r"actions .*'action'\).* out of range: the critic takes"
    ):
        critic(td.set(("agents", "action"), action))


@pytest.mark.parametrize("wrong", [4, -1])
@pytest.mark.parametrize("module", [ObAdvantage, ComaAdvantage])
def test_an_action_out_of_range_with_a_critic_that_takes_any(module, wrong):
    def compare(action):
        chosen = (action.unsqueeze(-1) == torch.arange(4)).to(torch.float32)
        return chosen.sum((-1, -2)).unsqueeze(-1).expand(action.shape)

    actor = make_actor("categorical", [torch.randn(N, 4)])
    td = random_batch([2, 4], torch.randint(4, (2, 4, N)))
    td["agents", "action"][1, 2, 0] = wrong
    advantage = make(module, actor, FunctionCritic(compare))
    with pytest.raises(
        RuntimeError, match=r"'action'.*out of range: no choice of the agent's policy"
    ):
        advantage(td.clone())
    td["agents", "mask"] = torch.ones(2, 4, N, dtype=torch.bool)
    td["agents", "mask"][1, 2, 0] = False  # what a dead agent does is nobody's business
    assert advantage(td)["advantage"][1, 2, 0] == 0


def test_a_policy_of_more_actions_than_the_critic():
    actor = make_actor("categorical", [torch.randn(N, 6)])
    critic = JointQCritic(N, 5, OBS, action_encoding="categorical", hidden_dim=8)
    td = random_batch([2, 4], torch.zeros(2, 4, N, dtype=torch.long))
    td["next", "terminated"] = torch.ones(2, 4, 1, dtype=torch.bool)
    advantage = make(ComaAdvantage, actor, critic)
    with pytest.raises(RuntimeError, match="alternatives to them, are out of range"):
        advantage(td)


# ---- distributions ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["torch_one_hot", "categorical", "masked_one_hot"])
@pytest.mark.parametrize("bootstrap", ["sampled", "expected", "control_variate"])
def test_a_single_choice(kind, bootstrap):
    discrete = kind == "categorical"
    actor = make_actor(kind, [torch.zeros(N, 1)])
    encoding = "categorical" if discrete else "one_hot"
    critic = JointQCritic(N, 1, OBS, action_encoding=encoding, hidden_dim=8)
    action = torch.zeros(2, 4, N, dtype=torch.long) if discrete else torch.ones(2, 4, N, 1)
    td = random_batch([2, 4], action, mask=torch.ones(N, 1, dtype=torch.bool))
    advantage = make(ObAdvantage, actor, critic, signal="critic", bootstrap=bootstrap)
    advantage.set_keys(mask="none")
    out = advantage(td)
    torch.testing.assert_close(out["advantage"], torch.zeros(2, 4, N, 1))


def test_a_single_choice_that_torchrl_takes_for_many():
    actor = make_actor("one_hot", [torch.zeros(N, 1)])
    critic = JointQCritic(N, 1, OBS, action_encoding="one_hot", hidden_dim=8)
    with pytest.raises(
        ValueError, match=r"single action, use torch\.distributions\.OneHotCategorical"
    ):
        make(ObAdvantage, actor, critic)(random_batch([2, 4], torch.ones(2, 4, N, 1)))


def composite(*names):
    """A policy whose action is one entry or several of a CompositeDistribution."""
    nets = [
        TensorDictModule(
            nn.Sequential(nn.Linear(OBS, 2), Scaled()),
            [("agents", "observation")],
            [("agents", "params", name, part) for part in ("loc", "scale")],
        )
        for name in names
    ]
    return ProbabilisticActor(
        TensorDictSequential(*nets),
        in_keys=[("agents", "params")],
        out_keys=[("agents", name) for name in names],
        distribution_class=CompositeDistribution,
        distribution_kwargs={
            "distribution_map": dict.fromkeys(names, IndependentNormal),
            "name_map": {name: ("agents", name) for name in names},
        },
    )


class Scaled(nn.Module):
    def forward(self, loc):
        return loc, torch.ones_like(loc)


@pytest.mark.parametrize("bootstrap", ["sampled", "expected", "control_variate"])
@pytest.mark.parametrize("module", ALL)
def test_a_composite_distribution_of_one_action_is_that_action(module, bootstrap):
    _, critic = make_team()
    actor = composite("action")
    net = actor.module[0].module[0].module
    plain = ProbabilisticActor(
        TensorDictModule(
            net, [("agents", "observation")], [("agents", "loc"), ("agents", "scale")]
        ),
        in_keys=[("agents", "loc"), ("agents", "scale")],
        out_keys=[("agents", "action")],
        distribution_class=IndependentNormal,
    )
    assert isinstance(actor, ProbabilisticTensorDictSequential)
    td, outputs = make_batch(2, 5), []
    for policy in (plain, actor):
        advantage = make(module, policy, critic, bootstrap=bootstrap)
        torch.manual_seed(0)
        outputs.append(advantage(td.clone())["advantage"])
    assert torch.equal(*outputs)
    measured = diagnostics.gradient_variance(advantage, td).variance["ob"].value
    assert measured.isfinite().all()


def test_a_composite_distribution_of_several_actions():
    _, critic = make_team()
    with pytest.raises(
        ValueError, match=r"must write one action.*CompositeDistribution.*into one entry"
    ):
        make(ObAdvantage, composite("action", "word"), critic)


def test_dispatch_with_nested_keys():
    actor, critic = make_team(group="blue")
    td = make_batch(2, 5, group="blue")
    td.rename_key_(("next", "done"), ("next", "signals", "over"))
    for module in ALL:
        advantage = make(module, actor, critic, group="blue")
        advantage.set_keys(done=("signals", "over"), advantage=("blue", "adv"), baseline="b")
        torch.manual_seed(0)
        expected = advantage(td.clone())
        entries = [td[key] for key in advantage.in_keys]
        names = ["_".join(key) if isinstance(key, tuple) else key for key in advantage.in_keys]
        torch.manual_seed(0)
        by_place = advantage(*entries)
        torch.manual_seed(0)
        by_name = advantage(**dict(zip(names, entries, strict=True)))
        for key, *found in zip(advantage.out_keys, by_place, by_name, strict=True):
            assert all(torch.equal(value, expected[key]) for value in found)
