"""Gradient estimators of a finite game in one state: baselines, exact moments, and the bound on the excess variance.

A game is a table of values and the agents' policies, as in :mod:`~torchrl_ob.diagnostics.exact.values`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torchrl_ob.diagnostics.exact.values import check_game, subset_value
from torchrl_ob.functional import categorical_optimal_weights, optimal_weights

__all__ = ["Moments", "coma_baseline", "excess_bound", "gradient_moments", "optimal_baseline"]


class Moments(NamedTuple):
    """Mean ``[P]`` of a gradient estimator, and its total variance (trace of the covariance)."""

    mean: Tensor
    variance: Tensor


def coma_baseline(q: Tensor, probs: Sequence[Tensor], agent: int) -> Tensor:
    """COMA's baseline, the mean of Q over the agent's own action, in the shape of ``q`` with that dimension 1.

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics import coma_baseline
        >>> fair, q = torch.tensor([.5, .5]), torch.tensor([[0., 2.], [4., 6.]])
        >>> coma_baseline(q, [fair, fair], agent=1)
        tensor([[1.],
                [5.]])
    """
    check_game(q, probs, [agent])
    return _own_average(q, probs[agent], agent)


def optimal_baseline(
    q: Tensor, probs: Sequence[Tensor], agent: int, jacobian: Tensor | None = None
) -> Tensor:
    r"""The optimal baseline, :math:`b^* = E[Q w] / E[w]` over the agent's own action.

    Args:
        q: values of the joint actions, ``[A_1, ..., A_n]``.
        probs: each agent's policy, n vectors ``[A_i]``.
        agent: whose gradient.
        jacobian: derivative of the agent's logits in its parameters, ``[A_i, P]``. With it, the baseline is the exact
            one, with the smallest variance in the parameters θ, :math:`w = \|\nabla_\theta \log\pi\|^2`; without it,
            the baseline is the surrogate, in the logits.

    Returns:
        Of the shape of ``q``, with the agent's dimension 1.

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics import optimal_baseline
        >>> optimal_baseline(torch.tensor([2., 1., 100.]), [torch.tensor([.8, .1, .1])], agent=0)
        tensor([43.6529])
    """
    check_game(q, probs, [agent])
    own = probs[agent]
    if jacobian is None:
        weights = categorical_optimal_weights(own.log())
    else:
        weights = optimal_weights(own, (_scores(own) @ jacobian).square().sum(-1))
    return _own_average(q, weights, agent)


def gradient_moments(
    signal: Tensor, probs: Sequence[Tensor], agent: int, jacobian: Tensor | None = None
) -> Moments:
    r"""Mean and variance of the estimator :math:`X(a)\,\nabla \log\pi^i(a^i)` over the joint action.

    Args:
        signal: ``X`` of the joint actions, ``[A_1, ..., A_n]``: ``q`` for the centralized estimator,
            ``q - baseline`` for COMA and OB, :func:`decentralized_value` for the decentralized.
        probs: each agent's policy, n vectors ``[A_i]``.
        agent: whose gradient.
        jacobian: derivative of the agent's logits in its parameters, ``[A_i, P]``, for the gradient
            in the parameters; without, the gradient is in the logits and ``P = A_i``.

    Returns:
        The mean, ``[P]``, and the total variance.

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics import gradient_moments
        >>> q, pi = torch.tensor([2., 1., 100.]).double(), [torch.tensor([.8, .1, .1]).double()]
        >>> gradient_moments(q, pi, agent=0).variance.round(decimals=1)
        tensor(1321., dtype=torch.float64)
    """
    check_game(signal, probs, [agent])
    scores = _scores(probs[agent])
    if jacobian is not None:
        scores = scores @ jacobian
    weight = torch.ones((), dtype=signal.dtype, device=signal.device)
    for policy in probs:
        weight = weight.unsqueeze(-1) * policy
    own_size = len(scores)  # the others' joint actions in rows, the own ones in columns
    x, weight = (t.movedim(agent, -1).reshape(-1, own_size) for t in (signal, weight))
    mean = torch.einsum("ja,ja,ap->p", weight, x, scores)
    deviation = x.unsqueeze(-1) * scores - mean
    return Moments(mean, torch.einsum("ja,jap->", weight, deviation.square()))


def excess_bound(q: Tensor, probs: Sequence[Tensor], agent: int) -> Tensor:
    r"""Bound on the variance that the other agents' actions add to an agent's gradient: a scalar.

    .. math::
        \mathrm{Var}[g_C] - \mathrm{Var}[g_D]
            \le E\Big[w(a^i) \sum_{j \ne i} A^j(s, a^{-j}, a^j)^2\Big],
        \qquad A^j(s, a^{-j}, a^j) = Q(s, a) - E_{a^j}[Q(s, a)]

    with :math:`g_C = Q\,\nabla\log\pi^i` centralized, :math:`g_D = Q^i\,\nabla\log\pi^i`
    decentralized, and :math:`w` the squared score in the logits. It is Efron and Stein's inequality,
    which assumes that the agents act independently given the state; an equality where Q is a sum of
    terms of one agent each. Theorem 1 of the paper replaces :math:`w` and :math:`A^j` by their suprema.
    (arXiv:2108.08612, section 3; Efron and Stein, "The jackknife estimate of variance", 1981.)

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics import decentralized_value, excess_bound, gradient_moments
        >>> fair, q = torch.tensor([.5, .5]), torch.tensor([[0., 2.], [4., 6.]])
        >>> excess_bound(q, [fair, fair], agent=0)
        tensor(0.5000)
        >>> centralized, decentralized = (
        ...     gradient_moments(signal, [fair, fair], agent=0).variance
        ...     for signal in (q, decentralized_value(q, [fair, fair], agent=0))
        ... )
        >>> centralized - decentralized
        tensor(0.5000)
    """
    check_game(q, probs, [agent])
    squared = sum(
        (q - coma_baseline(q, probs, other)).square() for other in range(q.ndim) if other != agent
    )
    weights = _scores(probs[agent]).square().sum(-1)
    shape = [-1 if i == agent else 1 for i in range(q.ndim)]
    return subset_value(torch.as_tensor(squared) * weights.reshape(shape), probs, [])


def _scores(own: Tensor) -> Tensor:
    """Gradients ``[A, A]`` of the log-probability of each action in the logits."""
    return torch.eye(len(own), dtype=own.dtype, device=own.device) - own


def _own_average(q: Tensor, weights: Tensor, agent: int) -> Tensor:
    return torch.tensordot(q, weights, dims=([agent], [0])).unsqueeze(agent)
