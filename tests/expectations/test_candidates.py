import math

import pytest
import torch
from dense_rules import dense_candidates
from games import DISCRETE, IndependentLaplace, MultiCategorical, make_actor
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict
from torch import distributions as D
from torchrl.modules import (
    Delta,
    IndependentNormal,
    MaskedCategorical,
    TanhDelta,
    TanhNormal,
    TruncatedNormal,
)

from torchrl_ob import ObAdvantage
from torchrl_ob.expectations import action_candidates
from torchrl_ob.expectations.autodiff import score_candidates
from torchrl_ob.functional import normal_score_weights, weighted_baseline


def random_psi(kind, dtype=torch.float64):
    if kind == "multi_categorical":
        return [torch.randn(3, 2, 4, dtype=dtype)]
    if kind in DISCRETE:
        return [torch.randn(3, 5, dtype=dtype)]
    return [torch.randn(3, 2, dtype=dtype), torch.rand(3, 2, dtype=dtype) + 0.2]


def make_policy(kind, psi):
    """Actor, its distribution and parameters, for a batch of two."""
    td = TensorDict({"agents": {"observation": torch.zeros(2, 3, 1)}}, [2])
    if kind.startswith("masked"):
        mask = torch.ones(2, 3, 5, dtype=torch.bool)
        mask[..., 1] = False
        td["agents", "mask"] = mask
    actor = make_actor(kind, psi)
    return actor, actor.get_dist(td), actor.get_dist_params(td)


@pytest.mark.parametrize("kind", DISCRETE)
def test_discrete_candidates_are_the_whole_support_with_its_probabilities(kind):
    torch.manual_seed(0)
    _, dist, _ = make_policy(kind, random_psi(kind))
    candidates = action_candidates(dist)
    log_probs = torch.stack([dist.log_prob(a) for a in candidates.actions.unbind(2)], -1)
    torch.testing.assert_close(candidates.probabilities, log_probs.exp())
    for weights in candidates[1:]:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, dtype=torch.float64))
    assert candidates.actions[0, 0].unique(dim=0).shape == candidates.actions[0, 0].shape


@pytest.mark.parametrize("kind", ["categorical", "multi_categorical", "one_hot", "masked"])
def test_closed_forms_agree_with_automatic_differentiation(kind):
    torch.manual_seed(0)
    actor, dist, params = make_policy(kind, random_psi(kind))
    exact = action_candidates(dist)
    values = torch.randn(2, 3, exact.probabilities.shape[-1], dtype=torch.float64)

    class Enumerable:  # the same distribution, enumerated by its candidates' actions
        has_enumerate_support = True

        def enumerate_support(self):
            return exact.actions.movedim(2, 0)

        def log_prob(self, actions):
            return torch.stack([dist.log_prob(a) for a in actions])

    def build(params):
        class Stacked:
            def log_prob(self, actions):
                rebuilt = [actor.build_dist_from_params(p) for p in params.unbind(0)]
                return torch.stack(
                    [d.log_prob(a) for d, a in zip(rebuilt, actions.unbind(0), strict=True)]
                )

        return Stacked()

    generic = score_candidates(Enumerable(), params, build, actor.dist_params_keys)
    torch.testing.assert_close(generic.optimal_weights, exact.optimal_weights)
    torch.testing.assert_close(
        weighted_baseline(values, generic.optimal_weights),
        weighted_baseline(values, exact.optimal_weights),
    )


def test_any_other_distribution_takes_samples_and_autograd():
    torch.manual_seed(0)
    actor, dist, params = make_policy("laplace", random_psi("laplace"))
    assert action_candidates(dist) is None
    candidates = score_candidates(
        dist, params, actor.build_dist_from_params, actor.dist_params_keys, num_points=50
    )
    assert candidates.actions.shape == (2, 3, 50, 2)
    loc, scale = dist.base_dist.loc.unsqueeze(-2), dist.base_dist.scale.unsqueeze(-2)
    z = (candidates.actions - loc) / scale
    w = ((z.sign() / scale).square() + ((z.abs() - 1) / scale).square()).sum(-1)
    torch.testing.assert_close(candidates.optimal_weights, w / w.sum(-1, keepdim=True))
    assert not candidates.optimal_weights.requires_grad


@given(st.integers(1, 6), st.integers(0, 50))
def test_linear_part_of_the_value_does_not_move_the_baseline(dim, seed):
    generator = torch.Generator().manual_seed(seed)
    loc, slope = torch.randn(2, 3, dim, generator=generator, dtype=torch.float64)
    scale = torch.rand(3, dim, generator=generator, dtype=torch.float64) + 0.1
    dist = IndependentNormal(loc, scale)
    for c in (action_candidates(dist), dense_candidates(dist, "sobol")):
        at_loc = (loc * slope).sum(-1)
        b = weighted_baseline((c.actions * slope.unsqueeze(-2)).sum(-1), c.optimal_weights)
        torch.testing.assert_close(b, at_loc)


def test_gaussian_snippet_of_the_paper():
    torch.manual_seed(0)
    loc, scale = torch.randn(3, 2).double(), torch.rand(3, 2).double() + 0.3
    c = action_candidates(IndependentNormal(loc, scale), rule="monte_carlo")
    mu, std, a = loc.unsqueeze(-2), scale.unsqueeze(-2), c.actions
    w = (((a - mu) / std**2) ** 2).sum(-1) + ((((a - mu) ** 2 - std**2) / std**3) ** 2).sum(-1)
    torch.testing.assert_close(c.optimal_weights, w / w.sum(-1, keepdim=True))
    assert c.actions.shape == (3, 1000, 2)


def test_squashing_changes_the_actions_and_not_the_weights():
    loc, scale = torch.randn(4, 3, 2), torch.rand(4, 3, 2) + 0.1
    low, high = torch.tensor([[-1.0, -2.0]] * 3), torch.tensor([[0.5, 2.0]] * 3)
    squashed = dense_candidates(TanhNormal(loc, scale, low=low, high=high))
    plain = dense_candidates(IndependentNormal(loc, scale))
    torch.testing.assert_close(squashed.optimal_weights, plain.optimal_weights)
    expected = low[:, None] + (high - low)[:, None] * (plain.actions.tanh() + 1) / 2
    torch.testing.assert_close(squashed.actions, expected, rtol=1e-5, atol=1e-5)


def test_normal_without_an_event_dimension_is_the_independent_one():
    loc, scale = torch.randn(4, 3, 2), torch.rand(4, 3, 2) + 0.1
    for a, b in zip(
        action_candidates(D.Normal(loc, scale)),
        action_candidates(IndependentNormal(loc, scale)),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_wide_truncation_is_no_truncation():
    loc, scale = torch.randn(4, 3, 2).double(), torch.rand(4, 3, 2).double() + 0.1
    wide = action_candidates(TruncatedNormal(loc, scale, low=-50.0, high=50.0))
    plain = action_candidates(IndependentNormal(loc, scale))
    for a, b in zip(wide, plain, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("psi", ["loc_scale", "loc_log_scale", "loc"])
def test_psi_is_what_the_weights_are_of(psi):
    loc, scale = torch.zeros(1, 2).double(), torch.tensor([[0.5, 2.0]]).double()
    c = dense_candidates(IndependentNormal(loc, scale), psi=psi)
    z = (c.actions - loc) / scale
    w = c.probabilities * normal_score_weights(z, scale, psi).sum(-1)
    torch.testing.assert_close(c.optimal_weights, w / w.sum(-1, keepdim=True))
    expected_w = {"loc_scale": 3 * 4.25, "loc_log_scale": 4.25 + 4, "loc": 4.25}[psi]
    assert w.sum().item() == pytest.approx(expected_w)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", ["gauss", "monte_carlo"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("kind", [IndependentNormal, TanhNormal, TruncatedNormal])
def test_extreme_scales_stay_finite_and_normalised(kind, scale, rule, dtype):
    loc = torch.tensor([[0.0, 3.0], [-0.9, 0.5]], dtype=dtype)
    dist = kind(loc, torch.tensor([[scale, 1.0]] * 2, dtype=dtype))
    candidates = action_candidates(dist, rule=rule)
    for x in candidates:
        assert x.isfinite().all()
        assert x.dtype == dtype
    one = torch.ones(2, dtype=dtype)
    torch.testing.assert_close(candidates.optimal_weights.sum(-1), one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("psi", ["loc_scale", "loc_log_scale", "loc"])
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_no_scale_takes_the_weights_out_of_the_range_of_numbers(scale, psi):
    def weights(scale, dtype):
        dist = IndependentNormal(
            torch.zeros(1, 2, dtype=dtype), torch.full((1, 2), scale).to(dtype)
        )
        return action_candidates(dist, measure="probabilities", psi=psi).optimal_weights

    single, double = weights(scale, torch.float32), weights(scale, torch.float64)
    torch.testing.assert_close(single, double.float(), rtol=1e-4, atol=1e-5)


def test_multi_categorical_of_a_deterministic_factor():
    logits = torch.tensor([[[1e4, 0.0], [0.0, 0.0]], [[1e4, -1e4], [1e4, -1e4]]]).double()
    c = action_candidates(MultiCategorical(logits))
    assert c.optimal_weights.isfinite().all()
    # the deterministic factor has no score: only the second one counts
    expected = torch.tensor([0.5, 0.5, 0.0, 0.0]).double()
    torch.testing.assert_close(c.optimal_weights[0], expected)


def test_probabilities_are_not_clamped():
    probs = torch.tensor([1 - 1e-12, 1e-12, 0.0], dtype=torch.float64)
    c = action_candidates(D.Categorical(probs=probs))
    assert c.probabilities[2] == 0
    assert c.optimal_weights[2] == 0
    assert c.optimal_weights[1].item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    "dist", [Delta(torch.zeros(2, 3, 1)), TanhDelta(torch.zeros(2, 3, 1))], ids=["delta", "tanh"]
)
def test_deterministic_policies_are_refused_by_name(dist):
    with pytest.raises(TypeError, match=f"{type(dist).__name__} is deterministic"):
        action_candidates(dist)


def test_too_many_joint_choices_are_refused():
    with pytest.raises(ValueError, match="1048576 joint choices"):
        action_candidates(MultiCategorical(torch.zeros(1, 5, 16)))


def test_sparse_masks_are_refused():
    dist = MaskedCategorical(torch.zeros(2, 4), indices=torch.tensor([[0, 3], [1, 2]]))
    with pytest.raises(ValueError, match="boolean `mask`"):
        action_candidates(dist)


def test_a_rule_without_points_is_refused():
    dist = IndependentNormal(torch.zeros(1), torch.ones(1))
    with pytest.raises(ValueError, match="num_points must be 1 or more"):
        action_candidates(dist, rule="monte_carlo", num_points=0)


@pytest.mark.parametrize("rule", ["simpson", "grid"])
def test_an_unknown_rule_is_named_with_the_choices(rule):
    dist = IndependentNormal(torch.zeros(1), torch.ones(1))
    message = rf"rule must be one of \('gauss', 'monte_carlo'\), got '{rule}'\.$"
    with pytest.raises(ValueError, match=message):
        action_candidates(dist, rule=rule)
    with pytest.raises(ValueError, match=message):
        ObAdvantage(actor_network=None, value_network=None, gamma=1.0, lmbda=1.0, rule=rule)


@pytest.mark.parametrize("gain", [0.5, 0.7])
def test_deterministic_cubature_beats_a_thousand_samples(gain):
    """Nine points against the paper's 1,000, on tanh networks clearly nonlinear in the action."""
    torch.manual_seed(0)
    num_states, width = 500, 64
    dist = TanhNormal(
        torch.randn(num_states, 2).double() / 2, torch.rand(num_states, 2).double() * 0.8 + 0.2
    )
    first = torch.randn(num_states, 2, width).double() * gain
    bias = torch.randn(num_states, 1, width).double()
    last = torch.randn(num_states, width).double() / math.sqrt(width)

    def q(actions):
        return torch.einsum("skh,sh->sk", (actions @ first + bias).tanh(), last)

    dense = dense_candidates(dist, num_points=40)
    values = q(dense.actions)
    exact = weighted_baseline(values, dense.optimal_weights)
    mean = weighted_baseline(values, dense.probabilities).unsqueeze(-1)
    spread = weighted_baseline((values - mean) ** 2, dense.probabilities).sqrt()
    # "clearly nonlinear": a plane through the centre misses a good part of the value's spread
    slope = torch.einsum("sdh,sh,sh->sd", first, 1 - (bias[:, 0]).tanh() ** 2, last)
    plane = (dense.actions * slope.unsqueeze(1)).sum(-1)
    residual = values - plane
    residual = residual - weighted_baseline(residual, dense.probabilities).unsqueeze(-1)
    nonlinear = weighted_baseline(residual**2, dense.probabilities).sqrt() / spread
    assert nonlinear.median() > 0.25

    def error(**options):
        c = action_candidates(dist, measure="optimal_weights", **options)
        b = weighted_baseline(q(c.actions), c.optimal_weights)
        return c.actions.shape[1], ((b - exact) / spread).square().mean().sqrt().item()

    (nine, small), (thousand, large) = error(), error(rule="monte_carlo")
    assert (nine, thousand) == (9, 1000)
    assert small < 0.1 * large
    four, medium = error(num_points=2)
    assert four == 4
    assert medium < 0.5 * large


def test_laplace_is_not_mistaken_for_a_gaussian():
    assert action_candidates(IndependentLaplace(torch.zeros(2, 1), torch.ones(2, 1))) is None
