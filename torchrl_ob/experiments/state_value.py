"""The state-value critic that TorchRL's GAE asks, built from an environment's specs."""

from __future__ import annotations

from typing import Any

from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.envs import EnvBase
from torchrl.modules import MLP, MultiAgentMLP
from torchrl.objectives.value import MultiAgentGAE

__all__ = ["multi_agent_gae", "state_value_from_env"]


def state_value_from_env(
    env: EnvBase,
    *,
    group: str = "agents",
    centralized: bool = True,
    share_params: bool = True,
    depth: int = 2,
    num_cells: int = 256,
    activation_class: type[nn.Module] = nn.Tanh,
) -> TensorDictModule:
    """V(s) of every agent from all observations, or V(o) from its own where not ``centralized``.

    Args:
        env: the environment, with ``(group, "observation")`` ``[n, o]``.
        group: name of the group of agents.
        centralized: whether the critic sees every agent's observation (MAPPO) or one (IPPO).
        share_params: whether one network serves all agents. A centralised one then has one value
            for the team.
        depth: number of hidden layers.
        num_cells: width of the hidden layers.
        activation_class: activation function.

    Returns:
        A module that writes ``(group, "state_value")`` ``[*B, n, 1]``.

    Example:
        >>> from torchrl.envs import VmasEnv  # needs vmas
        >>> from torchrl_ob.experiments.state_value import state_value_from_env
        >>> env = VmasEnv("navigation", num_envs=2, n_agents=3)
        >>> state_value_from_env(env)(env.reset())["agents", "state_value"].shape
        torch.Size([2, 3, 1])
    """
    observation = env.observation_spec_unbatched[group, "observation"]
    num_agents, size = observation.shape
    sizes: dict[str, Any] = {
        "depth": depth,
        "num_cells": num_cells,
        "activation_class": activation_class,
        "device": env.device,
    }
    net: nn.Module
    if not share_params:
        net = MultiAgentMLP(
            size, 1, num_agents, centralized=centralized, share_params=False, **sizes
        )
    elif centralized:
        net = _TeamValue(MLP(num_agents * size, 1, **sizes))
    else:
        net = MLP(size, 1, **sizes)
    return TensorDictModule(net, [(group, "observation")], [(group, "state_value")])


class _TeamValue(nn.Module):
    """One value of all observations ``[*B, n, o]``, for each agent ``[*B, n, 1]``."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, observations: Tensor) -> Tensor:
        value = self.net(observations.flatten(-2)).unsqueeze(-2)
        return value.expand(*observations.shape[:-1], 1)


def multi_agent_gae(*, actor_network: Any, value_network: Any, **options: Any) -> MultiAgentGAE:
    """TorchRL's GAE, called as the advantages of the joint action are: it needs no actor."""
    return MultiAgentGAE(value_network=value_network, **options)
