"""TorchRL's GAE, and the state value that it needs, built from an environment's specs."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import nn
from torchrl.envs import EnvBase
from torchrl.modules import set_recurrent_mode
from torchrl.objectives.value import MultiAgentGAE

from torchrl_ob._networks import team_network
from torchrl_ob._specs import Group, group_key, read_observation
from torchrl_ob.critics.history import find_head

__all__ = ["multi_agent_gae", "state_value_from_env"]


def state_value_from_env(
    env: EnvBase,
    *,
    group: Group = "agents",
    observation_key: NestedKey | None = None,
    centralized: bool = True,
    share_params: bool = True,
    depth: int = 2,
    num_cells: int = 256,
    activation_class: type[nn.Module] = nn.Tanh,
) -> TensorDictModule:
    """V(s) of every agent from all observations, or V(o) from its own where not ``centralized``.

    A group of agents has a state value of its own, from the observations of that group.

    Args:
        env: the environment, with ``(group, "observation")`` ``[n, o]``.
        group: name of the group of agents.
        observation_key: where the observation is, as in :func:`~torchrl_ob.policies.policy_from_env`.
        centralized: whether the critic reads every agent's observation (MAPPO) or one (IPPO).
        share_params: whether one network serves all agents. A centralized one then has one value
            for the team.
        depth: number of hidden layers.
        num_cells: width of the hidden layers.
        activation_class: activation function.

    Returns:
        A module that writes ``(group, "state_value")`` ``[*B, n, 1]``.

    Raises:
        KeyError: where the environment has no such group.
        TypeError: for observations of another kind.
        ValueError: for those of another shape.

    Example:
        >>> from torchrl.envs import VmasEnv  # needs vmas
        >>> from torchrl_ob.experiments.gae import state_value_from_env
        >>> env = VmasEnv("navigation", num_envs=2, n_agents=3)
        >>> state_value_from_env(env)(env.reset())["agents", "state_value"].shape
        torch.Size([2, 3, 1])
    """
    key, spec = read_observation(env, group, observation_key)
    kind = {"centralized": centralized, "share_params": share_params}
    sizes: Any = {"depth": depth, "num_cells": num_cells, "activation_class": activation_class}
    net = team_network(spec.shape, 1, **kind, **sizes, device=env.device)
    return TensorDictModule(net, [key], [group_key(group, "state_value")])


def multi_agent_gae(
    *, actor_network: Any, value_network: Any, other_actors: Any = (), **options: Any
) -> MultiAgentGAE:
    """TorchRL's GAE, called as the advantages of the joint action are: it needs no actors."""
    head = find_head(value_network)
    if head is not value_network:
        return HistoryGAE(value_network, head, **options)
    return MultiAgentGAE(value_network=value_network, **options)


multi_agent_gae.of_joint_action = False  # type: ignore[attr-defined]  # it takes V(s)


class HistoryGAE(MultiAgentGAE):
    """TorchRL's GAE with a critic that remembers, whose history is encoded once for a batch.

    Args:
        critic: with a method ``encode``, such as a :class:`~torchrl_ob.RecurrentCritic`.
        head: the critic of single steps on what it encodes.
        **options: of TorchRL's GAE.
    """

    def __init__(self, critic: Any, head: TensorDictModuleBase, **options: Any) -> None:
        super().__init__(value_network=head, **options)
        self.encode = critic.encode

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write advantage and value target, each ``[*B, T, n, 1]``."""
        with torch.no_grad():
            encoded = self.encode(tensordict)
        with set_recurrent_mode(False):
            found = super().forward(encoded)
        keys = self.tensor_keys
        return tensordict.update(found.select(keys.advantage, keys.value_target))
