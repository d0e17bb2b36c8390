"""Networks of the joint critic, split where the own action enters.

Both return ``tail(context_i + own_i(a))`` for every agent and each of K own actions; ``context``,
which does not depend on the own action, is computed once for all of them. Inputs are the
observations ``[B, n, o]``, the global state ``[B, s]`` (either may have width 0), the joint action
``[B, n, a]`` and the own actions ``[B, n, K, a]``; the output is ``[B, n, K, out_dim]``.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["AgentLinear", "ConcatBackbone", "Others", "PooledBackbone", "Sizes"]


class Others(NamedTuple):
    """What agents of other groups show to a group: the sum ``[B, h]`` of their messages, and how many."""

    messages: Tensor
    num_agents: int


class Sizes(NamedTuple):
    """Number of agents, and widths of what the network reads and writes for each."""

    num_agents: int
    observation_dim: int
    state_dim: int
    action_dim: int
    hidden_dim: int
    out_dim: int


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

    def embed(self, observed: Tensor, actions: Tensor) -> Tensor:
        """An agent as it sees itself, ``[B, n, K, h]``, with each of K actions."""
        # in place: of candidates these are the largest tensors there are
        return self.own(self.activation(self.action(actions).add_(observed)))

    def messages(self, observation: Tensor, action: Tensor) -> Tensor:
        """What the agents show to those of other groups, added up, ``[B, h]``."""
        observed = self.observation(observation.unsqueeze(-2))
        return self.activation(self.embed(observed, action.unsqueeze(-2))).sum((1, 2))

    def forward(
        self,
        observation: Tensor,
        state: Tensor,
        action: Tensor,
        own: Tensor | None = None,
        others: Others | None = None,
    ) -> Tensor:
        """Values of the own actions, or of the joint action itself where none are given."""
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

    def forward(
        self, observation: Tensor, state: Tensor, action: Tensor, own: Tensor | None = None
    ) -> Tensor:
        """Values of the own actions, or of the joint action itself where none are given."""
        n = action.shape[1]
        others = ~torch.eye(n, dtype=torch.bool, device=action.device).unsqueeze(-1)
        others_action = (action.unsqueeze(1) * others).flatten(-2)  # [B, n, n * a]
        shared = torch.cat([observation.flatten(1), state], -1)
        shared = shared.unsqueeze(1).expand(-1, n, -1)
        context = self.context(torch.cat([shared, others_action], -1).unsqueeze(-2))
        return self.tail(context + self.own(action.unsqueeze(-2) if own is None else own))
