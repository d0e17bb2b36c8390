"""Networks of a team: from observations to what every agent is given."""

from __future__ import annotations

from typing import Any

from torch import Size, Tensor, nn
from torchrl.modules import MLP, MultiAgentMLP


def team_network(
    observations: Size, num_outputs: int, *, centralized: bool, share_params: bool, **sizes: Any
) -> nn.Module:
    """An MLP on the observations of a team, ``[*B, n, o]`` to ``[*B, n, num_outputs]``.

    Shared parameters make a plain MLP, which can be compiled as a whole; TorchRL's ``MultiAgentMLP``,
    taken where each agent has its own, cannot.

    Args:
        observations: shape of the observations, ``[n, o]``.
        num_outputs: of every agent.
        centralized: whether all observations are read, or the own one.
        share_params: whether one network serves all agents. A centralized one then has one output
            for the team.
        **sizes: of TorchRL's :class:`~torchrl.modules.MLP`, such as ``depth`` and ``num_cells``.

    Example:
        >>> import torch
        >>> from torchrl_ob._networks import team_network
        >>> sizes = {"depth": 1, "num_cells": 8}
        >>> net = team_network(torch.Size([3, 4]), 2, centralized=True, share_params=True, **sizes)
        >>> net(torch.zeros(5, 3, 4)).shape
        torch.Size([5, 3, 2])
    """
    num_agents, size = observations
    if not share_params:
        return MultiAgentMLP(
            size, num_outputs, num_agents, centralized=centralized, share_params=False, **sizes
        )
    if centralized:
        return _ForTheTeam(MLP(num_agents * size, num_outputs, **sizes))
    return MLP(size, num_outputs, **sizes)


class _ForTheTeam(nn.Module):
    """One output of all observations ``[*B, n, o]``, for each agent ``[*B, n, outputs]``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, observations: Tensor) -> Tensor:
        output = self.net(observations.flatten(-2)).unsqueeze(-2)
        return output.expand(*observations.shape[:-1], -1)
