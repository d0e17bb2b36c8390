"""Truncated Gaussians near and far from their scale, against dense quadrature and 40 digits."""

import mpmath
import pytest
import torch
from dense_rules import dense_candidates, truncated_normal_score_weights
from fuzz import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from torchrl.modules import TruncatedNormal

from torchrl_ob.expectations import action_candidates
from torchrl_ob.expectations.truncated import Truncation, truncated_quantile
from torchrl_ob.functional import weighted_baseline

LOCS = [0.0, 0.7, -3.0, 40.0, -1e4]
SCALES = [1e-3, 0.1, 1.0, 30.0, 100.0, 1e4, 1e8]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("psi", ["loc_scale", "loc_log_scale", "loc"])
@pytest.mark.parametrize("rule", ["gauss", "sobol"])
def test_baselines_are_right_far_from_the_scale(rule, psi, dtype):
    for loc in LOCS:
        for scale in SCALES:
            # TorchRL refuses bounds that rounding makes one
            if dtype == torch.float32 and abs(loc) == 1e4:
                continue
            parts = (torch.tensor([[x]], dtype=dtype) for x in (loc, scale))
            dist = TruncatedNormal(*parts, low=-1.0, high=2.0)
            mode, t, p = reference.truncated_quadrature((-1 - loc) / scale, (2 - loc) / scale)
            t, p = torch.as_tensor(t), torch.as_tensor(p)
            action = min(max(loc, -1), 2) + scale * t
            first = t - (p * t).sum()
            second = first.square() + 2 * (mode + (p * t).sum()) * first
            second = second - (p * second).sum()
            factor = {"loc_scale": 1 / scale, "loc_log_scale": 1.0, "loc": 0.0}[psi]
            w = p * ((first / scale) ** 2 + (second * factor) ** 2)
            w = w / w.sum()
            values = action**2 - action
            spread = (p * (values - (p * values).sum()).square()).sum().sqrt()
            for measure, exact in (("probabilities", p), ("optimal_weights", w)):
                if rule == "gauss":
                    c = action_candidates(dist, psi=psi, measure=measure)
                else:
                    c = dense_candidates(dist, rule, psi, num_points=4096)
                a = c.actions[0, :, 0].double()
                found = weighted_baseline(a**2 - a, getattr(c, measure)[0].double())
                error = (found - (exact * values).sum()).abs()
                most = 0.002 if rule == "gauss" else 0.02
                assert error <= most * spread + 1e-5, (loc, scale, measure, error / spread)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-200, 200),
    st.sampled_from([1e-9, 1e-3, 0.1, 1.0, 5.0, 100.0]),
    st.floats(-3, 3),
)
def test_quantiles_have_the_probability_of_their_nodes(lower, width, node):
    with mpmath.workdps(60):
        low, high = mpmath.mpf(lower), mpmath.mpf(lower) + mpmath.mpf(width)
        mode = min(max(mpmath.mpf(0), low), high)
        parts = (
            torch.tensor([float(x)], dtype=torch.float64) for x in (mode, low - mode, high - mode)
        )
        t = truncated_quantile(Truncation(*parts), torch.tensor([node], dtype=torch.float64))
        t = mpmath.mpf(t.item())
        assert low - mode <= t + 1e-15 * abs(low)
        assert t <= high - mode + 1e-15 * abs(high)

        def mass(a, b):
            # from the nearer tail
            a, b = (-b, -a) if a + b < 0 else (a, b)
            return (mpmath.erfc(a / mpmath.sqrt(2)) - mpmath.erfc(b / mpmath.sqrt(2))) / 2

        level = mass(low, mode + t) / mass(low, high)
        assert abs(level - mpmath.ncdf(node)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("lower", "upper"), [(-2.0, 1.0), (-0.01, 0.02), (3.0, 5.0), (-80.0, -70.0), (1e-4, 3e-4)]
)
def test_score_weights_against_forty_digits(lower, upper, dtype):
    low, high = (torch.tensor(x, dtype=dtype) for x in (lower, upper))
    z = torch.linspace(0, 1, 7, dtype=dtype) * (high - low) + low
    for psi in ("loc_scale", "loc_log_scale", "loc"):
        found = truncated_normal_score_weights(z, low, high, torch.tensor(0.5, dtype=dtype), psi)
        with mpmath.workdps(40):
            a, b = mpmath.mpf(low.item()), mpmath.mpf(high.item())
            total = mpmath.ncdf(b) - mpmath.ncdf(a)
            first = (mpmath.npdf(b) - mpmath.npdf(a)) / total
            second = (b * mpmath.npdf(b) - a * mpmath.npdf(a)) / total
            exact = []
            for x in z.tolist():
                s1, s2 = mpmath.mpf(x) + first, mpmath.mpf(x) ** 2 - 1 + second
                exact.append(
                    {
                        "loc_scale": 4 * (s1**2 + s2**2),
                        "loc_log_scale": 4 * s1**2 + s2**2,
                        "loc": 4 * s1**2,
                    }[psi]
                )
            exact = torch.tensor([float(x) for x in exact], dtype=torch.float64)
        tolerance = 2e-5 if dtype == torch.float32 else 1e-9
        assert (found.double() - exact).abs().max() <= tolerance * exact.max()
