"""Distributions of one's own, registered from outside the package."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import distributions as D
from torchrl.modules import ProbabilisticActor

from torchrl_ob import (
    Candidates,
    ComaAdvantage,
    JointAdvantage,
    JointQCritic,
    ObAdvantage,
    Team,
    register_candidates,
)
from torchrl_ob.diagnostics import gradient_variance
from torchrl_ob.diagnostics.measured.scores import scores
from torchrl_ob.expectations import action_candidates
from torchrl_ob.expectations.registry import _KNOWN
from torchrl_ob.functional import optimal_weights

N, OBS, REACH = 3, 4, 4
STEPS = torch.arange(-REACH, REACH + 1.0, dtype=torch.float64)


class TwoSidedGeometric(D.Distribution):
    """Whole numbers from -4 to 4, of probability in proportion to ``exp(-|a - loc| / scale)``."""

    arg_constraints = {}  # noqa: RUF012
    has_enumerate_support = True

    def __init__(self, loc, log_scale):
        self.loc, self.log_scale = loc, log_scale
        self.values = STEPS.to(loc)
        distance = (self.values - loc.unsqueeze(-1)).square() + 1
        self.logits = (-distance.sqrt() * (-log_scale).exp().unsqueeze(-1)).log_softmax(-1)
        super().__init__(loc.shape, validate_args=False)

    def log_prob(self, value):
        index = (value + REACH).long()
        logits = self.logits.expand(*index.shape, -1)
        return logits.gather(-1, index.unsqueeze(-1)).squeeze(-1)

    def sample(self, sample_shape=()):
        return self.values[D.Categorical(logits=self.logits).sample(torch.Size(sample_shape))]

    def enumerate_support(self, expand=True):
        return self.values.reshape(-1, *[1] * self.loc.ndim).expand(-1, *self.loc.shape)


class Other(TwoSidedGeometric):
    """One whose log-probability is its own."""

    def log_prob(self, value):
        return super().log_prob(value) * 1.0


def geometric_scores(dist, actions, psi):
    """In closed form: the derivative of the logits less its mean."""
    scale = dist.log_scale.exp().unsqueeze(-1)
    away = dist.values - dist.loc.unsqueeze(-1)
    distance = (away.square() + 1).sqrt()
    slopes = torch.stack([away / distance / scale, distance / scale], -1)  # [*B, n, A, 2]
    slopes = slopes - (dist.logits.exp().unsqueeze(-1) * slopes).sum(-2, keepdim=True)
    index = (actions + REACH).long().unsqueeze(-1)
    return slopes.gather(-2, index.expand(*index.shape[:-1], 2))


def geometric_candidates(dist, options):
    """All values, with their weights from the scores."""
    actions = dist.values.expand_as(dist.logits)
    p, w = dist.logits.exp(), geometric_scores(dist, actions, None).square().sum(-1)
    return Candidates(actions, p, optimal_weights(p, w))


@pytest.fixture
def registered():
    """For one test."""
    known = dict(_KNOWN)
    register_candidates(TwoSidedGeometric, scores=geometric_scores)(geometric_candidates)
    yield
    _KNOWN.clear()
    _KNOWN.update(known)


def make_team(kind):
    """An actor of the distribution, and a critic, in double precision."""
    torch.manual_seed(0)
    net = torch.nn.Linear(OBS, 2)
    split = torch.nn.Sequential(net, torch.nn.Unflatten(-1, (1, 2)))
    keys = [("agents", "loc"), ("agents", "log_scale")]
    actor = ProbabilisticActor(
        TensorDictModule(
            lambda x: tuple(y.squeeze(-1) for y in split(x).squeeze(-2).split(1, -1)),
            [("agents", "observation")],
            keys,
        ),
        in_keys={"loc": keys[0], "log_scale": keys[1]},
        out_keys=[("agents", "action")],
        distribution_class=kind,
        default_interaction_type="random",
    )
    net.double()
    critic = JointQCritic(N, 2 * REACH + 1, OBS, action_encoding="categorical").double()
    return actor, Shifted(critic)


class Shifted(torch.nn.Module):
    """A critic that takes the values, from -4 to 4, for indices of choices."""

    def __init__(self, critic):
        super().__init__()
        self.critic, self.in_keys, self.out_keys = critic, critic.in_keys, critic.out_keys

    def forward(self, td):
        shifted = td.copy().set(("agents", "action"), td["agents", "action"].long() + REACH)
        return td.set(self.out_keys[0], self.critic(shifted)[self.out_keys[0]])


def make_batch(actor):
    torch.manual_seed(1)

    def observe():
        return TensorDict({"observation": torch.randn(2, 5, N, OBS).double()}, [2, 5])

    td = TensorDict({"agents": observe(), "next": {"agents": observe()}}, [2, 5])
    td = actor(td)
    td["next", "reward"] = torch.randn(2, 5, 1).double()
    td["next", "done"] = td["next", "terminated"] = torch.zeros(2, 5, 1, dtype=torch.bool)
    return td


@pytest.mark.parametrize("module", [ObAdvantage, ComaAdvantage])
def test_advantages_and_diagnostics_take_it_as_by_automatic_differentiation(registered, module):
    actor, critic = make_team(TwoSidedGeometric)
    td = make_batch(actor)
    options = {"value_network": critic, "gamma": 0.9, "lmbda": 0.0, "signal": "critic"}
    found = module(actor_network=actor, **options)
    dist = found.team.policy(td)
    assert action_candidates(dist) is not None
    measured = gradient_variance(found, td)
    baseline = found(td.clone())["agents", "baseline"]
    actions = found.team.candidates(td).actions
    score = scores(actor, td, actions, psi="loc_scale")
    _KNOWN.pop(TwoSidedGeometric)
    assert action_candidates(dist) is None
    slow = module(actor_network=actor, **options)
    torch.testing.assert_close(baseline, slow(td.clone())["agents", "baseline"])
    torch.testing.assert_close(score, scores(actor, td, actions, psi="loc_scale"))
    again = gradient_variance(slow, td)
    for name, value in measured.variance.items():
        torch.testing.assert_close(value, again.variance[name])


def test_a_subclass_with_a_log_prob_of_its_own_is_another(registered):
    loc = torch.zeros(2, N).double()
    assert action_candidates(Other(loc, loc)) is None

    class Named(TwoSidedGeometric):
        pass

    same = action_candidates(Named(loc, loc))
    torch.testing.assert_close(same, action_candidates(TwoSidedGeometric(loc, loc)))


def test_independent_is_taken_for_its_base():
    known = dict(_KNOWN)

    @register_candidates(D.Beta)
    def beta_candidates(dist, options):
        seen.append((type(dist), options.measure))

    seen = []
    one = torch.ones(2, N, 1)
    try:
        assert (
            action_candidates(D.Independent(D.Beta(one, one), 1), measure="probabilities") is None
        )
    finally:
        _KNOWN.clear()
        _KNOWN.update(known)
    assert seen == [(D.Independent, "probabilities")]


class MeanAdvantage(JointAdvantage):
    """The return less the mean of Q over the alternatives."""

    def baseline(self, tensordict):
        own = self.team.candidates(tensordict, acting=True)
        return self.team.q_candidates(tensordict, own.actions).mean(-1, keepdim=True)


def test_a_baseline_of_ones_own_is_one_method():
    actor, critic = make_team(TwoSidedGeometric)
    td = make_batch(actor)
    advantage = MeanAdvantage(actor_network=actor, value_network=critic, gamma=0.9, lmbda=0.5)
    out = advantage(td.clone())
    team = Team(actor, critic)
    q = []
    for step in STEPS:  # a slow loop
        column = []
        for agent in range(N):
            action = td["agents", "action"].clone()
            action[..., agent] = step
            column.append(team.q(td, action)[..., agent, 0])
        q.append(torch.stack(column, -1))
    expected = torch.stack(q).mean(0).unsqueeze(-1)
    torch.testing.assert_close(out["agents", "baseline"], expected.detach())
    torch.testing.assert_close(out["advantage"], out["value_target"] - expected.detach())


def test_a_baseline_of_another_shape_is_refused():
    class Flat(JointAdvantage):
        def baseline(self, tensordict):
            return super().baseline(tensordict)

    class Team(JointAdvantage):
        def baseline(self, tensordict):
            return tensordict["agents", "observation"][..., 0]

    actor, critic = make_team(TwoSidedGeometric)
    td = make_batch(actor)
    options = {"actor_network": actor, "value_network": critic, "gamma": 0.9, "lmbda": 0.5}
    with pytest.raises(
        ValueError, match=r"Team.baseline gave the shape \[2, 5, 3\].*\[2, 5, 3, 1\]"
    ):
        Team(**options)(td)
    with pytest.raises(NotImplementedError, match="Flat has no baseline"):
        Flat(**options)(td)
