"""The interface of a critic that remembers, and the encoding of a batch by it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from tensordict import TensorDictBase, unravel_key
from tensordict.nn import TensorDictModuleBase

from torchrl_ob._checks.batch import require_entries

__all__ = ["HistoryCritic", "encode_history", "find_head"]


@runtime_checkable
class HistoryCritic(Protocol):
    """A critic whose value depends on earlier steps.

    ``encode`` is called once for a batch. The advantages then call only the ``head``, a critic of single steps, with
    any actions. A loss calls the critic itself, as TorchRL's losses call every network.
    """

    head: TensorDictModuleBase

    def encode(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Copy trajectories ``[*B, T]`` and add the head's inputs, for every step and its next state."""


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
        KeyError: if what the head reads is left out.
    """
    head = find_head(critic)
    if head is critic:
        return tensordict
    encoded = critic.encode(tensordict.transpose(time_dim, -1)).transpose(time_dim, -1)
    given = list(map(unravel_key, critic.in_keys))
    new = [key for key in map(unravel_key, head.in_keys) if key not in given]
    following = [unravel_key(("next", key)) for key in new]
    reader = f"after {type(critic).__name__}.encode, the head"
    require_entries(encoded, [*new, *following], reader)
    return encoded
