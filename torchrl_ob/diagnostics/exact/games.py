r"""Exact quantities of a finite game in one state, by enumeration of the joint actions.

A game is a table of values ``q`` with one dimension for each agent, ``[A_1, ..., A_n]``, and the agents'
policies ``probs``, n vectors ``[A_i]``. Everything is computed in the dtype of the table: use double
precision. The cost is that of the table, so this is for games small enough to write down.

Definitions are those of Kuba et al., "Settling the Variance of Multi-Agent Policy Gradients",
NeurIPS 2021, arXiv:2108.08612, sections 2 to 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torchrl_ob.functional import categorical_optimal_weights, optimal_weights

__all__ = [
    "Moments",
    "coma_baseline",
    "decentralised_value",
    "excess_bound",
    "gradient_moments",
    "multi_agent_advantage",
    "optimal_baseline",
    "state_value",
    "subset_value",
    "variance_decomposition",
]


class Moments(NamedTuple):
    """Mean ``[P]`` of a gradient estimator, and its total variance (trace of the covariance)."""

    mean: Tensor
    variance: Tensor


def subset_value(q: Tensor, probs: Sequence[Tensor], agents: Sequence[int]) -> Tensor:
    r"""Value of the actions of some agents, the others' following their policies.

    .. math::
        Q^{i_{1:m}}(s, a^{i_{1:m}}) = E_{a^{-i_{1:m}} \sim \pi}[Q(s, a^{i_{1:m}}, a^{-i_{1:m}})]

    Args:
        q: values of the joint actions, ``[A_1, ..., A_n]``.
        probs: each agent's policy, n vectors ``[A_i]``.
        agents: the subset, in the order of the dimensions of the result.

    Returns:
        ``[A_{i_1}, ..., A_{i_m}]``; the state value for no agents, ``q`` for all in order.

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics import subset_value
        >>> fair = torch.tensor([.5, .5])
        >>> subset_value(torch.tensor([[0., 2.], [4., 6.]]), [fair, fair], [0])
        tensor([1., 5.])
    """
    _check(q, probs, agents)
    value = q
    for agent in reversed(range(q.ndim)):  # from the last, so that dimensions before it keep place
        if agent not in agents:
            value = torch.tensordot(value, probs[agent], dims=([agent], [0]))
    kept = sorted(agents)
    return value.permute([kept.index(agent) for agent in agents])


def multi_agent_advantage(
    q: Tensor, probs: Sequence[Tensor], agents: Sequence[int], given: Sequence[int] = ()
) -> Tensor:
    r"""How much the actions of some agents add to those of others.

    .. math::
        A^{i_{1:m}}(s, a^{j_{1:k}}, a^{i_{1:m}}) = Q^{j_{1:k}, i_{1:m}} - Q^{j_{1:k}}

    Args:
        q: values of the joint actions, ``[A_1, ..., A_n]``.
        probs: each agent's policy, n vectors ``[A_i]``.
        agents: the agents whose actions are judged.
        given: the agents whose actions are taken as given.

    Returns:
        ``[A_{j_1}, ..., A_{j_k}, A_{i_1}, ..., A_{i_m}]``.

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics import multi_agent_advantage
        >>> fair, q = torch.tensor([.5, .5]), torch.tensor([[0., 2.], [4., 6.]])
        >>> multi_agent_advantage(q, [fair, fair], agents=[1], given=[0])
        tensor([[-1.,  1.],
                [-1.,  1.]])
    """
    joint = subset_value(q, probs, [*given, *agents])
    base = subset_value(q, probs, given)
    return joint - base.reshape(*base.shape, *[1] * len(agents))


def variance_decomposition(
    q: Tensor, probs: Sequence[Tensor], order: Sequence[int] | None = None
) -> Tensor:
    r"""Share of each agent in the variance of the joint advantage.

    .. math::
        Var_a[A(s, a)] = \sum_{k=1}^n
            E_{a^{i_{1:k-1}}}\big[Var_{a^{i_k}}[A^{i_k}(s, a^{i_{1:k-1}}, a^{i_k})]\big]

    Args:
        q: values of the joint actions, ``[A_1, ..., A_n]``.
        probs: each agent's policy, n vectors ``[A_i]``.
        order: the order of the agents; 0 to n - 1 by default. The terms depend on it, their sum
            does not.

    Returns:
        The n terms, in that order.

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics import variance_decomposition
        >>> fair, q = torch.tensor([.5, .5]), torch.tensor([[0., 2.], [4., 6.]])
        >>> variance_decomposition(q, [fair, fair])
        tensor([4., 1.])
    """
    order = list(range(q.ndim)) if order is None else list(order)
    terms = []
    for k, agent in enumerate(order):
        term = multi_agent_advantage(q, probs, [agent], given=order[:k]).square()
        for other in reversed(order[: k + 1]):
            term = term @ probs[other]
        terms.append(term)
    return torch.stack(terms)


def state_value(q: Tensor, probs: Sequence[Tensor]) -> Tensor:
    """The state value V(s), the baseline of most actor-critics: a scalar.

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics import state_value
        >>> fair, q = torch.tensor([.5, .5]), torch.tensor([[0., 2.], [4., 6.]])
        >>> state_value(q, [fair, fair])
        tensor(3.)
    """
    return subset_value(q, probs, [])


def coma_baseline(q: Tensor, probs: Sequence[Tensor], agent: int) -> Tensor:
    """COMA's baseline, the mean of Q over the own action; of the shape of ``q``, the agent's 1.

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics import coma_baseline
        >>> fair, q = torch.tensor([.5, .5]), torch.tensor([[0., 2.], [4., 6.]])
        >>> coma_baseline(q, [fair, fair], agent=1)
        tensor([[1.],
                [5.]])
    """
    _check(q, probs, [agent])
    return _own_average(q, probs[agent], agent)


def optimal_baseline(
    q: Tensor, probs: Sequence[Tensor], agent: int, jacobian: Tensor | None = None
) -> Tensor:
    r"""The optimal baseline, :math:`b^* = E[Q w] / E[w]` over the own action.

    Args:
        q: values of the joint actions, ``[A_1, ..., A_n]``.
        probs: each agent's policy, n vectors ``[A_i]``.
        agent: whose gradient.
        jacobian: derivative of the agent's logits in its parameters, ``[A_i, P]``. With it the
            baseline is the exact one, of least variance in the parameters θ,
            :math:`w = \|\nabla_\theta \log\pi\|^2`; without, the surrogate, in the logits.

    Returns:
        Of the shape of ``q``, with the agent's dimension 1.

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics import optimal_baseline
        >>> optimal_baseline(torch.tensor([2., 1., 100.]), [torch.tensor([.8, .1, .1])], agent=0)
        tensor([43.6529])
    """
    _check(q, probs, [agent])
    own = probs[agent]
    if jacobian is None:
        weights = categorical_optimal_weights(own.log())
    else:
        weights = optimal_weights(own, (_scores(own) @ jacobian).square().sum(-1))
    return _own_average(q, weights, agent)


def decentralised_value(q: Tensor, probs: Sequence[Tensor], agent: int) -> Tensor:
    """``Q^i(s, a^i)`` in the shape of ``q``: the signal of the decentralised estimator.

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics import decentralised_value
        >>> fair, q = torch.tensor([.5, .5]), torch.tensor([[0., 2.], [4., 6.]])
        >>> decentralised_value(q, [fair, fair], agent=0)
        tensor([[1., 1.],
                [5., 5.]])
    """
    local = subset_value(q, probs, [agent])
    return local.reshape([-1 if i == agent else 1 for i in range(q.ndim)]).expand_as(q)


def gradient_moments(
    signal: Tensor, probs: Sequence[Tensor], agent: int, jacobian: Tensor | None = None
) -> Moments:
    r"""Mean and variance of the estimator :math:`X(a)\,\nabla \log\pi^i(a^i)` over the joint action.

    Args:
        signal: ``X`` of the joint actions, ``[A_1, ..., A_n]``: ``q`` for the centralised estimator,
            ``q - baseline`` for COMA and OB, :func:`decentralised_value` for the decentralised.
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
    _check(signal, probs, [agent])
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

    with :math:`g_C = Q\,\nabla\log\pi^i` centralised, :math:`g_D = Q^i\,\nabla\log\pi^i`
    decentralised, and :math:`w` the squared score in the logits. It is Efron and Stein's inequality,
    which assumes that the agents act independently given the state; an equality where Q is a sum of
    terms of one agent each. Theorem 1 of the paper replaces :math:`w` and :math:`A^j` by their suprema.
    (arXiv:2108.08612, section 3; Efron and Stein, "The jackknife estimate of variance", 1981.)

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics import decentralised_value, excess_bound, gradient_moments
        >>> fair, q = torch.tensor([.5, .5]), torch.tensor([[0., 2.], [4., 6.]])
        >>> excess_bound(q, [fair, fair], agent=0)
        tensor(0.5000)
        >>> centralised, decentralised = (
        ...     gradient_moments(signal, [fair, fair], agent=0).variance
        ...     for signal in (q, decentralised_value(q, [fair, fair], agent=0))
        ... )
        >>> centralised - decentralised
        tensor(0.5000)
    """
    _check(q, probs, [agent])
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


def _check(q: Tensor, probs: Sequence[Tensor], agents: Sequence[int]) -> None:
    sizes = [tuple(policy.shape) for policy in probs]
    if sizes != [(size,) for size in q.shape]:
        raise ValueError(
            f"a table of shape {list(q.shape)} needs a policy for each dimension, of shapes "
            f"{[(size,) for size in q.shape]}; got {sizes}."
        )
    if len(set(agents)) < len(agents) or not all(0 <= agent < q.ndim for agent in agents):
        raise ValueError(f"agents must be different and in 0..{q.ndim - 1}, got {list(agents)}.")
