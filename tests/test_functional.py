import math

import pytest
import torch
from dense_rules import truncated_normal_score_weights
from hypothesis import given
from hypothesis import strategies as st
from torch import distributions as D

from torchrl_ob.functional import (
    categorical_log_score_weights,
    categorical_optimal_weights,
    normal_score_weights,
    optimal_weights,
    weighted_baseline,
)

logits = st.lists(st.floats(-15, 15), min_size=2, max_size=8).map(
    lambda x: torch.tensor(x, dtype=torch.float64)
)


def score_norms_by_autograd(log_prob, *params):
    """Squared gradient of each entry of ``log_prob`` [K], one backward pass each."""
    norms = []
    for entry in log_prob:
        grads = torch.autograd.grad(entry, params, retain_graph=True)
        norms.append(sum(g.square() for g in grads))
    return torch.stack(norms)


def gradient_variance(log_probs, values, baseline):
    """Total variance of ``score(a) (Q(a) - b)`` in the logits, by enumeration of the actions."""
    probs = log_probs.exp()
    scores = torch.eye(len(probs), dtype=probs.dtype) - probs
    gradients = scores * (values - baseline).unsqueeze(-1)
    mean = (probs.unsqueeze(-1) * gradients).sum(0)
    return (probs.unsqueeze(-1) * (gradients - mean).square()).sum()


@given(logits)
def test_softmax_score_weight_is_the_squared_gradient_of_the_log_probability(logits):
    logits.requires_grad_()
    log_probs = logits.log_softmax(-1)
    expected = score_norms_by_autograd(log_probs, logits).sum(-1)
    actual = categorical_log_score_weights(log_probs.detach()).exp()
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-20)


@given(logits, st.integers(0, 1000), st.floats(-100, 100))
def test_no_baseline_has_less_variance_than_the_optimal_one(logits, seed, shift):
    log_probs = logits.log_softmax(-1)
    q = torch.randn(len(logits), generator=torch.Generator().manual_seed(seed)).double()
    b = weighted_baseline(q, categorical_optimal_weights(log_probs))
    expected_weight = (log_probs + categorical_log_score_weights(log_probs)).exp().sum()
    excess = gradient_variance(log_probs, q, b + shift) - gradient_variance(log_probs, q, b)
    # Var(b) - Var(b*) = (b - b*)² E[w], whatever b is
    torch.testing.assert_close(excess, shift**2 * expected_weight, rtol=1e-6, atol=1e-8)


def test_toy_game_of_the_paper():
    log_probs = torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64).log()
    q = torch.tensor([2.0, 1.0, 100.0], dtype=torch.float64)
    x = categorical_optimal_weights(log_probs)
    assert x.tolist() == pytest.approx([0.1412, 0.4294, 0.4294], abs=5e-5)
    variances = [
        gradient_variance(log_probs, q, b).item()
        for b in (0.0, weighted_baseline(q, log_probs.exp()), weighted_baseline(q, x))
    ]
    assert variances == pytest.approx([1321.0, 1020.2, 673.1], abs=0.05)


@given(logits)
def test_softmax_weights_are_those_of_the_paper(logits):
    pi = logits.softmax(-1)
    snippet = pi * (1 + pi.square().sum() - 2 * pi)  # arXiv:2108.08612, appendix
    snippet = snippet / snippet.sum()
    tolerance = 1e-12 / (1 - pi.max())  # the snippet cancels near a deterministic policy
    actual = categorical_optimal_weights(logits.log_softmax(-1))
    torch.testing.assert_close(actual, snippet, rtol=0, atol=tolerance.item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("logits", "limit"),
    [
        ([700.0, 0.0, -1e4], [0.0, 1.0, 0.0]),  # weight moves to the actions not preferred ...
        ([700.0, 0.0, 0.0], [0.0, 0.5, 0.5]),
        (
            [700.0, 1.0, 0.0],
            [0.0, math.e / (math.e + 1), 1 / (math.e + 1)],
        ),  # ... as they are likely
        ([0.0, -80.0, -90.0], [0.0, 1 / (1 + math.exp(-10)), 1 / (1 + math.exp(10))]),
        ([1e4, 0.0, 0.0], [1.0, 0.0, 0.0]),  # where they are possible
        ([-1e4, -1e4, -1e4], [1 / 3, 1 / 3, 1 / 3]),
        ([0.0, 0.0, -1e4], [0.5, 0.5, 0.0]),
    ],
)
def test_near_deterministic_policies_have_a_limit(logits, limit, dtype):
    x = categorical_optimal_weights(torch.tensor(logits, dtype=dtype).log_softmax(-1))
    torch.testing.assert_close(x, torch.tensor(limit, dtype=dtype), rtol=2e-3, atol=1e-6)


@given(st.lists(st.floats(-80, 80), min_size=2, max_size=6))
def test_single_precision_keeps_its_digits(logits):
    double = torch.tensor(logits, dtype=torch.float32).double().log_softmax(-1)
    # the same sums over the other actions, term by term
    probs = double.exp()
    others = ~torch.eye(len(logits), dtype=torch.bool)
    w = (probs * others).sum(-1).square() + (probs.square() * others).sum(-1)
    x = probs * w / (probs * w).sum()
    single = categorical_optimal_weights(torch.tensor(logits).log_softmax(-1))
    torch.testing.assert_close(single.double(), x, rtol=2e-4, atol=1e-30)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_single_action_is_its_own_baseline(dtype):
    log_probs = torch.tensor([-math.inf, 0.0, -math.inf], dtype=dtype)
    assert categorical_optimal_weights(log_probs).tolist() == [0.0, 1.0, 0.0]
    assert categorical_optimal_weights(torch.zeros(4, 1, dtype=dtype)).tolist() == [[1.0]] * 4


@given(logits, st.integers(1, 5))
def test_unavailable_actions_never_enter(logits, num_masked):
    masked = torch.cat([logits, torch.full((num_masked,), -math.inf, dtype=torch.float64)])
    x = categorical_optimal_weights(masked.log_softmax(-1))
    assert (x[len(logits) :] == 0).all()
    torch.testing.assert_close(
        x[: len(logits)], categorical_optimal_weights(logits.log_softmax(-1))
    )


@pytest.mark.parametrize("psi", ["loc_scale", "loc_log_scale", "loc"])
@given(loc=st.floats(-3, 3), log_scale=st.floats(-3, 2), z=st.floats(-4, 4))
def test_gaussian_score_weight_is_the_squared_gradient(psi, loc, log_scale, z):
    loc, log_scale, z = (
        torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (loc, log_scale, z)
    )
    scale = log_scale.exp()
    u = (loc + scale * z).detach()
    params = {"loc_scale": (loc, scale), "loc_log_scale": (loc, log_scale), "loc": (loc,)}[psi]
    expected = score_norms_by_autograd(D.Normal(loc, scale).log_prob(u), *params).squeeze(-1)
    actual = normal_score_weights(z, scale, psi).detach()
    torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("psi", ["loc_scale", "loc_log_scale", "loc"])
@given(
    loc=st.floats(-2, 2),
    log_scale=st.floats(-1.5, 1.5),
    bounds=st.tuples(st.floats(-2, -0.1), st.floats(0.1, 2)),
    level=st.floats(0.01, 0.99),
)
def test_truncated_gaussian_score_weight_is_the_squared_gradient(
    psi, loc, log_scale, bounds, level
):
    loc, log_scale = (
        torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (loc, log_scale)
    )
    scale = log_scale.exp()
    low, high = (torch.tensor([x], dtype=torch.float64) for x in bounds)
    u = low + level * (high - low)
    # TorchRL clamps the probabilities of its TruncatedNormal; this is the density itself
    mass = torch.special.ndtr((high - loc) / scale) - torch.special.ndtr((low - loc) / scale)
    log_prob = -0.5 * ((u - loc) / scale).square() - scale.log() - mass.log()
    params = {"loc_scale": (loc, scale), "loc_log_scale": (loc, log_scale), "loc": (loc,)}[psi]
    expected = score_norms_by_autograd(log_prob, *params).squeeze(-1)
    standardised = ((x - loc) / scale for x in (u, low, high))
    actual = truncated_normal_score_weights(*standardised, scale, psi).detach()
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 3.0, 1e3, 1e6])
def test_truncation_far_from_the_mode_stays_finite(offset, dtype):
    scale = torch.tensor([1.0, 1e-6], dtype=dtype)
    lower = torch.tensor([-1.0, 1.0], dtype=dtype) + offset
    z = torch.stack([lower, lower + 1])
    w = truncated_normal_score_weights(z, lower, lower + 2, scale)
    assert w.isfinite().all()


@given(st.integers(1, 6), st.integers(0, 100))
def test_constant_score_weights_give_comas_baseline(size, seed):
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(size, generator=generator).double().softmax(-1)
    torch.testing.assert_close(optimal_weights(p, torch.full_like(p, 3.0)), p)
    assert torch.equal(optimal_weights(p, torch.zeros_like(p)), p)


def test_unknown_psi_is_named():
    with pytest.raises(ValueError, match="'scale'"):
        normal_score_weights(torch.zeros(2), torch.ones(2), "scale")
