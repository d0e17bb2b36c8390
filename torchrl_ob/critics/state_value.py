"""V(s) by the networks of the joint critic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensordict import TensorDictBase, unravel_key
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import nn
from torchrl.envs import EnvBase
from torchrl.modules import ValueNorm

from torchrl_ob._checks.batch import sibling
from torchrl_ob._specs import Group
from torchrl_ob.critics._inputs import input_shapes, read_sizes, read_states
from torchrl_ob.critics._value_norm import denormalize, require_value_norm
from torchrl_ob.critics.backbones import Sizes, find_backbone

__all__ = ["StateValue", "state_sizes"]


class StateValue(TensorDictModuleBase):
    r"""State value :math:`V_i(s)` of every agent: a :class:`~torchrl_ob.JointQCritic` without the actions.

    It is meant for TorchRL's GAE. If V has the same backbone as Q, GAE and an advantage of the joint action differ
    only in the advantage.

    Args:
        num_agents: number of agents n.
        observation_dim: size of an agent's observation; ``None`` if only the state is read.
        state_dim: size of the global state; ``None`` if only observations are read.

    Keyword Args:
        backbone: as in :class:`~torchrl_ob.JointQCritic`.
        hidden_dim: width of the hidden layers.
        share_params: whether the agents' values come from one network, or from a network for each agent.
        activation: activation function.
        value_norm: as in :class:`~torchrl_ob.JointQCritic`.
        observation_key: where the observations are, ``[*B, n, observation_dim]``.
        state_key: where the global state is, ``[*B, state_dim]``.
        out_key: where the values are written, ``[*B, n, 1]``; by default ``"state_value"`` beside the observations.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl_ob import StateValue
        >>> critic = StateValue(num_agents=3, observation_dim=4, backbone="additive")
        >>> td = TensorDict({"agents": {"observation": torch.randn(5, 3, 4)}}, batch_size=[5])
        >>> critic(td)["agents", "state_value"].shape
        torch.Size([5, 3, 1])
    """

    def __init__(
        self,
        num_agents: int,
        observation_dim: int | None = None,
        state_dim: int | None = None,
        *,
        backbone: str | Callable[..., nn.Module] = "pooled",
        hidden_dim: int = 128,
        share_params: bool = True,
        activation: type[nn.Module] = nn.Tanh,
        value_norm: ValueNorm | None = None,
        observation_key: NestedKey = ("agents", "observation"),
        state_key: NestedKey = "state",
        out_key: NestedKey | None = None,
    ) -> None:
        super().__init__()
        read = (observation_key, observation_dim), (state_key, state_dim)
        self.state_shapes = input_shapes(num_agents, *read)
        self.in_keys = [key for key, shape in self.state_shapes.items() if shape[-1]]
        self.out_keys = [unravel_key(out_key or sibling(observation_key, "state_value"))]
        self.value_norm = require_value_norm(value_norm)
        make = find_backbone(backbone)
        sizes = Sizes(num_agents, observation_dim or 0, state_dim or 0, 0, hidden_dim, 1)
        self.backbone: Any = make(sizes, share_params=share_params, activation=activation)

    @classmethod
    def from_env(cls, env: EnvBase, *, group: Group = "agents", **kwargs: Any) -> StateValue:
        """Build the critic of a group of agents from an environment's specs.

        Args and errors are those of :meth:`JointQCritic.from_env() <torchrl_ob.JointQCritic.from_env>`.
        """
        return cls(**state_sizes(read_sizes(env, group, kwargs)))

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write V, ``[*B, n, 1]``, under ``out_keys[0]``.

        Args:
            tensordict: with the critic's inputs, of batch size ``[*B]``.
        """
        observation, state = read_states(tensordict, self.state_shapes)
        blank = observation.new_zeros(*observation.shape[:2], 0)
        values = denormalize(self.value_norm, self.backbone(observation, state, blank))
        shape = (*tensordict.batch_size, *values.shape[1:])
        return tensordict.set(self.out_keys[0], values.reshape(shape))


def state_sizes(sizes: dict[str, Any]) -> dict[str, Any]:
    """Sizes and keys of a joint critic, without those of the action."""
    of_action = ("action_dim", "action_encoding", "nvec", "action_key")
    return {name: size for name, size in sizes.items() if name not in of_action}
