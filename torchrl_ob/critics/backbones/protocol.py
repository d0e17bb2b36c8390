"""What a network of the joint critic must be, and how alternative own actions are put into any."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from torchrl_ob.critics.substitution import put_own_actions

__all__ = ["Backbone", "GroupBackbone", "Others", "Sizes", "own_values"]


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
    joint, copies = put_own_actions(action, own).flatten(0, 2), n * num_candidates
    observation, state = (x.repeat_interleave(copies, 0) for x in (observation, state))
    values = backbone(observation, state, joint)
    values = values.reshape(batch, n, num_candidates, n, -1)
    return values.diagonal(dim1=1, dim2=3).movedim(-1, 1)
