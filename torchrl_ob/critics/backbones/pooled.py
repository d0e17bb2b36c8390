"""An embedding of each agent, and the mean over the others."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from torchrl_ob.critics.backbones.layers import AgentLinear, TailedBackbone
from torchrl_ob.critics.backbones.protocol import Others, Sizes

__all__ = ["PooledBackbone"]


class PooledBackbone(TailedBackbone):
    r"""Embeds each agent's observation and action, and gives each agent the mean over the team.

    .. math::
        z_j(a) = \phi(o_j, a, j), \qquad
        Q_i(s, a) = \rho\Big(z_i(a^i) + M\, \tfrac{1}{n}\textstyle\sum_j \sigma\big(z_j(a^j)\big)
        + S s\Big)

    The cost is linear in the number of agents, with one layer evaluated once for the team. For a candidate, one agent
    is embedded again, and the mean moves by 1/n of the difference. When all own actions are valued at once, the
    agent's own action is blank in both terms. Agents of other groups, whose networks embed them, enter the mean with
    their messages :math:`\sigma(z_j)`. (Zaheer et al., "Deep Sets", NeurIPS 2017, section 3.)
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
        """The embedding of each agent, ``[B, n, K, h]``, with each of K actions."""
        # in place: of candidates these are the largest tensors there are
        return self.own(self.activation(self.action(actions).add_(observed)))

    def messages(self, observation: Tensor, action: Tensor) -> Tensor:
        """Sum of the agents' messages to agents of other groups, ``[B, h]``."""
        observed = self.observation(observation.unsqueeze(-2))
        return self.activation(self.embed(observed, action.unsqueeze(-2))).sum((1, 2))

    def candidates(
        self,
        observation: Tensor,
        state: Tensor,
        action: Tensor,
        own: Tensor | None,
        others: Others | None = None,
    ) -> Tensor:
        """Values of own actions, ``[B, n, K, out_dim]``, or of the action taken if none are given."""
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
