"""The interface of a network of the joint critic, and the evaluation of alternative own actions by any network."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from torchrl_ob.critics.substitution import put_own_actions

__all__ = ["Backbone", "GroupBackbone", "Others", "Sizes", "own_values"]


class Others(NamedTuple):
    """Messages of the agents of other groups to a group: their sum ``[B, h]``, and the number of agents."""

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
    """The interface of a network of the critic: a module that values the joint action.

    :class:`~torchrl_ob.JointQCritic` accepts a function ``backbone(sizes, share_params=..., activation=...)`` that
    makes such a module, for example its class. If the network has only ``forward``, alternative own actions are
    substituted into copies of its input. To value them without evaluating the rest again, add
    ``candidates(observation, state, action, own)``, from own actions ``[B, n, K, a]`` to values
    ``[B, n, K, out_dim]``; see :class:`PooledBackbone`.
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
    """A backbone for several groups: ``forward`` and ``candidates`` accept :class:`Others` as ``others``."""

    def messages(self, observation: Tensor, action: Tensor) -> Tensor:
        """Sum of the agents' messages to agents of other groups, ``[B, hidden_dim]``."""


def own_values(
    backbone: Backbone, observation: Tensor, state: Tensor, action: Tensor, own: Tensor
) -> Tensor:
    """Values ``[B, n, K, out_dim]`` of own actions ``[B, n, K, a]``, each put into a copy of the joint action."""
    batch, n, num_candidates, _ = own.shape
    joint, copies = put_own_actions(action, own).flatten(0, 2), n * num_candidates
    observation, state = (x.repeat_interleave(copies, 0) for x in (observation, state))
    values = backbone(observation, state, joint)
    values = values.reshape(batch, n, num_candidates, n, -1)
    return values.diagonal(dim1=1, dim2=3).movedim(-1, 1)
