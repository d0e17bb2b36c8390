"""Rules of an expectation over a continuous own action: their names, and Gauss rules of one dimension.

``E[f(z)] ≈ Σ_k p_k f(z_k)``, exact for polynomials; ``quadrature.py`` builds the rules of an action on them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "ExpectationRule",
    "Line",
    "gauss_hermite",
    "gauss_legendre",
    "sample_size",
]

ExpectationRule = Literal["gauss", "monte_carlo"]
"""How the expectation over a continuous own action is taken."""


class Line(NamedTuple):
    """Nodes ``[K]`` and weights ``[K]`` (summing to one), on the CPU in float64."""

    nodes: Tensor
    weights: Tensor


@torch.compiler.assume_constant_result
def gauss_hermite(num_points: int) -> Line:
    r"""Gauss-Hermite rule of the standard normal in one dimension, by the Golub-Welsch algorithm.

    Exact for polynomials of degree ``2 num_points - 1``. (Golub and Welsch, "Calculation of Gauss
    quadrature rules", 1969: the eigenvalues of the Jacobi matrix, whose off-diagonal is
    :math:`\sqrt{1}, \sqrt{2}, \dots`, and the squares of its eigenvectors' first components.)

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
    if num_points < 1:
        raise ValueError(f"a Gauss-Hermite rule needs at least 1 point, got {num_points}.")
    nodes, weights = _golub_welsch(torch.arange(1, num_points, dtype=torch.float64).sqrt())
    return Line(nodes, weights)


@torch.compiler.assume_constant_result
def gauss_legendre(num_points: int) -> Line:
    """Gauss-Legendre rule of the uniform distribution on [0, 1].

    Exact for polynomials of degree ``2 num_points - 1``; as :func:`gauss_hermite`, with off-diagonal
    ``k / sqrt(4 k² - 1)`` on [-1, 1].

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
    if num_points < 1:
        raise ValueError(f"a Gauss-Legendre rule needs at least 1 point, got {num_points}.")
    k = torch.arange(1, num_points, dtype=torch.float64)
    nodes, weights = _golub_welsch(k / (4 * k.square() - 1).sqrt())
    return Line((1 + nodes) / 2, weights)


def _golub_welsch(off_diagonal: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights of a symmetric measure from its Jacobi matrix, whose diagonal is zero."""
    nodes, vectors = torch.linalg.eigh(
        torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1)
        if len(off_diagonal)
        else torch.zeros(1, 1, dtype=torch.float64)
    )
    nodes = (nodes - nodes.flip(0)) / 2  # symmetric to the last bit, the central node exactly 0
    weights = vectors[0].square()
    return nodes, (weights + weights.flip(0)) / 2


def sample_size(num_points: int | None) -> int:
    """Number of samples of the Monte Carlo rule, 1,000 by default.

    Raises:
        ValueError: where it is not positive.
    """
    if num_points is not None and num_points < 1:
        raise ValueError(f"num_points must be 1 or more, got {num_points}.")
    return 1000 if num_points is None else num_points
