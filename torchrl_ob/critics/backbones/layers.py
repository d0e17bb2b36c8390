"""Parts that the package's backbones share: layers whose weights are shared by the agents or separate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["AgentLinear", "TailedBackbone"]


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


class TailedBackbone(nn.Module):
    """A backbone with a ``tail`` that ends in a linear layer, and a method ``candidates``."""

    tail: nn.Sequential

    def forward(self, observation: Tensor, state: Tensor, action: Tensor, **groups: Any) -> Tensor:
        """Values of the joint action, ``[B, n, out_dim]``."""
        return self.candidates(observation, state, action, None, **groups).squeeze(-2)

    def candidates(
        self, observation: Tensor, state: Tensor, action: Tensor, own: Tensor | None
    ) -> Tensor:
        """Values of own actions, ``[B, n, K, out_dim]``, or of the action taken if none are given."""
        raise NotImplementedError
