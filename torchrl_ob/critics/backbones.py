"""Networks of the joint critic: what one must be, and the two that the package has.

Both compute ``tail(context_i + own_i(a))`` for every agent and each of K own actions; ``context``,
which does not depend on the own action, is computed once for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

__all__ = [
    "AgentLinear",
    "Backbone",
    "ConcatBackbone",
    "GroupBackbone",
    "Others",
    "PooledBackbone",
    "Sizes",
    "find_backbone",
    "own_values",
]


class Others(NamedTuple):
    """What agents of other groups show to a group: the sum ``[B, h]`` of their messages, and how many."""

    messages: Tensor
    num_agents: int

    def split(self, size: int) -> list[Others]:
        """In parts of ``size`` states."""
        return [self._replace(messages=part) for part in self.messages.split(size)]


class Sizes(NamedTuple):
    """Number of agents, and widths of what the network reads and writes for each."""

    num_agents: int
    observation_dim: int
    state_dim: int
    action_dim: int
    hidden_dim: int
    out_dim: int


class Backbone(Protocol):
    """What a network of the critic must be: a module that values the joint action.

    :class:`~torchrl_ob.JointQCritic` takes a function ``backbone(sizes, share_params=..., activation=...)`` that makes
    one, such as its class. Where the network has no more than ``forward``, alternative own actions are put into copies of
    its input. One that values them without evaluating the rest again adds ``candidates(observation, state, action, own)``,
    of own actions ``[B, n, K, a]`` and values ``[B, n, K, out_dim]``, see :class:`PooledBackbone`.
    """

    def __call__(self, observation: Tensor, state: Tensor, action: Tensor) -> Tensor:
        """Values of the joint action for every agent, ``[B, n, out_dim]``.

        Where ``out_dim`` is more than one, it is the number of an agent's choices, each of which gets a value: the own
        action is zeros then.

        Args:
            observation: ``[B, n, o]``; ``o`` is 0 where observations are not read.
            state: ``[B, s]``; ``s`` is 0 where there is none.
            action: features of the joint action, ``[B, n, a]``.
        """


@runtime_checkable
class GroupBackbone(Protocol):
    """One for several groups of agents: ``forward`` and ``candidates`` take :class:`Others` as ``others``."""

    def messages(self, observation: Tensor, action: Tensor) -> Tensor:
        """What the agents show to those of other groups, added up, ``[B, hidden_dim]``."""


def own_values(
    backbone: Backbone, observation: Tensor, state: Tensor, action: Tensor, own: Tensor
) -> Tensor:
    """Values ``[B, n, K, out_dim]`` of own actions ``[B, n, K, a]``, each put into a copy of the joint action."""
    batch, n, num_candidates, _ = own.shape
    mine = torch.eye(n, dtype=torch.bool, device=own.device).reshape(1, n, 1, n, 1)
    joint = torch.where(mine, own.unsqueeze(-2), action[:, None, None])  # [B, n, K, n, a]
    copies = n * num_candidates
    values = backbone(
        observation.repeat_interleave(copies, 0),
        state.repeat_interleave(copies, 0),
        joint.flatten(0, 2),
    )
    values = values.reshape(batch, n, num_candidates, n, -1)
    return values.diagonal(dim1=1, dim2=3).movedim(-1, 1)


class AgentLinear(nn.Module):
    """Linear layer on ``[B, n, K, in]``, its weights shared by the agents or a set for each.

    With ``identity`` a shared layer still has a bias for each agent, which is what a one-hot
    identity among its inputs amounts to.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        num_agents: int,
        share_params: bool,
        bias: bool = True,
        identity: bool = False,
    ) -> None:
        super().__init__()
        bound = 1 / math.sqrt(max(in_dim, 1))
        sets = 1 if share_params else num_agents
        self.weight = nn.Parameter(torch.empty(sets, out_dim, in_dim).uniform_(-bound, bound))
        biases = torch.empty(num_agents if identity else sets, 1, out_dim).uniform_(-bound, bound)
        self.bias = nn.Parameter(biases) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply each agent's layer, ``[B, n, K, in]`` to ``[B, n, K, out]``; n may be 1 for the team."""
        if self.weight.shape[0] > 1:
            x = torch.einsum("bnki,noi->bnko", x.expand(-1, len(self.weight), -1, -1), self.weight)
        elif self.bias is not None and self.bias.shape[0] == 1:
            return nn.functional.linear(x, self.weight[0], self.bias[0, 0])
        else:
            x = nn.functional.linear(x, self.weight[0])
        return x if self.bias is None else x + self.bias


class PooledBackbone(nn.Module):
    r"""Embeds each agent's observation and action, and hands each the mean over the team.

    .. math::
        z_j(a) = \phi(o_j, a, j), \qquad
        Q_i(s, a) = \rho\Big(z_i(a^i) + M\, \tfrac{1}{n}\textstyle\sum_j \sigma\big(z_j(a^j)\big)
        + S s\Big)

    Linear in the number of agents, with one layer evaluated once for the team; a candidate embeds one
    agent again and moves the mean by an n-th of the difference. Where all own actions are valued at
    once, the own action is blank in both terms. Agents of other groups, whose networks embed them, enter
    the mean with their messages :math:`\sigma(z_j)`. (Zaheer et al., "Deep Sets", NeurIPS 2017, section 3.)
    """

    def __init__(
        self, sizes: Sizes, *, share_params: bool = True, activation: type[nn.Module] = nn.Tanh
    ) -> None:
        super().__init__()
        linear = partial(AgentLinear, num_agents=sizes.num_agents, share_params=share_params)
        self.observation = linear(sizes.observation_dim, sizes.hidden_dim, identity=True)
        self.action = linear(sizes.action_dim, sizes.hidden_dim, bias=False)
        self.activation = activation()
        self.own = linear(sizes.hidden_dim, sizes.hidden_dim)
        self.team = linear(sizes.hidden_dim, sizes.hidden_dim, bias=False)
        self.state = linear(sizes.state_dim, sizes.hidden_dim, bias=False)
        self.tail = nn.Sequential(activation(), linear(sizes.hidden_dim, sizes.out_dim))

    @property
    def last(self) -> nn.Module:
        """The layer whose weights and biases scale the output."""
        return self.tail[-1]

    def embed(self, observed: Tensor, actions: Tensor) -> Tensor:
        """An agent as it sees itself, ``[B, n, K, h]``, with each of K actions."""
        # in place: of candidates these are the largest tensors there are
        return self.own(self.activation(self.action(actions).add_(observed)))

    def messages(self, observation: Tensor, action: Tensor) -> Tensor:
        """What the agents show to those of other groups, added up, ``[B, h]``."""
        observed = self.observation(observation.unsqueeze(-2))
        return self.activation(self.embed(observed, action.unsqueeze(-2))).sum((1, 2))

    def forward(
        self, observation: Tensor, state: Tensor, action: Tensor, others: Others | None = None
    ) -> Tensor:
        """Values of the joint action, ``[B, n, out_dim]``."""
        return self.candidates(observation, state, action, None, others).squeeze(-2)

    def candidates(
        self,
        observation: Tensor,
        state: Tensor,
        action: Tensor,
        own: Tensor | None,
        others: Others | None = None,
    ) -> Tensor:
        """Values of the own actions, ``[B, n, K, out_dim]``, or of the one taken where none are given."""
        observed = self.observation(observation.unsqueeze(-2))
        mine = self.embed(observed, action.unsqueeze(-2))
        messages = self.activation(mine)
        mean, num_agents = messages.mean(1, keepdim=True), action.shape[1]
        if others is not None:
            num_agents += others.num_agents
            shown = others.messages[:, None, None]
            mean = (messages.sum(1, keepdim=True) + shown) / num_agents
        context = self.team(mean if own is None else mean - messages / num_agents)
        if state.shape[-1]:
            context = context + self.state(state[:, None, None])
        if own is None:
            return self.tail(mine + context)
        mine = self.embed(observed, own)
        moved = self.team(self.activation(mine))
        return self.tail(torch.add(mine, moved, alpha=1 / num_agents).add_(context))


class ConcatBackbone(nn.Module):
    r"""Everything concatenated, the own action apart: :math:`Q_i = f(o, s, a^{-i}, i, a^i)`.

    The inputs of COMA's critic. (Foerster et al., "Counterfactual Multi-Agent Policy Gradients",
    AAAI 2018, section 4.)
    """

    def __init__(
        self, sizes: Sizes, *, share_params: bool = True, activation: type[nn.Module] = nn.Tanh
    ) -> None:
        super().__init__()
        linear = partial(AgentLinear, num_agents=sizes.num_agents, share_params=share_params)
        inputs = sizes.num_agents * (sizes.observation_dim + sizes.action_dim) + sizes.state_dim
        self.context = linear(inputs, sizes.hidden_dim, identity=True)
        self.own = linear(sizes.action_dim, sizes.hidden_dim, bias=False)
        self.tail = nn.Sequential(
            activation(),
            linear(sizes.hidden_dim, sizes.hidden_dim),
            activation(),
            linear(sizes.hidden_dim, sizes.out_dim),
        )

    @property
    def last(self) -> nn.Module:
        """The layer whose weights and biases scale the output."""
        return self.tail[-1]

    def forward(self, observation: Tensor, state: Tensor, action: Tensor) -> Tensor:
        """Values of the joint action, ``[B, n, out_dim]``."""
        return self.candidates(observation, state, action, None).squeeze(-2)

    def candidates(
        self, observation: Tensor, state: Tensor, action: Tensor, own: Tensor | None
    ) -> Tensor:
        """Values of the own actions, ``[B, n, K, out_dim]``, or of the one taken where none are given."""
        n = action.shape[1]
        others = ~torch.eye(n, dtype=torch.bool, device=action.device).unsqueeze(-1)
        others_action = (action.unsqueeze(1) * others).flatten(-2)  # [B, n, n * a]
        shared = torch.cat([observation.flatten(1), state], -1)
        shared = shared.unsqueeze(1).expand(-1, n, -1)
        context = self.context(torch.cat([shared, others_action], -1).unsqueeze(-2))
        return self.tail(context + self.own(action.unsqueeze(-2) if own is None else own))


def find_backbone(backbone: str | Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """What makes a backbone: that of a name, or of one's own.

    Raises:
        ValueError: for another name.
        TypeError: for a module in place of what makes it.
    """
    named = {"pooled": PooledBackbone, "concat": ConcatBackbone}
    if isinstance(backbone, str) and backbone in named:
        return named[backbone]
    if isinstance(backbone, str) or not callable(backbone):
        raise ValueError(
            f"backbone must be one of {sorted(named)}, or a function of sizes that makes a module, got {backbone!r}."
        )
    if isinstance(backbone, nn.Module):
        raise TypeError(
            f"backbone must make a module, and is a {type(backbone).__name__} itself: give its class, or a function "
            "(sizes, share_params=..., activation=...) that returns it."
        )
    return backbone
