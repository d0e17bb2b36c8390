"""The Gauss rule of the action: what it integrates exactly, and what it does at the edges."""

import itertools

import pytest
import torch
from dense_rules import dense_candidates
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrl.modules import IndependentNormal, TanhNormal, TruncatedNormal

from torchrl_ob.expectations import action_candidates
from torchrl_ob.expectations.quadrature import gauss_nodes, gauss_rule, interpolatory_weights
from torchrl_ob.functional import normal_score_weights, weighted_baseline

MEASURES = ("probabilities", "optimal_weights")


def random_measure(seed, size, *shape, skew=1.0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(size, *shape, generator=generator, dtype=torch.float64).mul(skew).exp()
    mass = torch.rand(size, *shape, generator=generator, dtype=torch.float64)
    return values, mass / mass.sum(0)


@given(st.integers(0, 10_000), st.sampled_from([2, 3]), st.floats(0.01, 3))
def test_gauss_nodes_integrate_twice_their_number_of_powers(seed, num_points, skew):
    values, mass = random_measure(seed, 8, 5, skew=skew)
    mean, std, _, nodes = gauss_nodes(values, mass, num_points)
    assert (nodes.diff() > 0).all()
    assert (values.amin(0) - 1e-9 <= (mean.unsqueeze(-1) + std.unsqueeze(-1) * nodes).T).all()
    assert (values.amax(0) + 1e-9 >= (mean.unsqueeze(-1) + std.unsqueeze(-1) * nodes).T).all()
    x = (values - mean) / std
    weights = interpolatory_weights(nodes, x, mass)
    assert (weights > -1e-9).all()  # of a Gauss rule they are positive
    for power in range(2 * num_points):
        size = (mass * x.abs().pow(power)).sum(0)
        error = (weights * nodes**power).sum(-1) - (mass * x**power).sum(0)
        assert (error.abs() <= 1e-6 * size).all()


@given(st.integers(0, 10_000), st.sampled_from([2, 3]))
def test_interpolatory_weights_take_any_measure(seed, num_points):
    values, mass = random_measure(seed, 6, 4)
    nodes = torch.arange(num_points, dtype=torch.float64).expand(4, -1)
    weights = interpolatory_weights(nodes, values, mass)
    for power in range(num_points):
        expected = (mass * values**power).sum(0)
        torch.testing.assert_close((weights * nodes**power).sum(-1), expected)


def components(dim, seed=0):
    """A line of 4 values for each of ``dim`` components of two agents, with squared scores."""
    generator = torch.Generator().manual_seed(seed)
    line = torch.rand(4, 2, dim, generator=generator, dtype=torch.float64) * 2 - 1
    mass = torch.rand(4, generator=generator, dtype=torch.float64)
    score = torch.rand(4, 2, dim, generator=generator, dtype=torch.float64)
    return line, mass / mass.sum(), score


def make_rule(line, mass, score, measure):
    probabilities = mass.reshape(-1, 1, 1).expand_as(line)
    return gauss_rule(line, probabilities, score, measure=measure)


def everything(line, mass, score, f):
    """Expectations over all combinations of the components, a slow loop."""
    dim, sums = line.shape[-1], dict.fromkeys((*MEASURES, "w"), 0.0)
    for choice in itertools.product(range(len(line)), repeat=dim):
        action = torch.stack([line[k, :, d] for d, k in enumerate(choice)], -1)
        p = torch.stack([mass[k] for k in choice]).prod()
        w = torch.stack([score[k, :, d] for d, k in enumerate(choice)]).sum(0)
        sums["probabilities"] += p * f(action)
        sums["optimal_weights"] += p * w * f(action)
        sums["w"] += p * w
    return {
        "probabilities": sums["probabilities"],
        "optimal_weights": sums["optimal_weights"] / sums["w"],
    }


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("dim", "num_points"), [(1, 3), (2, 3), (3, 2), (4, 2)])
def test_products_of_low_powers_are_exact(dim, num_points, measure):
    parts = components(dim)
    rule = make_rule(*parts, measure)
    assert rule.actions.shape == (2, num_points**dim, dim)

    def f(action):
        first = 1 - action + (2 * action**2 if num_points == 3 else 0)
        return first.prod(-1)

    expected = everything(*parts, f)
    for name in MEASURES:
        found = weighted_baseline(f(rule.actions), getattr(rule, name))
        torch.testing.assert_close(found, expected[name])


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("dim", "num_points"), [(1, 3), (2, 3), (3, 2), (4, 2), (5, 2)])
def test_sums_of_high_powers_are_exact(dim, num_points, measure):
    parts = components(dim)
    rule = make_rule(*parts, measure)
    assert rule.actions.shape[1] == (num_points**dim if dim < 5 else 11)
    slopes = torch.arange(1, dim + 1)

    def f(action):
        return (slopes * (action + 2 * action**2 - action ** (2 * num_points - 1))).sum(-1) + 3

    found = weighted_baseline(f(rule.actions), getattr(rule, measure))
    torch.testing.assert_close(found, everything(*parts, f)[measure])


def test_both_measures_have_their_own_nodes():
    dist = TanhNormal(torch.zeros(1, 3).double(), torch.ones(1, 3).double())
    both = action_candidates(dist)
    for name in MEASURES:
        one = action_candidates(dist, measure=name)
        f = both.actions.cos().prod(-1), one.actions.cos().prod(-1)
        found = weighted_baseline(f[0], getattr(both, name))
        torch.testing.assert_close(found, weighted_baseline(f[1], getattr(one, name)))
        assert both.actions.shape[-2] == 2 * one.actions.shape[-2]


@pytest.mark.parametrize("psi", ["loc_scale", "loc_log_scale", "loc"])
def test_a_gaussian_has_the_moments_of_its_score(psi):
    # E[w a^2] / E[w] and E[a^4] of a plain Gaussian in one dimension, where the rule is exact
    loc, scale = torch.tensor([[0.3]]).double(), torch.tensor([[0.7]]).double()
    c = action_candidates(IndependentNormal(loc, scale), psi=psi)
    dense = dense_candidates(IndependentNormal(loc, scale), psi=psi, num_points=12)
    for power in range(6):
        for name in MEASURES:
            torch.testing.assert_close(
                weighted_baseline(c.actions.squeeze(-1) ** power, getattr(c, name)),
                weighted_baseline(dense.actions.squeeze(-1) ** power, getattr(dense, name)),
            )
    z = (dense.actions - loc) / scale
    assert normal_score_weights(z, scale, psi).shape == (1, 12, 1)


@settings(max_examples=300)
@given(
    st.floats(-60, 60),
    st.floats(-3, 2),
    st.sampled_from([1, 2, 3]),
    st.sampled_from(["tanh", "truncated"]),
)
def test_saturated_policies_keep_bounded_weights_in_single_precision(loc, log_scale, dim, kind):
    def rule(dtype):
        parts = (
            torch.full((1, dim), loc, dtype=dtype),
            torch.full((1, dim), 10**log_scale, dtype=dtype),
        )
        if kind == "truncated":
            dist = TruncatedNormal(parts[0] / 30, parts[1], low=-1.0, high=1.0)
        else:
            dist = TanhNormal(*parts)
        return action_candidates(dist, measure="optimal_weights")

    single, double = rule(torch.float32), rule(torch.float64)
    for c in (single, double):
        assert all(x.isfinite().all() for x in c)
        assert c.actions.abs().max() <= 1
        torch.testing.assert_close(c.optimal_weights.sum(-1), torch.ones_like(c.actions[..., 0, 0]))
        # where actions differ in their last bits alone the weights know little, and need not
        assert c.optimal_weights.abs().sum(-1).max() < 100

    def b(c):
        return weighted_baseline((3 * c.actions).sin().prod(-1), c.optimal_weights).double()

    assert (b(single) - b(double)).abs().max() < 1e-3


def test_a_component_without_spread_has_one_action():
    line = torch.full((4, 1, 2), 0.5)
    rule = make_rule(line, torch.full((4,), 0.25), torch.zeros(4, 1, 2), "optimal_weights")
    assert (rule.actions == 0.5).all()
    for weights in rule[1:]:
        torch.testing.assert_close(weights.sum(-1), torch.ones(1))


def test_other_numbers_of_points_are_refused():
    with pytest.raises(ValueError, match="2 or 3 points in each dimension, got 5"):
        action_candidates(IndependentNormal(torch.zeros(1, 1), torch.ones(1, 1)), num_points=5)
