"""What a critic that remembers must be, and how a batch is encoded by it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from tensordict import TensorDictBase, unravel_key
from tensordict.nn import TensorDictModuleBase

from torchrl_ob._checks.batch import select

__all__ = ["HistoryCritic", "encode_history", "find_head"]


@runtime_checkable
class HistoryCritic(Protocol):
    """A critic whose value depends on the steps before.

    ``encode`` is called once for a batch. After it the advantages ask the ``head`` alone, about any actions: it is a critic of single steps.
    In a loss the critic itself is called, as every network of TorchRL's losses.
    """

    head: TensorDictModuleBase

    def encode(self, tensordict: TensorDictBase) -> TensorDictBase:
        """A copy of trajectories ``[*B, T]`` with what the head reads, of every step and, under ``"next"``, of its next state."""


def find_head(critic: TensorDictModuleBase) -> TensorDictModuleBase:
    """The critic of single steps: the critic itself, or the head of one that remembers.

    Raises:
        TypeError: for a critic that encodes a history and has no head.
    """
    if not hasattr(critic, "encode"):
        return critic
    if not isinstance(critic, HistoryCritic):
        raise TypeError(
            f"{type(critic).__name__} has a method encode and no head: name as `head` the critic of single steps that reads "
            "what is encoded."
        )
    return critic.head


def encode_history(
    critic: TensorDictModuleBase, tensordict: TensorDictBase, time_dim: int
) -> TensorDictBase:
    """The batch as a critic that remembers encodes it; that of any other critic is the batch itself.

    Raises:
        KeyError: where what the head reads is left out.
    """
    head = find_head(critic)
    if head is critic:
        return tensordict
    encoded = critic.encode(tensordict.transpose(time_dim, -1)).transpose(time_dim, -1)
    given = list(map(unravel_key, critic.in_keys))
    new = [key for key in map(unravel_key, head.in_keys) if key not in given]
    following = [unravel_key(("next", key)) for key in new]
    select(encoded, [*new, *following], f"after {type(critic).__name__}.encode, the head")
    return encoded
