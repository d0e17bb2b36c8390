"""In which parameters the weights are, of every distribution: against automatic differentiation."""

import math

import pytest
import torch
from dense_rules import dense_candidates
from fuzz import reference
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict
from torch import distributions as D
from torchrl.modules import (
    MaskedCategorical,
    MaskedOneHotCategorical,
    OneHotCategorical,
    OneHotOrdinal,
    Ordinal,
    TanhNormal,
    TruncatedNormal,
)

from torchrl_ob.expectations import action_candidates
from torchrl_ob.expectations.autodiff import score_candidates
from torchrl_ob.functional import categorical_optimal_weights, optimal_weights


class Sharpened(D.Categorical):
    """A categorical whose log-probability is not that of its base."""

    def log_prob(self, value):
        return (2 * self.logits).log_softmax(-1).gather(-1, value.unsqueeze(-1)).squeeze(-1)


def squared_gradients(log_prob, *psi):
    """Of each of K log-probabilities ``[K]``, a slow loop."""
    rows = [torch.autograd.grad(entry, psi, retain_graph=True) for entry in log_prob]
    return torch.stack([sum(g.square().sum() for g in row) for row in rows])


@pytest.mark.parametrize("kind", [D.Categorical, OneHotCategorical, D.OneHotCategorical])
@pytest.mark.parametrize("given_as", ["logits", "probs"])
def test_categoricals_are_in_their_logits_whatever_they_are_built_from(kind, given_as):
    logits = torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)
    parameter = {"logits": logits, "probs": logits.softmax(-1)}[given_as]
    found = action_candidates(kind(**{given_as: parameter.detach()}))
    w = squared_gradients(logits.log_softmax(-1), logits)
    torch.testing.assert_close(
        found.optimal_weights, optimal_weights(logits.softmax(-1), w).detach()
    )


@pytest.mark.parametrize("kind", [Ordinal, OneHotOrdinal])
def test_ordinals_are_in_the_logits_of_their_categorical(kind):
    dist = kind(torch.tensor([[0.3, -1.0, 2.0, 0.5]]).double())
    found = action_candidates(dist)
    torch.testing.assert_close(found.optimal_weights, categorical_optimal_weights(dist.logits))
    torch.testing.assert_close(found.probabilities, dist.probs)


@pytest.mark.parametrize("kind", [TanhNormal, TruncatedNormal])
@pytest.mark.parametrize("psi", ["loc_scale", "loc_log_scale", "loc"])
def test_gaussians_are_in_the_loc_after_tanh_loc(kind, psi):
    raw, scale = torch.tensor([[4.0, -7.0]]).double(), torch.tensor([[0.6, 1.5]]).double()
    pair = kind(raw, scale, tanh_loc=True), kind(5 * (raw / 5).tanh(), scale)
    for a, b in zip(*(action_candidates(dist, psi=psi) for dist in pair), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "dist",
    [
        D.HalfNormal(torch.ones(3, 2)),
        D.TransformedDistribution(D.Normal(torch.zeros(3, 2), 1.0), D.StickBreakingTransform()),
        D.TransformedDistribution(
            D.Independent(D.Normal(torch.zeros(3, 2), 1.0), 1),
            D.ReshapeTransform((2,), (1, 2)),
        ),
        D.TransformedDistribution(
            D.Normal(torch.zeros(3, 2), 1.0),
            D.ComposeTransform([D.TanhTransform(), D.StickBreakingTransform()]),
        ),
        D.TransformedDistribution(D.Normal(torch.zeros(3, 2), 1.0), D.AbsTransform()),
        D.RelaxedOneHotCategorical(torch.tensor(1.0), logits=torch.zeros(3, 2)),
        Sharpened(logits=torch.zeros(3, 2)),
    ],
    ids=["half", "stick", "reshape", "compose", "abs", "relaxed", "subclass"],
)
def test_what_is_none_of_the_families_takes_no_closed_form(dist):
    assert action_candidates(dist) is None


def test_wrapped_elementwise_transforms_do():
    base = D.Normal(torch.zeros(3, 2), 1.0)
    wrapped = D.IndependentTransform(D.ComposeTransform([D.TanhTransform()]), 1)
    plain = action_candidates(D.TransformedDistribution(base, D.TanhTransform()))
    for a, b in zip(
        action_candidates(D.TransformedDistribution(base, wrapped)), plain, strict=True
    ):
        torch.testing.assert_close(a, b)


def test_mixed_components_have_the_baseline_of_a_dense_quadrature():
    torch.manual_seed(0)
    loc, scale = torch.tensor([[0.5, -0.3]]).double(), torch.tensor([[0.5, 1.5]]).double()
    mix = D.StickBreakingTransform()

    def build(params):
        return D.TransformedDistribution(D.Normal(params["loc"], params["scale"]), mix)

    params = TensorDict({"loc": loc, "scale": scale}, [1])

    def q(actions):
        return (4 * actions[..., 0] - actions[..., 1]).square()

    found = score_candidates(build(params), params, build, ["loc", "scale"], num_points=40_000)
    b = (found.optimal_weights * q(found.actions)).sum(-1)
    grid = dense_candidates(D.Normal(loc, scale), num_points=40)
    values = q(mix(grid.actions))
    exact = (grid.optimal_weights * values).sum(-1)
    mean = (grid.probabilities * values).sum(-1, keepdim=True)
    spread = (grid.probabilities * (values - mean).square()).sum(-1).sqrt()
    assert ((b - exact) / spread).abs() < 0.05  # the closed form of components errs by far more


def test_half_normal_is_in_what_the_network_hands_over():
    scale = torch.full((1, 1), 0.7).double()
    params = TensorDict({"scale": scale}, [1])

    def build(params):
        return D.Independent(D.HalfNormal(params["scale"]), 1)

    c = score_candidates(build(params), params, build, ["scale"], num_points=20)
    w = (((c.actions / scale) ** 2 - 1) / scale).square().sum(-1)
    torch.testing.assert_close(c.optimal_weights, w / w.sum(-1, keepdim=True))


# what cannot be taken


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("number", [-1e3, -1e4, -3e4, -1e10, -math.inf])
@pytest.mark.parametrize("available", [1, 2])
def test_a_finite_mask_is_a_mask(number, available, dtype):
    logits = torch.tensor([0.5] * available + [number] * 3).to(dtype)
    expected = torch.tensor([1 / available] * available + [0.0] * 3).to(dtype)
    for c in (
        action_candidates(D.Categorical(logits=logits.expand(2, 5 if available == 2 else 4))),
        action_candidates(D.Independent(D.Categorical(logits=logits.expand(2, 1, -1)), 1)),
    ):
        for weights in c[1:]:
            assert torch.equal(weights, expected.expand_as(weights))
    assert torch.equal(categorical_optimal_weights(logits), expected)


@pytest.mark.parametrize("neg_inf", [-math.inf, -1e9, -10.0])
@pytest.mark.parametrize("kind", [MaskedCategorical, MaskedOneHotCategorical])
def test_what_a_mask_rules_out_has_no_weight_whatever_its_number(kind, neg_inf):
    logits = torch.tensor([[0.1, 2.0, -1.0, 0.7]]).double()
    mask = torch.tensor([[True, False, True, True]])
    found = action_candidates(kind(logits=logits, mask=mask, neg_inf=neg_inf))
    alone = action_candidates(D.Categorical(logits=logits[mask].unsqueeze(0)))
    for a, b in zip(found[1:], alone[1:], strict=True):
        assert a[0, 1] == 0
        torch.testing.assert_close(a[mask].unsqueeze(0), b)


@given(
    st.lists(
        st.floats(-700, 0) | st.sampled_from([-1e4, -1e10, -math.inf]), min_size=1, max_size=6
    ),
    st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
)
def test_weights_are_a_probability_vector_of_every_input(others, dtype):
    logits = torch.tensor([0.0, *others]).to(dtype)
    x = categorical_optimal_weights(logits)
    possible = [v if v > -745 else -math.inf for v in logits.tolist()]
    _, exact = reference.policy_and_optimal_weights([possible])
    assert (x >= 0).all()
    digits = {torch.float64: 1e-9, torch.float32: 2e-4}.get(dtype, 2e-2)
    torch.testing.assert_close(
        x.double(), torch.tensor(exact, dtype=torch.float64), atol=digits, rtol=digits
    )
