r"""The truncated Gaussian: a line of values that stands for it, its scores and its quantiles.

Everything is told from the likeliest point of the interval, ``mode = clip(loc, low, high)``, in units of the scale:
with :math:`t = (u - mode)/σ` and :math:`h = (mode - loc)/σ` the density is proportional to
:math:`\exp(-t\,(t/2 + h))`. So nothing cancels where loc is far outside the bounds or the scale is far wider than
they are, and no distribution function of the normal is divided by another one. Without bounds the scores are those of
:func:`torchrl_ob.functional.normal_score_weights`, which needs no line.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributions as D
from torchrl.modules import TruncatedNormal

from torchrl_ob.expectations.components import Components, register_components
from torchrl_ob.expectations.rules import gauss_legendre
from torchrl_ob.functional.scores import at_least_single

__all__ = ["Truncation", "truncated_components", "truncated_line", "truncated_quantile"]

LINE = 32
"""Nodes of the line."""

REACH = 8.0
"""Where the density is ``exp(-REACH² / 2)`` of its largest value, the line ends."""


class Truncation(NamedTuple):
    """An interval around the mode of a Gaussian, in units of its scale; tensors of one shape.

    Attributes:
        height: ``h``, of the mode above loc; 0 where loc lies in the interval.
        lower: lower bound less the mode, not positive; may be ``-inf``.
        upper: upper bound less the mode, not negative; may be ``inf``.
    """

    height: Tensor
    lower: Tensor
    upper: Tensor

    def scores(self, t: Tensor) -> tuple[Tensor, Tensor]:
        r"""``σ ∂_loc log π`` and ``∂_logscale log π`` at ``t``, ``[*, *shape]``.

        With :math:`z = h + t` they are :math:`z - E[z]` and :math:`z^2 - E[z^2]`: a score has no mean.
        """
        line, p = truncated_line(self)
        mean = (p * line).sum(0)
        variance = (p * (line - mean).square()).sum(0)
        offset = t - mean
        return offset, offset.square() - variance + 2 * (self.height + mean) * offset


@register_components(TruncatedNormal)
def truncated_components(dist: D.Distribution) -> Components | None:
    """The components of a TorchRL :class:`~torchrl.modules.TruncatedNormal`; ``None`` for another distribution.

    Its Gaussian is the one before truncation, with the scale that TorchRL keeps at 1e-6 or more and loc after
    ``tanh_loc``. The density is the exact one, whose mass TorchRL clamps far from loc.
    """
    if type(dist).log_prob is not TruncatedNormal.log_prob:
        return None
    normal: Any = getattr(dist, "base_dist", None)
    loc, scale, low, high = (
        at_least_single(x) for x in (normal.loc, normal.scale, normal._non_std_a, normal._non_std_b)
    )
    mode = torch.minimum(torch.maximum(loc, low), high)
    truncation = Truncation(*((x / scale) for x in (mode - loc, low - mode, high - mode)))
    return Components(
        scale=scale,
        line=lambda: truncated_line(truncation),
        quantile=lambda nodes: truncated_quantile(truncation, nodes),
        action=lambda t: mode + scale * t,
        inverse=lambda action: (action - mode) / scale,
        scores=truncation.scores,
        bounds=(low, high),
        dtype=normal.loc.dtype,
    )


def truncated_line(truncation: Truncation) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes where the density of a truncated Gaussian is not negligible.

    Returns:
        Values of ``t`` and their probabilities, ``[LINE, *shape]`` each.
    """
    height, lower, upper = truncation
    size = height.abs()
    # where |t| (|t| / 2 + |h|) = REACH² / 2
    reach = REACH**2 / (torch.hypot(height, torch.full_like(height, REACH)) + size)
    first, last = torch.maximum(lower, -reach), torch.minimum(upper, reach)
    nodes, weights = gauss_legendre(LINE).to(height)
    t = first + (last - first) * nodes
    p = weights * (-t * (t / 2 + height)).exp()
    return t, p / p.sum(0)


def truncated_quantile(truncation: Truncation, nodes: Tensor) -> Tensor:
    """``t`` of the same cumulative probability as standard normal nodes, ``[*, *shape]`` each.

    Of three forms each takes the cases where it keeps its digits: the normal quantile, in the nearer tail; beyond
    8 standard deviations the fixed point of the normal's tail, ``erfcx``; and a straight line where the density is flat.
    """
    dtype = nodes.dtype
    height, lower, upper = (x.double() for x in truncation)
    mirror = torch.where(height < 0, -1.0, 1.0)  # the interval starts at its mode or around it
    height, nodes = height.abs(), nodes.double() * mirror
    lower, upper = torch.where(mirror < 0, -upper, lower), torch.where(mirror < 0, -lower, upper)
    level, rest = _ndtr(nodes), _ndtr(-nodes)
    start, end = height + lower, height + upper
    # in the nearer tail
    left = rest * _ndtr(start) + level * _ndtr(end)
    right = rest * _ndtr(-start) + level * _ndtr(-end)
    z = torch.where(left < right, torch.special.ndtri(left), -torch.special.ndtri(right))
    near = z - height
    # far in the upper tail: t (t / 2 + h) = log S(h) - log S(h + t) + log of the ratio of erfcx
    kept = -torch.expm1(-upper * (upper / 2 + height) + _log_erfcx_ratio(height, upper))
    drop = torch.where(kept < 0.5, -torch.log1p(-level * kept), -(rest + level * (1 - kept)).log())
    far = torch.zeros_like(drop)
    for _ in range(6):  # contracts by 1 / h² each time
        energy = (drop + _log_erfcx_ratio(height, far)).clamp_min(0)
        far = 2 * energy / (height + (height.square() + 2 * energy).sqrt())
    flat = (upper - lower) * ((upper + lower).abs() / 2 + height)
    t = torch.where(height > 8, far, near)
    t = torch.where(flat < 1e-8, lower + level * (upper - lower), t)
    return (torch.minimum(torch.maximum(t, lower), upper) * mirror).to(dtype)


def _log_erfcx_ratio(height: Tensor, t: Tensor) -> Tensor:
    """``log erfcx((h + t) / √2) - log erfcx(h / √2)``."""
    high, low = (torch.special.erfcx(x * math.sqrt(0.5)) for x in (height + t, height))
    return (high / low).log()


def _ndtr(x: Tensor) -> Tensor:
    """The normal distribution function; torch's own is zero far below."""
    return torch.special.erfc(-x * math.sqrt(0.5)) / 2
