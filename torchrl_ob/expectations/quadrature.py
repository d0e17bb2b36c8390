r"""Expectations over an agent's own action from a few actions: Gauss rules of the action itself.

A critic receives the action, not the Gaussian noise behind it, so Q is approximated by a polynomial of the action.
The effect of squashing and truncation on the noise is computed without the critic: a line of values represents the
distribution of each component, with its probabilities ``p`` and squared scores ``w_d``. The optimal baseline averages
with the measure

.. math::
    \frac{w\,p}{E[w]} = \sum_d c_d\, \frac{w_d\, p_d}{E[w_d]} \prod_{j \ne d} p_j,
    \qquad w = \sum_d w_d, \quad c_d = E[w_d] / E[w],

a mixture of products, whose marginal in dimension d is ``c_d w_d p / E[w_d] + (1 - c_d) p``. Categorical factors are mixed alike
(``categorical.py``). A single categorical has its weights in log space and samples theirs from explicit scores, both
in :mod:`torchrl_ob.functional`: neither has a product to exploit, and only the former can lose E[w] to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "Candidates",
    "Measure",
    "gauss_nodes",
    "gauss_rule",
    "interpolatory_weights",
    "mixture_of_products",
]

Measure = Literal["probabilities", "optimal_weights"]
"""What an expectation is taken with: the policy's probabilities, or the optimal baseline's weights."""


class Candidates(NamedTuple):
    """Alternative own actions of every agent.

    Attributes:
        actions: ``[*B, n, K, *event]``.
        probabilities: weights ``p`` of the expectation over an own action, ``[*B, n, K]``, summing
            to one; a cubature's may be negative.
        optimal_weights: weights ``x`` of the optimal baseline, ``[*B, n, K]``, summing to one.
    """

    actions: Tensor
    probabilities: Tensor
    optimal_weights: Tensor


def gauss_rule(
    line: Tensor,
    probabilities: Tensor,
    squared_score: Tensor,
    *,
    measure: Measure,
    num_points: int | None = None,
) -> Candidates:
    """A rule for actions of d independent components.

    By default, there are 3 nodes in each dimension for one or two dimensions and 2 in each for three or four, in all
    combinations: 3, 9, 8 and 16 actions. In more dimensions, the main effects around the mean are added, with 2 nodes
    on each axis: ``2d + 1`` actions. With N nodes and ``measure``, the expectation is exact for sums of polynomials
    of degree ``2N - 1`` in one component each; if all combinations are taken, it is also exact, with either measure,
    for products of polynomials of degree ``N - 1``.

    Args:
        line: values of every component that stand for its distribution, ``[M, *B, n, d]``.
        probabilities: of these, summing to one over the first dimension, ``[M, *B, n, d]``.
        squared_score: ``w_d`` of these, up to a factor common to an agent's components, ``[M, *B, n, d]``.
        measure: whose Gauss nodes are taken.
        num_points: nodes in each dimension, 2 or 3; all their combinations are then taken.

    Returns:
        The actions and the weights of both measures.
    """
    dim = line.shape[-1]
    p = probabilities
    weighted = p * squared_score
    expected = weighted.sum(0)  # E[w_d], zero where there is no score
    total = expected.sum(-1, keepdim=True)
    share = torch.where(total > 0, expected / torch.where(total > 0, total, 1), 1 / dim)
    flat = expected <= 0  # no score, and then no tilt
    tilt = torch.where(flat, p, weighted.div_(torch.where(flat, 1, expected)))
    marginal = p if measure == "probabilities" else torch.lerp(p, tilt, share)
    mean, std, standard, nodes = gauss_nodes(line, marginal, num_points or (3 if dim < 3 else 2))
    own = interpolatory_weights(nodes, standard, p)  # [*B, n, d, N]
    tilted = interpolatory_weights(nodes, standard, tilt)
    values = mean.unsqueeze(-1) + std.unsqueeze(-1) * nodes
    # Gauss nodes lie between the values; nor does rounding take them out of the action's bounds
    lowest, highest = line.amin(0).unsqueeze(-1), line.amax(0).unsqueeze(-1)
    values = torch.minimum(torch.maximum(values, lowest), highest)
    if num_points is None and dim > 4:
        share = share.unsqueeze(-1)
        return _main_effects(mean, values, own, share * tilted + (1 - share) * own)
    index = torch.arange(nodes.shape[-1], device=line.device)
    joint = torch.cartesian_prod(*[index] * dim).reshape(-1, dim)  # [K, d]
    actions = values[..., torch.arange(dim, device=line.device), joint]
    return Candidates(actions, *mixture_of_products(own, tilted, share))


def gauss_nodes(
    values: Tensor, measure: Tensor, num_points: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Gauss nodes of a discrete measure: the roots of its orthogonal polynomial.

    In units of the standard deviation s around the mean, with skewness γ, they are
    :math:`γ/2 \pm \sqrt{1 + γ^2/4}` for two points; for three the eigenvalues of the Jacobi matrix
    with diagonal (0, γ, α) and off-diagonal :math:`(1, \sqrt β)`, where ``q = x² - γx - 1``,
    ``β = E[q²]`` and ``α = E[x q²] / β``. (Golub and Welsch, "Calculation of Gauss quadrature rules",
    1969.)

    Args:
        values: where the measure has mass, ``[M, *]``.
        measure: mass of each, not negative, summing to one over the first dimension, ``[M, *]``.
        num_points: 2 or 3.

    Returns:
        Mean and standard deviation ``[*]``, and in units of the standard deviation around the mean the values
        ``[M, *]`` and the nodes ``[*, num_points]``, in ascending order. Where all values are equal the nodes still
        differ, and the standard deviation is zero.

    Raises:
        ValueError: for another number of points.

    Example:
        >>> import torch
        >>> from torchrl_ob.expectations.rules import gauss_hermite
        >>> from torchrl_ob.expectations.quadrature import gauss_nodes
        >>> line = gauss_hermite(8)
        >>> gauss_nodes(line.nodes, line.weights, 3)[3].abs().round(decimals=4)
        tensor([1.7321, 0.0000, 1.7321], dtype=torch.float64)
    """
    if num_points not in (2, 3):
        raise ValueError(f"the Gauss rule has 2 or 3 points in each dimension, got {num_points}.")
    mean = (values * measure).sum(0)
    # in units of the range first, so that no power underflows
    reach = values.amax(0) - values.amin(0)
    x = (values - mean).div_(torch.where(reach > 0, reach, 1))
    spread = x.square().mul_(measure).sum(0).sqrt()
    x = x.div_(torch.where(spread > 0, spread, 1))
    square = x.square()
    skewness = (square * x).mul_(measure).sum(0)
    # the root that is larger in size is free of cancellation; the product of both is -1
    half = skewness / 2
    large = half.abs() + (1 + half.square()).sqrt()
    pair = torch.stack([-1 / large, large], -1)
    pair = torch.where(half.unsqueeze(-1) < 0, -pair.flip(-1), pair)
    if num_points == 2:
        return mean, spread * reach, x, pair
    squared = torch.addcmul(square.sub_(1), skewness, x, value=-1).square_().mul_(measure)
    beta = squared.sum(0)
    # where only two values have mass, the third node is free: the mean
    free = beta < 1e-5 * (1 + skewness.square())
    alpha = torch.where(free, 0, squared.mul_(x).sum(0) / torch.where(free, 1, beta))
    beta = torch.where(free, 0, beta)
    return mean, spread * reach, x, _jacobi_eigenvalues(skewness, alpha, beta)


def interpolatory_weights(nodes: Tensor, values: Tensor, measure: Tensor) -> Tensor:
    """Weights with which nodes integrate the polynomials that they determine.

    The expectation, with ``measure``, of the Lagrange polynomials of the nodes, from its first moments.

    Args:
        nodes: 2 or 3, all different, ``[*, N]``.
        values: where the measure has mass, ``[M, *]``.
        measure: mass of each, summing to one over the first dimension, ``[M, *]``.

    Returns:
        ``[*, N]``, summing to one; some may be negative.

    Example:
        >>> import torch
        >>> from torchrl_ob.expectations.quadrature import interpolatory_weights
        >>> values = torch.tensor([0., 1.])
        >>> interpolatory_weights(torch.tensor([-1., 1.]), values, torch.tensor([.5, .5]))
        tensor([0.2500, 0.7500])
    """
    moment = measure * values
    first = moment.sum(0).unsqueeze(-1)
    if nodes.shape[-1] == 2:
        other = nodes.flip(-1)
        return (first - other) / (nodes - other)
    second = moment.mul_(values).sum(0).unsqueeze(-1)
    following, last = nodes.roll(-1, -1), nodes.roll(-2, -1)
    product = second - first * (following + last) + following * last
    return product / ((nodes - following) * (nodes - last))


def mixture_of_products(
    own: Tensor | Sequence[Tensor], tilted: Tensor | Sequence[Tensor], share: Tensor
) -> tuple[Tensor, Tensor]:
    r"""Weights :math:`\prod_d p_d` and :math:`\sum_d c_d\, x_d \prod_{j \ne d} p_j` of all joint choices.

    Args:
        own: ``p_d``, of each of N choices in each of d components, ``[*, d, N]``; or a sequence of
            ``[*, N_d]``.
        tilted: ``x_d``, alike.
        share: ``c_d``, ``[*, d]``.

    Returns:
        Both, ``[*, N**d]``, in the order of :func:`torch.cartesian_prod`.

    Example:
        >>> import torch
        >>> from torchrl_ob.expectations.quadrature import mixture_of_products
        >>> own, tilted = torch.tensor([[.5, .5], [.2, .8]]), torch.tensor([[.1, .9], [.3, .7]])
        >>> mixture_of_products(own, tilted, torch.tensor([1., 0.]))  # .5 * .2 first, and .1 * .2
        (tensor([0.1000, 0.4000, 0.1000, 0.4000]), tensor([0.0200, 0.0800, 0.1800, 0.7200]))
    """
    product, mixture = torch.ones_like(share[..., :1]), torch.zeros_like(share[..., :1])
    own, tilted = (x.unbind(-2) if isinstance(x, Tensor) else x for x in (own, tilted))
    for p, x, c in zip(own, tilted, share.unsqueeze(-1).unbind(-2), strict=True):
        p, x = p.unsqueeze(-2), (c * x).unsqueeze(-2)
        mixture = (mixture.unsqueeze(-1) * p + product.unsqueeze(-1) * x).flatten(-2)
        product = (product.unsqueeze(-1) * p).flatten(-2)
    return product, mixture


def _main_effects(centre: Tensor, values: Tensor, own: Tensor, optimal: Tensor) -> Candidates:
    """The centre, and the centre with one component at one of its nodes."""
    own_axis = torch.eye(centre.shape[-1], dtype=torch.bool, device=centre.device)
    moved = torch.where(own_axis, values.movedim(-1, -2).unsqueeze(-2), centre[..., None, None, :])
    moved = moved.flatten(-3, -2)  # [*B, n, N d, d]
    weights = (x.transpose(-1, -2).flatten(-2) for x in (own, optimal))
    return Candidates(
        torch.cat([centre.unsqueeze(-2), moved], -2),
        *(torch.cat([1 - x.sum(-1, keepdim=True), x], -1) for x in weights),
    )


def _jacobi_eigenvalues(gamma: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Of the matrices with diagonal (0, γ, α) and squared off-diagonal (1, β), ascending, ``[*, 3]``.

    By the trigonometric solution of the characteristic equation.
    """
    third = (gamma + alpha) / 3
    a, b, c = -third, gamma - third, alpha - third
    size = ((a.square() + b.square() + c.square() + 2 + 2 * beta) / 6).sqrt()
    determinant = a * (b * c - beta) - c
    angle = (determinant / (2 * size.pow(3))).clamp(-1, 1).acos() / 3  # of a cosine, up to rounding
    top = third + 2 * size * angle.cos()
    bottom = third + 2 * size * (angle + 2 * math.pi / 3).cos()
    middle = 3 * third - top - bottom
    gap = 1e-5 * (top - bottom)  # rounding may merge them where one is far from the others
    return torch.stack(
        [torch.minimum(bottom, middle - gap), middle, torch.maximum(top, middle + gap)], -1
    )
