"""What is measured on batches agrees with what is enumerated, and touches nothing."""

import functools
import math
import random

import numpy as np
import pytest
import torch
from dense_rules import truncated_normal_score_weights
from games import CONTINUOUS, DISCRETE, FunctionCritic, make_actor, random_batch
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torchrl.modules import (
    IndependentNormal,
    MultiAgentMLP,
    NormalParamExtractor,
    ProbabilisticActor,
)

from torchrl_ob import ComaAdvantage, MapgAdvantage, ObAdvantage
from torchrl_ob.diagnostics import (
    coma_baseline,
    critic_quality,
    decentralized_value,
    excess_bound,
    excess_variance,
    gradient_moments,
    gradient_variance,
    headroom,
    optimal_baseline,
    parameter_gradient_variance,
    state_value,
    variance_terms,
)
from torchrl_ob.diagnostics.intervals import Blocks, Estimate, resample
from torchrl_ob.diagnostics.measured.critic_quality import CriticQuality
from torchrl_ob.diagnostics.measured.headroom import Headroom
from torchrl_ob.diagnostics.measured.scores import output_jacobians, scores
from torchrl_ob.expectations import action_candidates
from torchrl_ob.functional import (
    categorical_log_score_weights,
    normal_score_weights,
)

NUM_AGENTS, NUM_ACTIONS, NUM_STATES = 3, 3, 2
NOISE = 1.5  # standard deviation of the reward


class TableCritic(TensorDictModuleBase):
    """Q of a game with two states that is written down, each agent with its own values."""

    def __init__(self, tables):
        super().__init__()
        self.tables = tables  # [states, n, A, A, A]
        self.in_keys = [("agents", "observation"), ("agents", "action")]
        self.out_keys = [("agents", "state_action_value")]

    def forward(self, tensordict):
        state = tensordict["agents", "observation"][..., 0, :NUM_STATES].argmax(-1)
        action = tensordict["agents", "action"].unbind(-1)
        agents = torch.arange(NUM_AGENTS)
        value = self.tables[state[..., None], agents, *(a[..., None] for a in action)]
        return tensordict.set(self.out_keys[0], value.unsqueeze(-1))


class Game:
    """Three agents, two states: exact quantities, and batches of one-step episodes."""

    def __init__(self, signal="critic", team=False, seed=0):
        torch.manual_seed(seed)
        tables = torch.randn(NUM_STATES, NUM_AGENTS, *[NUM_ACTIONS] * NUM_AGENTS).double() * 3 + 2
        self.tables = tables[:, :1].expand_as(tables) if team else tables
        self.network = torch.nn.Linear(NUM_STATES + NUM_AGENTS, NUM_ACTIONS).double()
        self.actor = ProbabilisticActor(
            TensorDictModule(self.network, [("agents", "observation")], [("agents", "logits")]),
            in_keys=[("agents", "logits")],
            out_keys=[("agents", "action")],
            distribution_class=torch.distributions.Categorical,
        )
        self.critic = TableCritic(self.tables)
        self.advantage = ObAdvantage(
            actor_network=self.actor,
            value_network=self.critic,
            gamma=0.9,
            lmbda=0.8,
            signal=signal,
        )
        self.advantage.set_keys(reward=("agents", "reward"))
        eye = torch.eye(NUM_AGENTS).double()
        self.observations = torch.stack(
            [
                torch.cat([torch.eye(NUM_STATES).double()[s].expand(NUM_AGENTS, -1), eye], -1)
                for s in range(NUM_STATES)
            ]
        )  # [states, n, features]
        self.probs = self.network(self.observations).softmax(-1).detach()

    def batch(self, size, seed=1):
        torch.manual_seed(seed)
        state = torch.arange(size) % NUM_STATES
        observation = self.observations[state].unsqueeze(1)
        td = TensorDict({"agents": {"observation": observation}}, [size, 1])
        td = td.set(("agents", "action"), self.actor.get_dist(td.clone()).sample())
        reward = self.critic(td.clone())["agents", "state_action_value"]
        end = torch.ones(size, 1, 1, dtype=torch.bool)
        following = {
            "agents": {
                "observation": observation.clone(),
                "reward": reward + NOISE * torch.randn_like(reward),
            },
            "done": end,
            "terminated": end.clone(),
        }
        return td.set("next", TensorDict(following, [size, 1]))

    def each(self, agent):
        """Value table, policies and Jacobian of the logits in θ, in each state."""
        for s in range(NUM_STATES):
            logits = self.network(self.observations[s])[agent]
            jacobian = torch.stack(
                [
                    torch.cat(
                        [
                            g.flatten()
                            for g in torch.autograd.grad(
                                x, list(self.network.parameters()), retain_graph=True
                            )
                        ]
                    )
                    for x in logits
                ]
            )
            yield self.tables[s, agent], list(self.probs[s]), jacobian

    def baseline(self, name, q, probs, agent, jacobian):
        if name == "none":
            return torch.zeros(())
        if name == "v":
            return state_value(q, probs)
        if name == "coma":
            return coma_baseline(q, probs, agent)
        return optimal_baseline(q, probs, agent, jacobian if name == "ob_exact" else None)

    def variance(self, name, agent, in_parameters):
        """Total variance over states and joint actions, by enumeration."""
        means, within, weights = [], [], []
        for q, probs, jacobian in self.each(agent):
            b = self.baseline(name, q, probs, agent, jacobian)
            used = jacobian if in_parameters else None
            mean, variance = gradient_moments(q - b, probs, agent, used)
            means.append(mean)
            within.append(variance)
            score = torch.eye(NUM_ACTIONS) - probs[agent]
            score = score @ jacobian if in_parameters else score
            weights.append(probs[agent] @ score.square().sum(-1))
        mean = torch.stack(means)
        between = mean.square().sum(-1).mean() - mean.mean(0).square().sum()
        noise = NOISE**2 if self.advantage.signal == "lambda_return" else 0.0
        return sum(within) / NUM_STATES + between + noise * sum(weights) / NUM_STATES


def assert_covers(estimate, exact, tightness=0.25):
    """Within four standard errors of the truth, and precise enough to mean something."""
    exact = torch.as_tensor(exact, dtype=estimate.value.dtype)
    standard_error = (estimate.high - estimate.low) / (2 * 1.96)
    assert ((estimate.value - exact).abs() <= 4 * standard_error + 1e-9).all(), (estimate, exact)
    scale = exact.abs().max().clamp(min=1e-9)
    assert (standard_error <= tightness * scale).all(), (estimate, exact)


@pytest.mark.parametrize("signal", ["critic", "lambda_return"])
def test_measured_variance_is_the_enumerated_one(signal):
    game = Game(signal)
    measured = gradient_variance(game.advantage, game.batch(6000))
    ob = sum(game.variance("ob", agent, False) for agent in range(NUM_AGENTS))
    for name in ("none", "v", "coma", "ob"):
        exact = torch.stack([game.variance(name, agent, False) for agent in range(NUM_AGENTS)])
        assert_covers(measured.variance[name], exact, 0.05)
        assert_covers(measured.ratio[name], exact.sum() / ob, 0.05)


def test_measured_variance_in_parameters_is_the_enumerated_one():
    game = Game("lambda_return")
    measured = parameter_gradient_variance(game.advantage, game.batch(6000))
    for name in ("none", "v", "coma", "ob", "ob_exact"):
        exact = [game.variance(name, agent, True) for agent in range(NUM_AGENTS)]
        assert_covers(measured.variance[name], torch.stack(exact), 0.05)
    assert measured.ratio["ob_exact"].value < 1 < measured.ratio["coma"].value


@pytest.mark.parametrize("psi", ["loc_scale", "loc_log_scale", "loc"])
def test_variance_in_parameters_is_that_of_a_loop_over_samples(psi, monkeypatch):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 4).double(), NormalParamExtractor())
    params = [("agents", "loc"), ("agents", "scale")]
    actor = ProbabilisticActor(
        TensorDictModule(net, [("agents", "observation")], params),
        in_keys=params,
        out_keys=[("agents", "action")],
        distribution_class=IndependentNormal,
    )
    td = random_batch((10, 2), torch.zeros(10, 2, 3, 2), dtype=torch.float64)
    td["agents", "action"] = actor.get_dist(td.clone()).sample()
    critic = FunctionCritic(
        lambda a: a.square().sum((-2, -1), keepdim=True).squeeze(-1).expand(a.shape[:-1])
    )
    advantage = ObAdvantage(
        actor_network=actor, value_network=critic, gamma=0.9, lmbda=0.8, signal="critic", psi=psi
    )
    advantage.set_keys(reward=("agents", "reward"))
    small = functools.partial(output_jacobians, chunk_bytes=1)
    monkeypatch.setattr("torchrl_ob.diagnostics.measured.variance.output_jacobians", small)
    measured = parameter_gradient_variance(advantage, td)

    log_prob = actor.get_dist(td.clone()).log_prob(td["agents", "action"])
    rows = [
        torch.cat(
            [g.flatten() for g in torch.autograd.grad(x, actor.parameters(), retain_graph=True)]
        )
        for x in log_prob.flatten()
    ]
    score = torch.stack(rows).unflatten(0, log_prob.shape)  # [10, 2, n, parameters]
    signal = advantage(td.clone())["advantage"]
    gradient = (signal * score).flatten(0, 1)
    blocks = gradient.unflatten(0, (10, 2)).sum(1)  # of each trajectory, [10, n, parameters]
    products = torch.einsum("fnp,gnp->nfg", blocks, blocks)
    pairs = products.sum((-2, -1)) - products.diagonal(dim1=-2, dim2=-1).sum(-1)
    exact = gradient.square().sum(-1).mean(0) - pairs / (2 * 2 * 10 * 9)
    torch.testing.assert_close(measured.variance["ob"].value, exact)


def test_measurement_does_not_depend_on_whose_advantage_it_is():
    game = Game()
    batch = game.batch(200)
    networks = {"actor_network": game.actor, "value_network": game.critic}
    printed = []
    for module in (ObAdvantage, ComaAdvantage, MapgAdvantage):
        advantage = module(**networks, gamma=0.9, lmbda=0.8, signal="critic")
        advantage.set_keys(reward=("agents", "reward"))
        printed.append(str(gradient_variance(advantage, batch)))
    assert printed[0] == printed[1] == printed[2]
    assert all(name in printed[0] for name in ("none", "v ", "coma", "ob"))


@pytest.mark.parametrize("num_draws", [2, 8])
def test_noise_of_the_estimated_state_value_is_subtracted(num_draws):
    game = Game()
    measured = gradient_variance(game.advantage, game.batch(6000), num_draws=num_draws)
    exact = [game.variance("v", agent, False) for agent in range(NUM_AGENTS)]
    assert_covers(measured.variance["v"], torch.stack(exact), 0.05)


def conditional_means(game, agent):
    """``m(s, a^-i)`` ``[states, others, A]`` and the others' probabilities ``[states, others]``."""
    means, weights = [], []
    for q, probs, _ in game.each(agent):
        own = probs[agent]
        score = torch.eye(NUM_ACTIONS).double() - own
        others = [p for j, p in enumerate(probs) if j != agent]
        means.append(
            torch.einsum("...a,a,ap->...p", q.movedim(agent, -1), own, score).flatten(0, -2)
        )
        weights.append(torch.outer(*others).flatten())
    return torch.stack(means), torch.stack(weights)


@pytest.mark.parametrize("signal", ["critic", "lambda_return"])
def test_terms_are_the_enumerated_ones_and_add_up(signal):
    game = Game(signal)
    batch = game.batch(6000)
    terms = variance_terms(game.advantage, batch)
    measured = gradient_variance(game.advantage, batch)
    for agent in range(NUM_AGENTS):
        m, weight = conditional_means(game, agent)
        of_state = torch.einsum("so,sop->sp", weight, m)
        state = of_state.square().sum(-1).mean() - of_state.mean(0).square().sum()
        others = (weight * (m - of_state[:, None]).square().sum(-1)).sum(-1).mean()
        for estimate, exact in ((terms.state, state), (terms.others, others)):
            picked = type(estimate)(*(x[agent] for x in estimate))
            assert_covers(picked, exact, 0.4)
    for name, own in terms.own.items():
        whole = terms.state.value + terms.others.value + own.value + terms.later[name].value
        torch.testing.assert_close(whole, measured.variance[name].value, rtol=0.05, atol=0.05)
        if signal == "critic":
            assert (terms.later[name].value == 0).all()
        else:
            assert (terms.later[name].value > 0).all()


@pytest.mark.parametrize("team", [True, False])
def test_excess_is_the_enumerated_one(team):
    game = Game(team=team)
    measured = excess_variance(game.advantage, game.batch(4000))
    excess, bound = [], []
    for agent in range(NUM_AGENTS):
        one = torch.zeros(2).double()
        for q, probs, _ in game.each(agent):
            one += torch.stack(exact_excess(q, probs, agent)) / NUM_STATES
        excess.append(one[0])
        bound.append(one[1])
    assert_covers(measured.excess, torch.stack(excess), 0.05)
    assert_covers(measured.bound, torch.stack(bound), 0.05)


def exact_excess(q, probs, agent):
    """Excess variance of the centralized estimator and its bound, in one state."""
    centralized, decentralized = (
        gradient_moments(signal, probs, agent).variance
        for signal in (q, decentralized_value(q, probs, agent))
    )
    return centralized - decentralized, excess_bound(q, probs, agent)


@given(st.lists(st.integers(2, 4), min_size=2, max_size=4), st.integers(0, 1000), st.booleans())
def test_excess_is_bounded_by_the_others_local_advantages(sizes, seed, additive):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    probs = [draw(size).softmax(-1) for size in sizes]
    q = draw(*sizes)
    if additive:
        q = sum(
            draw(size).reshape([-1 if j == i else 1 for j in range(len(sizes))])
            for i, size in enumerate(sizes)
        )
    for agent in range(len(sizes)):
        excess, bound = exact_excess(q, probs, agent)
        assert excess <= bound * (1 + 1e-9) + 1e-12
        if additive or len(sizes) == 2:
            torch.testing.assert_close(excess, bound)
        # the suprema of the paper's theorem 1 are above both
        score = torch.eye(sizes[agent]).double() - probs[agent]
        largest = [
            (q - coma_baseline(q, probs, j)).abs().max().square()
            for j in range(len(sizes))
            if j != agent
        ]
        assert bound <= score.square().sum(-1).max() * sum(largest) * (1 + 1e-9)


# --- headroom and quality of the critic, in a process whose every source of noise is known


def process(num_agents=2, batch=(64, 20), noise=0.7, gamma=0.9, lmbda=0.6, scale=1.0, **options):
    """Rewards ``f(a) + noise``, the state without influence; the critic is f times ``scale``."""
    torch.manual_seed(0)
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]).double()[:num_agents]
    payoff = torch.tensor([[0.0, 1.0, 3.0], [2.0, -1.0, 0.5]]).double()[:num_agents]
    actor = make_actor("categorical", [probs.log()])
    action = torch.distributions.Categorical(probs=probs).sample(batch)
    td = random_batch(batch, action, dtype=torch.float64)
    td["agents", "logits"] = probs.log().expand(*batch, *probs.shape)

    mean = (probs * payoff).sum(-1)
    own = (probs * payoff.square()).sum(-1) - mean.square()

    def gained(joint):
        return payoff[torch.arange(num_agents), joint].sum(-1, keepdim=True).expand(*joint.shape)

    def value(joint):
        return scale * gained(joint) + gamma * mean.sum() / (1 - gamma)

    reward = gained(action).unsqueeze(-1)
    team_noise = noise * torch.randn(*batch, 1, 1).double()
    td["next", "agents", "reward"] = reward + team_noise
    advantage = ObAdvantage(
        actor_network=actor,
        value_network=FunctionCritic(value),
        gamma=gamma,
        lmbda=lmbda,
        **options,
    )
    advantage.set_keys(reward=("agents", "reward"))
    return advantage, td, own


@pytest.mark.parametrize("bootstrap_kind", ["sampled", "expected", "control_variate"])
def test_headroom_is_the_share_of_each_source(bootstrap_kind):
    gamma, lmbda, noise = 0.9, 0.6, 0.7
    advantage, td, own = process(
        batch=(512, 20), gamma=gamma, lmbda=lmbda, noise=noise, bootstrap=bootstrap_kind
    )
    measured = headroom(advantage, td)
    steps = td.shape[1]
    total = own.sum()
    later, rest = torch.zeros(steps, 2).double(), torch.zeros(steps).double()
    bootstrapped = total if bootstrap_kind == "sampled" else total - own  # per agent
    for t in reversed(range(steps)):
        trace = lmbda if t < steps - 1 else 0.0
        following = later[t + 1] if t < steps - 1 else 0.0
        arriving = (1 - trace) ** 2 * bootstrapped + trace**2 * total
        if bootstrap_kind == "control_variate":
            arriving = total / 2  # the mean of two draws
        later[t] = gamma**2 * (arriving + trace**2 * following)
        rest[t] = noise**2 + (gamma * trace) ** 2 * (rest[t + 1] if t < steps - 1 else 0.0)
    parts = torch.stack([total - own, own, later.mean(0), rest.mean().expand(2)], -1)
    exact = parts / parts.sum(-1, keepdim=True)
    for estimate, share in zip(measured, exact.unbind(-1), strict=True):
        assert_covers(estimate, share, 0.1)
    text = str(measured)
    assert "baselines can remove at most" in text
    assert text.count("\n") == 1  # a line for each agent


def test_critic_quality_prints_a_line_for_each_number():
    estimate = Estimate(*torch.tensor([[0.5, 2.0], [0.25, 1.0], [0.75, 3.0]]))
    lines = str(CriticQuality(*[estimate] * 5)).splitlines()
    assert [line.split()[0] for line in lines] == list(CriticQuality._fields)
    assert lines[3].startswith("slope")
    assert lines[3].endswith("0.500 [0.250, 0.750]      2.000 [1.000, 3.000]")


def test_headroom_says_where_its_shares_cannot_be_believed():
    def share(low, high):
        return Estimate(torch.tensor([(low + high) / 2]), torch.tensor([low]), torch.tensor([high]))

    sources = share(0.1, 0.2), share(1.8, 1.9), share(0.1, 0.2)
    assert "Train the critic" in str(Headroom(*sources, share(-1.3, -1.1)))
    assert "Train the critic" not in str(Headroom(*sources, share(-1.3, 0.1)))


def test_headroom_of_the_critics_own_signal_is_all():
    advantage, td, own = process(signal="critic")
    measured = headroom(advantage, td)
    assert_covers(measured.own, own / own.sum(), 0.1)
    assert (measured.later.value == 0).all()
    assert (measured.rest.value == 0).all()
    assert "at most 100.0%" in str(measured)


@pytest.mark.parametrize("scale", [1.0, 0.5, 2.0])
def test_quality_tells_the_scale_of_the_critic(scale):
    advantage, td, own = process(batch=(512, 20), gamma=0.0, lmbda=0.0, scale=scale)
    quality = critic_quality(advantage, td)
    torch.testing.assert_close(quality.q_spread.value, scale * own.sqrt())  # enumerated
    assert_covers(quality.others_spread, scale * own.flip(0).sqrt(), 0.05)
    assert_covers(quality.slope, torch.full((2,), 1 / scale).double(), 0.05)
    variance = own.sum() + 0.7**2
    assert quality.bias.value.abs().max() < (0.05 if scale == 1 else 1)
    unexplained = (0.7**2 + (1 - scale) ** 2 * own.sum()) / variance
    value, low, high = quality.explained_variance
    assert_covers(type(quality.explained_variance)(1 - value, 1 - high, 1 - low), unexplained, 0.05)


def test_quality_tells_a_critic_that_lags():
    advantage, td, own = process(batch=(512, 20), gamma=0.0, lmbda=0.0)
    td["next", "agents", "reward"] += 2.0  # the returns have risen since the critic was fitted
    quality = critic_quality(advantage, td)
    exact = 2.0 / (own.sum() + 0.7**2 + 2.0**2).sqrt()
    assert_covers(quality.bias, exact.expand(2), 0.05)
    assert_covers(quality.slope, torch.ones(2).double(), 0.05)  # within a state nothing has changed


def test_blind_critic_is_named():
    advantage, td, _ = process(scale=1e-4, noise=10.0)
    with pytest.warns(UserWarning, match=r"ignores the action of agents \[0, 1\]"):
        critic_quality(advantage, td)


# --- scores and Jacobians


@pytest.mark.parametrize("kind", DISCRETE)
def test_score_of_categoricals_has_the_closed_forms_length(kind):
    torch.manual_seed(0)
    shape = (2, 2, 3) if kind == "multi_categorical" else (2, 3)
    logits = torch.randn(*shape, dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    masked = kind.startswith("masked")
    actor = make_actor(kind, [logits])
    td = random_batch((4,), torch.zeros(4, 2), dtype=torch.float64, mask=mask if masked else None)
    dist = actor.get_dist(td.select(*actor.in_keys))
    candidates = action_candidates(dist)
    score = scores(actor, td, candidates.actions, psi="loc_scale")
    log_probs = (logits.masked_fill(~mask, -math.inf) if masked else logits).log_softmax(-1)
    weight = categorical_log_score_weights(log_probs).exp()
    if kind == "multi_categorical":
        weight = (weight[:, 0, :, None] + weight[:, 1, None, :]).flatten(1)
    available = candidates.probabilities > 0
    expected = weight.expand_as(available)
    torch.testing.assert_close(score.square().sum(-1)[available], expected[available])
    mean = (candidates.probabilities.unsqueeze(-1) * score).sum(-2)
    torch.testing.assert_close(mean, torch.zeros_like(mean))


@pytest.mark.parametrize("psi", ["loc_scale", "loc_log_scale", "loc"])
@pytest.mark.parametrize("kind", [k for k in CONTINUOUS if k != "laplace"])
def test_score_of_gaussians_has_the_closed_forms_length(kind, psi):
    torch.manual_seed(0)
    loc, scale = torch.randn(2, 3).double() / 2, torch.rand(2, 3).double() + 0.3
    bounds = {} if kind == "independent_normal" else {"low": -1.0, "high": 1.0}
    if kind == "truncated_normal":
        loc = loc.tanh() * 0.5
    actor = make_actor(kind, [loc, scale], **bounds)
    td = random_batch((50,), torch.zeros(50, 2, 3), dtype=torch.float64)
    action = actor.get_dist(td.select(*actor.in_keys)).sample()
    action = action.clamp(-0.999, 0.999) if bounds else action
    score = scores(actor, td, action.unsqueeze(2), psi=psi).squeeze(2)
    u = action.atanh() if kind == "tanh_normal" else action
    z = (u - loc) / scale
    if kind == "truncated_normal":
        low, high = (-1 - loc) / scale, (1 - loc) / scale
        weight = truncated_normal_score_weights(z, low, high, scale, psi)
    else:
        weight = normal_score_weights(z, scale, psi)
    torch.testing.assert_close(score.square().sum(-1), weight.sum(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("share_params", [True, False])
@pytest.mark.parametrize("chunk_bytes", [1, 2**28])
def test_jacobians_are_those_of_a_loop(share_params, chunk_bytes):
    torch.manual_seed(0)
    net = MultiAgentMLP(
        4, 5, n_agents=2, centralized=False, share_params=share_params, depth=1, num_cells=3
    ).double()
    actor = ProbabilisticActor(
        TensorDictModule(net, [("agents", "observation")], [("agents", "logits")]),
        in_keys=[("agents", "logits")],
        out_keys=[("agents", "action")],
        distribution_class=torch.distributions.Categorical,
    )
    td = random_batch((3,), torch.zeros(3, 2), dtype=torch.float64)
    parameters = list(actor.parameters())
    jacobian = torch.cat(list(output_jacobians(actor, td, chunk_bytes)))
    for k in range(3):
        logits = actor.get_dist_params(td[k].select(*actor.in_keys))["agents", "logits"]
        for agent in range(2):
            for p in range(5):
                gradient = torch.autograd.grad(logits[agent, p], parameters, retain_graph=True)
                row = torch.cat([g.flatten() for g in gradient])
                torch.testing.assert_close(jacobian[k, agent, p].sort().values, row.sort().values)
                torch.testing.assert_close(jacobian[k, agent, p].norm(), row.norm())


# --- intervals


def test_intervals_cover_as_often_as_they_say():
    torch.manual_seed(0)
    samples = torch.randn(400, 60, dtype=torch.float64)
    hits = 0
    for x in samples:
        estimate = resample(lambda c, x=x: c @ x / c.sum(-1), 60, like=x, num_resamples=300)
        hits += int(estimate.low <= 0 <= estimate.high)
    assert 0.92 <= hits / 400 <= 0.975


def test_blocks_keep_trajectories_whole_and_in_time_order():
    x = torch.arange(40 * 5, dtype=torch.float64).reshape(40, 5)
    whole = Blocks(x.shape, 1, x)
    assert whole.count == 32
    rows = whole.index.reshape(40, 5)
    assert (rows == rows[:, :1]).all()
    torch.testing.assert_close(whole.sums(x).sum(), x.sum())
    first = Blocks(x.T.shape, 0, x)
    torch.testing.assert_close(first.sums(x.T), whole.sums(x))
    few = Blocks(x[:2].shape, 1, x)  # two trajectories: cut along time
    assert few.count == 10
    torch.testing.assert_close(few.mean(x[:2]).value, x[:2].mean())


def test_squared_mean_is_unbiased():
    torch.manual_seed(0)
    mean = torch.tensor([[0.3, -0.2]]).double()  # one agent, P = 2
    estimates, naive = [], []
    for _ in range(2000):
        x = mean + torch.randn(10, 3, 1, 2).double()
        blocks = Blocks(torch.Size([10, 3]), 1, x)
        ones = torch.ones(1, blocks.count).double()
        estimates.append(blocks.squared_mean(blocks.sums(x))(ones).squeeze())
        naive.append(x.mean((0, 1)).square().sum())
    exact = mean.square().sum()
    error = torch.stack(estimates)
    assert (error.mean() - exact).abs() < 4 * error.std() / 2000**0.5
    assert torch.stack(naive).mean() > exact + 0.05


def test_one_step_gives_no_interval():
    game = Game()
    with pytest.raises(ValueError, match="two independent trajectories or more"):
        gradient_variance(game.advantage, game.batch(1))
    with pytest.raises(ValueError, match="num_draws must be 2 or more, got 1"):
        gradient_variance(game.advantage, game.batch(8), num_draws=1)


# --- nothing is touched


@pytest.mark.parametrize(
    "measure",
    [
        gradient_variance,
        parameter_gradient_variance,
        variance_terms,
        excess_variance,
        headroom,
        critic_quality,
    ],
)
def test_measuring_leaves_everything_as_it_was(measure):
    game = Game("lambda_return")
    batch = game.batch(64)
    before = batch.clone()
    for parameter in game.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    weights = [p.clone() for p in game.network.parameters()]
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = measure(game.advantage, batch)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert (batch == before).all()
    assert set(batch.keys(True)) == set(before.keys(True))
    for parameter, weight in zip(game.network.parameters(), weights, strict=True):
        assert torch.equal(parameter, weight)
        assert (parameter.grad == 1).all()
    torch.manual_seed(6)
    assert str(measure(game.advantage, batch)) == str(first)  # whatever the state of the generator
