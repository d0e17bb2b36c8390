"""Gaussians under elementwise transforms: what they are, and a line of values that stands for each component."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch import distributions as D
from torchrl.modules import Delta, TanhDelta

from torchrl_ob.expectations.components import Components, register_components
from torchrl_ob.expectations.quadrature import Candidates
from torchrl_ob.expectations.registry import Options, register_candidates
from torchrl_ob.expectations.rules import gauss_hermite
from torchrl_ob.functional.scores import at_least_single

__all__ = ["gaussian_components", "normal_line", "squashed_line", "unwrap_gaussian"]

PLAIN_LINE, SQUASHED_LINE = 12, 32
"""Nodes on which a component's own distribution is known; no critic is asked there."""

REACH = 7.0
"""Standard deviations that the line of a squashed Gaussian covers."""


def unwrap_gaussian(dist: D.Distribution) -> tuple[D.Normal, list[D.Transform]] | None:
    """The Gaussian under a distribution, and the elementwise transforms of its samples.

    ``None`` where there is none: where a subclass has a ``log_prob`` of its own (a half normal), or a transform mixes
    components (stick breaking) or maps two values to one (``abs``), the score is not that of the Gaussian.

    Args:
        dist: such as :class:`~torchrl.modules.TanhNormal`.
    """
    base: Any = dist
    transforms: list[D.Transform] = []
    while type(base).log_prob in (D.TransformedDistribution.log_prob, D.Independent.log_prob):
        transforms = [*getattr(base, "transforms", ()), *transforms]
        base = base.base_dist
    if type(base).log_prob is not D.Normal.log_prob or base.loc.ndim == 0:
        return None
    return (base, transforms) if all(map(_is_elementwise, transforms)) else None


@register_components(D.Normal, D.TransformedDistribution)
def gaussian_components(dist: D.Distribution) -> Components | None:
    """The components of a Gaussian under elementwise transforms; ``None`` for another distribution."""
    if (gaussian := unwrap_gaussian(dist)) is None:
        return None
    normal, transforms = gaussian
    loc, scale = at_least_single(normal.loc), at_least_single(normal.scale)

    def action(z: Tensor) -> Tensor:
        value = torch.addcmul(loc, scale, z)
        for transform in transforms:
            value = transform(value)
        return value

    def inverse(value: Tensor) -> Tensor:
        for transform in reversed(transforms):
            value = transform.inv(value)
        return (value - loc) / scale

    return Components(
        scale=scale,
        line=lambda: squashed_line(loc, scale) if transforms else normal_line(loc),
        quantile=lambda nodes: nodes,
        action=action,
        inverse=inverse,
        scores=lambda z: (z, z.square().sub_(1)),
        bounds=_read_bounds(dist),
        dtype=normal.loc.dtype,
    )


@register_candidates(Delta, TanhDelta)
def refuse_deterministic(dist: D.Distribution, options: Options) -> Candidates:
    """A deterministic policy has no candidates."""
    raise TypeError(
        f"{type(dist).__name__} is deterministic and has no score: use a stochastic policy, such as TanhNormal."
    )


def normal_line(loc: Tensor) -> tuple[Tensor, Tensor]:
    """Standard normal nodes and their probabilities, ``[12, *B, n, d]`` each: exact for polynomials."""
    nodes, weights = gauss_hermite(PLAIN_LINE).to(loc)
    return nodes.expand(-1, *loc.shape), weights.expand(-1, *loc.shape)


def squashed_line(loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    r"""Standard normal nodes and probabilities that stand for ``tanh(loc + scale z)``, however wide it is.

    The trapezoid rule in τ, with :math:`z = z_0 + \sinh(τ) / κ`: dense around :math:`z_0 = -loc / scale`, where a
    squashing function turns, in proportion to its width there, and as wide as the Gaussian elsewhere. Of an analytic
    function the error of that rule vanishes exponentially in the number of nodes. (Takahasi and Mori, "Double exponential
    formulas for numerical integration", 1974.)

    Args:
        loc: of the Gaussian, ``[*B, n, d]``.
        scale: alike.

    Returns:
        ``[32, *B, n, d]`` each.
    """
    center = (-loc / scale).clamp(-5, 5)  # beyond, it turns where there is hardly any mass
    # of which the step of tau resolves the turn and the Gaussian
    rate = (scale / 2).clamp(0.3, 300)
    first, last = ((rate * (end - center)).asinh() for end in (-REACH, REACH))
    steps = torch.linspace(0, 1, SQUASHED_LINE, dtype=loc.dtype, device=loc.device)
    growth = torch.lerp(first, last, steps.reshape(-1, *[1] * loc.ndim)).exp_()  # e^τ
    decay = growth.reciprocal()
    z = torch.addcmul(center, growth - decay, 1 / (2 * rate))
    density = z.square().mul_(-0.5).exp_().mul_(growth.add_(decay))
    return z, density.div_(density.sum(0))


def _is_elementwise(transform: D.Transform) -> bool:
    if isinstance(transform, D.ComposeTransform):
        return all(map(_is_elementwise, transform.parts))
    if isinstance(transform, D.IndependentTransform):
        return _is_elementwise(transform.base_transform)
    events = transform.domain.event_dim, transform.codomain.event_dim
    return bool(transform.bijective) and events == (0, 0)


def _read_bounds(dist: D.Distribution) -> tuple[Tensor, Tensor] | None:
    """Bounds that a distribution, or one that it wraps, declares, as TorchRL's ``TanhNormal`` does."""
    inner: Any = dist
    while not hasattr(inner, "low") and hasattr(inner, "base_dist"):
        inner = inner.base_dist
    low, high = getattr(inner, "low", None), getattr(inner, "high", None)
    return (low, high) if isinstance(low, Tensor) and isinstance(high, Tensor) else None
