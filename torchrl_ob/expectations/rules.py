"""Rules of an expectation over a continuous own action: their names, and Gauss rules of one dimension.

``E[f(z)] ≈ Σ_k p_k f(z_k)``, exact for polynomials; ``quadrature.py`` builds the rules of an action on them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from numpy.polynomial.hermite_e import hermegauss
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from torchrl_ob._checks.arguments import check_whole_number

__all__ = ["ExpectationRule", "Line", "gauss_hermite", "gauss_legendre", "sample_size"]

ExpectationRule = Literal["gauss", "monte_carlo"]
"""How the expectation over a continuous own action is taken."""


class Line(NamedTuple):
    """Nodes ``[K]`` and weights ``[K]`` (summing to one), on the CPU in float64."""

    nodes: Tensor
    weights: Tensor

    def to(self, like: Tensor) -> Line:
        """In the precision and on the device of a tensor, to be broadcast along a new first dimension of it."""
        shape = (-1, *[1] * like.ndim)
        return Line(*(x.to(like, non_blocking=True).reshape(shape) for x in self))


@torch.compiler.assume_constant_result
def gauss_hermite(num_points: int) -> Line:
    """Gauss-Hermite rule of the standard normal in one dimension.

    Exact for polynomials of degree ``2 num_points - 1``.

    Args:
        num_points: number of nodes.

    Returns:
        Nodes ``[num_points]`` in ascending order, and weights.

    Example:
        >>> from torchrl_ob.expectations.rules import gauss_hermite
        >>> nodes, weights = gauss_hermite(3)  # ±√3 with 1/6, and 0 with 2/3
        >>> (weights * nodes ** 4).sum().round(decimals=6)
        tensor(3., dtype=torch.float64)
    """
    nodes, weights = map(torch.from_numpy, hermegauss(num_points))
    return Line(nodes, weights / weights.sum())


@torch.compiler.assume_constant_result
def gauss_legendre(num_points: int) -> Line:
    """Gauss-Legendre rule of the uniform distribution on [0, 1].

    Exact for polynomials of degree ``2 num_points - 1``.

    Args:
        num_points: number of nodes.

    Returns:
        Nodes ``[num_points]`` in ascending order, and weights.

    Example:
        >>> from torchrl_ob.expectations.rules import gauss_legendre
        >>> nodes, weights = gauss_legendre(3)
        >>> (weights * nodes ** 4).sum().round(decimals=6)
        tensor(0.2000, dtype=torch.float64)
    """
    nodes, weights = map(torch.from_numpy, leggauss(num_points))
    return Line((1 + nodes) / 2, weights / 2)


def sample_size(num_points: int | None) -> int:
    """Number of samples of the Monte Carlo rule, 1,000 by default.

    Raises:
        ValueError: if it is not positive.
    """
    check_whole_number("num_points", num_points, or_none=True)
    return 1000 if num_points is None else num_points
