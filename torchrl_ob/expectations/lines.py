"""Deterministic nodes and weights, for expectations under a standard normal in d dimensions above all.

A rule approximates ``E[f(z)] ≈ Σ_k p_k f(z_k)``. All rules here are symmetric, ``z`` and ``-z``
having the same weight, so that the part of ``f`` that is odd in ``z`` is integrated exactly.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Cubature",
    "ExpectationRule",
    "gauss_hermite",
    "gauss_legendre",
    "grid_rule",
    "rule_size",
    "sobol_rule",
]

ExpectationRule = Literal["gauss", "grid", "sobol", "monte_carlo"]
"""How the expectation over a continuous own action is taken."""


class Cubature(NamedTuple):
    """Nodes ``[K, d]`` and weights ``[K]`` (summing to one), on the CPU in float64."""

    nodes: Tensor
    weights: Tensor


@torch.compiler.assume_constant_result
def gauss_hermite(num_points: int) -> Cubature:
    r"""Gauss-Hermite rule of the standard normal in one dimension, by the Golub-Welsch algorithm.

    Exact for polynomials of degree ``2 num_points - 1``. (Golub and Welsch, "Calculation of Gauss
    quadrature rules", 1969: the eigenvalues of the Jacobi matrix, whose off-diagonal is
    :math:`\sqrt{1}, \sqrt{2}, \dots`, and the squares of its eigenvectors' first components.)

    Args:
        num_points: number of nodes.

    Returns:
        Nodes ``[num_points, 1]`` in ascending order, and weights.

    Example:
        >>> from torchrl_ob.expectations.lines import gauss_hermite
        >>> nodes, weights = gauss_hermite(3)  # ±√3 with 1/6, and 0 with 2/3
        >>> (weights * nodes.squeeze(-1) ** 4).sum().round(decimals=6)
        tensor(3., dtype=torch.float64)
    """
    if num_points < 1:
        raise ValueError(f"a Gauss-Hermite rule needs at least 1 point, got {num_points}.")
    nodes, weights = _golub_welsch(torch.arange(1, num_points, dtype=torch.float64).sqrt())
    return Cubature(nodes.unsqueeze(-1), weights)


@torch.compiler.assume_constant_result
def gauss_legendre(num_points: int) -> Cubature:
    """Gauss-Legendre rule of the uniform distribution on [0, 1].

    Exact for polynomials of degree ``2 num_points - 1``; as :func:`gauss_hermite`, with off-diagonal
    ``k / sqrt(4 k² - 1)`` on [-1, 1].

    Args:
        num_points: number of nodes.

    Returns:
        Nodes ``[num_points, 1]`` in ascending order, and weights.

    Example:
        >>> from torchrl_ob.expectations.lines import gauss_legendre
        >>> nodes, weights = gauss_legendre(3)
        >>> (weights * nodes.squeeze(-1) ** 4).sum().round(decimals=6)
        tensor(0.2000, dtype=torch.float64)
    """
    if num_points < 1:
        raise ValueError(f"a Gauss-Legendre rule needs at least 1 point, got {num_points}.")
    k = torch.arange(1, num_points, dtype=torch.float64)
    nodes, weights = _golub_welsch(k / (4 * k.square() - 1).sqrt())
    return Cubature((1 + nodes.unsqueeze(-1)) / 2, weights)


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


@torch.compiler.assume_constant_result
def grid_rule(dim: int, num_points: int = 5) -> Cubature:
    """Product of one-dimensional Gauss-Hermite rules.

    Args:
        dim: number of dimensions d.
        num_points: nodes in each dimension.

    Returns:
        Nodes ``[num_points ** dim, dim]`` and weights.

    Example:
        >>> from torchrl_ob.expectations.lines import grid_rule
        >>> grid_rule(2, 3).nodes.shape
        torch.Size([9, 2])
    """
    line = gauss_hermite(num_points)
    nodes = torch.cartesian_prod(*[line.nodes.squeeze(-1)] * dim).reshape(-1, dim)
    weights = torch.cartesian_prod(*[line.weights] * dim).reshape(-1, dim).prod(-1)
    return Cubature(nodes, weights)


@torch.compiler.assume_constant_result
def sobol_rule(dim: int, num_points: int = 64) -> Cubature:
    """Antithetic pairs of scrambled Sobol points, all of the same weight.

    Args:
        dim: number of dimensions d.
        num_points: number of points, even.

    Returns:
        Nodes ``[num_points, dim]`` and weights. The scrambling is fixed: no random state is used.

    Example:
        >>> from torchrl_ob.expectations.lines import sobol_rule
        >>> float(sobol_rule(2, 64).nodes.sum().round(decimals=6))
        0.0
    """
    if num_points < 2 or num_points % 2:
        raise ValueError(f"the Sobol rule takes pairs of points: an even number, got {num_points}.")
    uniform = torch.quasirandom.SobolEngine(dim, scramble=True, seed=0).draw(
        num_points // 2, dtype=torch.float64
    )
    eps = torch.finfo(torch.float64).eps
    half = math.sqrt(2) * torch.erfinv((2 * uniform - 1).clamp(-1 + eps, 1 - eps))
    weights = torch.full((num_points,), 1 / num_points, dtype=torch.float64)
    return Cubature(torch.cat([half, -half]), weights)


def rule_size(rule: ExpectationRule, num_points: int | None) -> int:
    """Size of a rule, by default its own.

    Raises:
        ValueError: where it is not positive.
    """
    if num_points is None:
        return {"grid": 5, "sobol": 64, "monte_carlo": 1000}[rule]
    if num_points < 1:
        raise ValueError(f"num_points must be 1 or more, got {num_points}.")
    return num_points
