"""Squashed Gaussians of any width and place against dense quadrature."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributions as D
from torchrl.modules import TanhNormal, TruncatedNormal

from torchrl_ob.expectations import action_candidates
from torchrl_ob.expectations.quadrature import gauss_rule
from torchrl_ob.functional import normal_score_weights, weighted_baseline

MEASURES = ("probabilities", "optimal_weights")
Q = {  # polynomials that the 3 nodes take exactly: what is left is the line's error
    "a": lambda a: a,
    "square": lambda a: a**2,
    "quintic": lambda a: a**5 - 2 * a**3 + a,
}
LOCS = [0.0, 0.3, -1.0, 2.0, 5.0, -10.0, 30.0]


def dense(loc, scale, low, high, psi):
    """Actions, probabilities and squared scores of one component, ``[M, 1, 1]``."""
    z = torch.linspace(-9, 9, 20_001, dtype=torch.float64).reshape(-1, 1, 1)
    p = (-z.square() / 2).exp()
    action = low + (high - low) * ((loc + scale * z).tanh() + 1) / 2
    return action, p / p.sum(), normal_score_weights(z, torch.tensor(scale).double(), psi)


def error(q, candidates, line, measure):
    """Of the baseline, in units of Q's spread; zero where the spread is lost in rounding."""
    a, p, w = (x.flatten() for x in line)
    values = q(a)
    mean = (p * values).sum()
    spread = (p * (values - mean).square()).sum().sqrt()
    weights = p if measure == "probabilities" else p * w / (p * w).sum()
    found = weighted_baseline(
        q(candidates.actions[0, :, 0].double()), getattr(candidates, measure)[0].double()
    )
    return ((found - (weights * values).sum()).abs() / spread).item() if spread > 1e-9 else 0.0


@pytest.mark.parametrize("psi", ["loc_scale", "loc_log_scale", "loc"])
@pytest.mark.parametrize(
    ("scale", "most"),
    [(0.01, 1e-5), (0.3, 1e-5), (1.0, 1e-4), (3.0, 0.005), (10.0, 0.01), (300.0, 0.02)],
)
def test_the_line_stands_for_every_width_and_place(scale, most, psi):
    for loc in LOCS:
        dist = TanhNormal(torch.tensor([[loc]]).double(), torch.tensor([[scale]]).double())
        line = dense(loc, scale, -1.0, 1.0, psi)
        for measure in MEASURES:
            candidates = action_candidates(dist, measure=measure, psi=psi)
            assert candidates.actions.shape == (1, 3, 1)  # the critic is asked no more
            for name, q in Q.items():
                assert error(q, candidates, line, measure) < most, (loc, measure, name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("low", "high"), [(-1e-3, 1e3), (0.0, 1e6), (-7.0, -6.5)])
def test_bounds_of_any_size(low, high, dtype):
    middle, half = (low + high) / 2, (high - low) / 2
    for scale in (0.3, 3.0, 10.0):
        dist = TanhNormal(
            torch.tensor([[0.4]], dtype=dtype),
            torch.tensor([[scale]], dtype=dtype),
            low=low,
            high=high,
        )
        for measure in MEASURES:
            candidates = action_candidates(dist, measure=measure)
            line = dense(0.4, scale, low, high, "loc_scale")
            found = error(lambda a: ((a - middle) / half) ** 2, candidates, line, measure)
            assert found < 0.01


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    "q", [torch.abs, torch.sin, lambda a: (4 * a).sin()], ids=["abs", "sin", "sin4"]
)
def test_of_any_critic_the_rule_is_that_of_a_dense_line(q, measure, scale):
    line = dense(0.4, scale, -1.0, 1.0, "loc_scale")
    probabilities = line[1].expand_as(line[0])
    best = gauss_rule(line[0], probabilities, line[2], measure=measure)
    dist = TanhNormal(torch.tensor([[0.4]]).double(), torch.tensor([[scale]]).double())
    found = action_candidates(dist, measure=measure)
    assert abs(error(q, found, line, measure) - error(q, best, line, measure)) < 0.003


@given(
    st.sampled_from([TanhNormal, TruncatedNormal]),
    st.sampled_from(["gauss", "monte_carlo"]),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(1, 6),
    st.integers(0, 1000),
)
def test_candidates_are_inside_their_bounds(kind, rule, dtype, dim, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    low = draw(3, dim)
    high = low + draw(3, dim).abs() + 1e-3
    dist = kind(10 * draw(2, 3, dim), (3 * draw(2, 3, dim)).exp(), low=low, high=high)
    actions = action_candidates(dist, rule=rule).actions
    assert (actions >= low.unsqueeze(-2)).all()
    assert (actions <= high.unsqueeze(-2)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", [D.Normal, TanhNormal, TruncatedNormal])
def test_half_precision_rounds_what_single_gives(kind, dtype):
    loc, scale = torch.tensor([[0.3, -0.5]]).to(dtype), torch.tensor([[0.5, 2.0]]).to(dtype)
    half = action_candidates(kind(loc, scale))
    single = action_candidates(kind(loc.float(), scale.float()))
    for a, b in zip(half, single, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.float(), b, atol=2e-2, rtol=2e-2)
