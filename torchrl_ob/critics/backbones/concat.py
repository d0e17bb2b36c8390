"""Everything concatenated."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from torchrl_ob.critics.backbones.layers import AgentLinear, TailedBackbone
from torchrl_ob.critics.backbones.protocol import Sizes

__all__ = ["ConcatBackbone"]


class ConcatBackbone(TailedBackbone):
    r"""All inputs concatenated, with the agent's own action apart: :math:`Q_i = f(o, s, a^{-i}, i, a^i)`.

    The inputs of COMA's critic. (Foerster et al., "Counterfactual Multi-Agent Policy Gradients",
    AAAI 2018, section 4.)
    """

    def __init__(
        self, sizes: Sizes, *, share_params: bool = True, activation: type[nn.Module] = nn.Tanh
    ) -> None:
        super().__init__()
        linear = partial(AgentLinear, num_agents=sizes.num_agents, share_params=share_params)
        inputs = sizes.num_agents * (sizes.observation_dim + sizes.action_dim) + sizes.state_dim
        width = sizes.hidden_dim
        self.context = linear(inputs, width, identity=True)
        self.own = linear(sizes.action_dim, width, bias=False)
        self.tail = nn.Sequential(
            activation(), linear(width, width), activation(), linear(width, sizes.out_dim)
        )

    def candidates(
        self, observation: Tensor, state: Tensor, action: Tensor, own: Tensor | None
    ) -> Tensor:
        """Values of own actions, ``[B, n, K, out_dim]``, or of the action taken if none are given."""
        n = action.shape[1]
        others = ~torch.eye(n, dtype=torch.bool, device=action.device).unsqueeze(-1)
        others_action = (action.unsqueeze(1) * others).flatten(-2)  # [B, n, n * a]
        shared = torch.cat([observation.flatten(1), state], -1)
        shared = shared.unsqueeze(1).expand(-1, n, -1)
        context = self.context(torch.cat([shared, others_action], -1).unsqueeze(-2))
        return self.tail(context + self.own(action.unsqueeze(-2) if own is None else own))
