r"""Exact quantities of a finite game in one state, by enumeration of the joint actions.

A game is a table of values ``q`` with one dimension for each agent, ``[A_1, ..., A_n]``, and the agents'
policies ``probs``, n vectors ``[A_i]``. Everything is computed in the dtype of the table: use double
precision. The cost is that of the table, so this is for games small enough to write down.

Definitions are those of Kuba et al., "Settling the Variance of Multi-Agent Policy Gradients",
NeurIPS 2021, arXiv:2108.08612, sections 2 to 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "check_game",
    "decentralized_value",
    "multi_agent_advantage",
    "state_value",
    "subset_value",
    "variance_decomposition",
]


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
    check_game(q, probs, agents)
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


def decentralized_value(q: Tensor, probs: Sequence[Tensor], agent: int) -> Tensor:
    """``Q^i(s, a^i)`` in the shape of ``q``: the signal of the decentralized estimator.

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics import decentralized_value
        >>> fair, q = torch.tensor([.5, .5]), torch.tensor([[0., 2.], [4., 6.]])
        >>> decentralized_value(q, [fair, fair], agent=0)
        tensor([[1., 1.],
                [5., 5.]])
    """
    local = subset_value(q, probs, [agent])
    return local.reshape([-1 if i == agent else 1 for i in range(q.ndim)]).expand_as(q)


def check_game(q: Tensor, probs: Sequence[Tensor], agents: Sequence[int]) -> None:
    """Refuse policies that do not fit the table, and agents that it does not have."""
    sizes = [tuple(policy.shape) for policy in probs]
    if sizes != [(size,) for size in q.shape]:
        raise ValueError(
            f"a table of shape {list(q.shape)} needs a policy for each dimension, of shapes "
            f"{[(size,) for size in q.shape]}; got {sizes}."
        )
    if len(set(agents)) < len(agents) or not all(0 <= agent < q.ndim for agent in agents):
        raise ValueError(f"agents must be different and in 0..{q.ndim - 1}, got {list(agents)}.")
