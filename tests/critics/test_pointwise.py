"""Networks with a memory in time are told; those that read a state of their own from the batch are not."""

import pytest
import torch
from games import FunctionCritic, make_actor, random_batch
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.modules import GRUModule, ProbabilisticActor, set_recurrent_mode

from torchrl_ob import ComaAdvantage, JointQCritic, MapgAdvantage, ObAdvantage

N, OBS, D, HIDDEN = 3, 4, 2, 8
OPTIONS = {"gamma": 0.9, "lmbda": 0.8}
OBSERVATION, ACTION = ("agents", "observation"), ("agents", "action")
VALUE = ("agents", "state_action_value")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def gaussian_team():
    return make_actor("independent_normal", [torch.randn(N, D), torch.rand(N, D) + 0.5])


class Net(nn.Module):
    """Values from observations and actions, through layers in between."""

    def __init__(self, *between, width=HIDDEN):
        super().__init__()
        self.first = nn.Linear(OBS + D, HIDDEN)
        self.between, self.last = nn.ModuleList(between), nn.Linear(width, 1)

    def forward(self, observation, action):
        x = self.first(torch.cat([observation, action], -1))
        for layer in self.between:
            x = layer(x)
        return self.last(x)


class OverTime(nn.Module):
    """A recurrent or attention layer along time, for each agent."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        shape = x.shape
        if x.ndim < 4:
            x = x.unsqueeze(-3)
        x = x.movedim(-2, 1).flatten(0, 1)  # [B n, T, H]
        y = (
            self.layer(x, x, x)[0]
            if isinstance(self.layer, nn.MultiheadAttention)
            else self.layer(x)[0]
        )
        return y.unflatten(0, (-1, shape[-2])).movedim(1, -2).reshape(shape)


class Cumulated(nn.Module):
    def forward(self, x):
        return x.cumsum(-3)


class Flat(nn.Module):
    """A layer on agents and steps alike."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.flatten(0, -2)).reshape(x.shape)


class OverAgents(nn.Module):
    """A recurrent layer along the agents, which is no memory in time."""

    def __init__(self):
        super().__init__()
        self.layer = nn.GRU(HIDDEN, HIDDEN, batch_first=True)

    def forward(self, x):
        return self.layer(x.flatten(0, -3))[0].reshape(x.shape)


def make_critic(net):
    return TensorDictModule(net, [OBSERVATION, ACTION], [VALUE])


def build(critic, kind=ObAdvantage, actor=None):
    advantage = kind(actor_network=actor or gaussian_team(), value_network=critic, **OPTIONS)
    advantage.set_keys(reward=("agents", "reward"))
    return advantage


def make_batch(*batch):
    return random_batch(batch, torch.randn(*batch, N, D), OBS)


MEMORIES = {
    "gru": lambda: OverTime(nn.GRU(HIDDEN, HIDDEN, batch_first=True)),
    "lstm": lambda: OverTime(nn.LSTM(HIDDEN, HIDDEN, batch_first=True)),
    "sum": Cumulated,
}


@pytest.mark.parametrize("kind", [ObAdvantage, ComaAdvantage, MapgAdvantage])
@pytest.mark.parametrize("memory", MEMORIES)
def test_a_critic_with_a_memory_is_told(memory, kind):
    before = torch.get_rng_state()
    critic = make_critic(Net(MEMORIES[memory]()))
    advantage = build(critic, kind)
    torch.set_rng_state(before)
    with pytest.raises(
        ValueError, match=r"the critic has a memory in time.*RecurrentCritic.*encode"
    ):
        advantage(make_batch(4, 6))
    with pytest.raises(ValueError, match="memory in time"):
        advantage.value_estimate(make_batch(4, 6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "between",
    [
        [],
        [nn.Dropout(0.5)],
        [nn.LayerNorm(HIDDEN)],
        [OverAgents()],
        [Flat(nn.BatchNorm1d(HIDDEN).eval())],
    ],
)
def test_what_is_no_memory_is_taken_and_leaves_no_trace(between, dtype):
    critic = make_critic(Net(*between)).to(dtype)
    modes = {name: module.training for name, module in critic.named_modules()}
    advantage = build(critic)
    td = random_batch([4, 6], torch.randn(4, 6, N, D, dtype=dtype), OBS, dtype=dtype)
    assert advantage(td)["advantage"].isfinite().all()
    assert advantage.known_pointwise
    assert modes == {name: module.training for name, module in critic.named_modules()}
    torch.manual_seed(3)
    first = advantage(td.clone())["advantage"]
    fresh = build(critic, actor=advantage.team.actor)
    torch.manual_seed(3)
    assert torch.equal(fresh(td.clone())["advantage"], first)  # no random number was drawn


def test_batch_norm_in_training_is_told_apart():
    critic = make_critic(Net(Flat(nn.BatchNorm1d(HIDDEN))))
    with pytest.raises(
        ValueError, match=r"the critic has a BatchNorm1d in training mode.*eval\(\)"
    ):
        build(critic)(make_batch(4, 6))


def test_a_critic_that_is_flat_at_first_is_asked_again():
    critic = make_critic(Net(MEMORIES["gru"]()))
    last = critic.module.last
    nn.init.zeros_(last.weight)
    advantage = build(critic)
    advantage(make_batch(4, 6))
    nn.init.normal_(last.weight)
    with pytest.raises(ValueError, match="memory in time"):
        advantage(make_batch(4, 6))
    linear = build(make_critic(Net()))
    linear(make_batch(4, 1))  # one step tells nothing
    assert not linear.known_pointwise


def test_time_is_where_it_is_said_to_be():
    critic = make_critic(Net(MEMORIES["gru"]()))
    turned = make_batch(6, 4)
    advantage = build(FunctionCritic(lambda a: a.cumsum(0).sum(-1)))
    advantage.time_dim = 0
    with pytest.raises(ValueError, match="memory in time"):
        advantage(turned)
    advantage = build(critic)
    advantage.time_dim = 0
    advantage.require_pointwise(turned, 0)  # its memory runs along dimension 1


# ---- recurrent policies -------------------------------------------------------------------------


def cell_actor():
    """A GRU cell whose hidden state is in the batch."""

    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.GRUCell(OBS, HIDDEN), nn.Linear(HIDDEN, D)

        def forward(self, observation, hidden):
            shape = observation.shape[:-1]
            new = self.cell(observation.flatten(0, -2), hidden.flatten(0, -2)).reshape(
                *shape, HIDDEN
            )
            loc = self.head(new)
            return loc, torch.ones_like(loc), new

    names = [("agents", "loc"), ("agents", "scale")]
    hidden = ("agents", "hidden")
    module = TensorDictModule(Cell(), [OBSERVATION, hidden], [*names, ("next", *hidden)])
    return with_distribution(module, names)


def with_distribution(module, names):
    return ProbabilisticActor(
        module,
        in_keys=names,
        out_keys=[ACTION],
        distribution_class=torch.distributions.Normal,
        distribution_kwargs={},
    )


def hidden_batch(*batch):
    td = make_batch(*batch)
    for state in (td, td["next"]):
        state["agents", "hidden"] = torch.randn(*batch, N, HIDDEN)
    return td


class IndependentOfDimensions(torch.distributions.Independent):
    def __init__(self, loc, scale):
        super().__init__(torch.distributions.Normal(loc, scale), 1)


def test_a_cell_whose_state_is_in_the_batch_is_right():
    actor = cell_actor()
    actor.module[-1].distribution_class = IndependentOfDimensions
    advantage = build(JointQCritic(N, D, OBS), actor=actor)
    td = hidden_batch(4, 6)
    torch.manual_seed(1)
    found = advantage(td.clone())
    assert advantage.known_pointwise
    # step by step, the policy at the next state is the cell's at the stored hidden state
    torch.manual_seed(1)
    following = td["next"].clone()
    stepwise = torch.stack([actor.get_dist(following[:, t]).mean for t in range(6)], 1)
    torch.testing.assert_close(actor.get_dist(following).mean, stepwise)
    assert found["advantage"].isfinite().all()


def test_a_policy_with_a_memory_is_told():
    names = [("agents", "loc"), ("agents", "scale")]

    class Remembers(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = OverTime(nn.GRU(OBS, OBS, batch_first=True))
            self.head = nn.Linear(OBS, D)

        def forward(self, observation):
            loc = self.head(self.layer(observation))
            return loc, torch.ones_like(loc)

    actor = with_distribution(TensorDictModule(Remembers(), [OBSERVATION], names), names)
    actor.module[-1].distribution_class = IndependentOfDimensions
    with pytest.raises(ValueError, match=r"the actor has a memory in time \(GRU\)"):
        build(JointQCritic(N, D, OBS), actor=actor)(make_batch(4, 6))


def test_a_recurrent_module_of_torchrl_reads_its_state_whatever_the_mode():
    gru = GRUModule(
        input_size=OBS,
        hidden_size=HIDDEN,
        in_keys=["state", "hidden", "is_init"],
        out_keys=["summary", ("next", "hidden")],
    )

    def value(summary, action):
        return (
            (summary.sum(-1, keepdim=True) * action.sum((-2, -1)).unsqueeze(-1))
            .unsqueeze(-2)
            .expand(*action.shape[:-1], 1)
        )

    critic = TensorDictSequential(gru, TensorDictModule(value, ["summary", ACTION], [VALUE]))
    critic.out_keys = [VALUE]
    td, actor = make_batch(4, 6), gaussian_team()
    for state in (td, td["next"]):
        state["state"] = torch.randn(4, 6, OBS)
        state["hidden"] = torch.randn(4, 6, 1, HIDDEN)
        state["is_init"] = torch.zeros(4, 6, 1, dtype=torch.bool)
    found = []
    for mode in (False, True):
        torch.manual_seed(3)
        with set_recurrent_mode(mode):
            found.append(build(critic, actor=actor)(td.clone())["advantage"])
    assert torch.equal(*found)
