"""Reading tensordicts: what is missing, misshapen or not finite is said with key and remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tensordict import TensorDictBase, unravel_key
from tensordict.utils import NestedKey
from torch import Tensor


def entry_name(key: NestedKey) -> str:
    """What an entry is called in its group."""
    key = unravel_key(key)
    return key[-1] if isinstance(key, tuple) else key


def sibling(key: NestedKey, name: str) -> NestedKey:
    """The key of another entry in the group of ``key``; at the root where it is there."""
    key = unravel_key(key)
    group = key[:-1] if isinstance(key, tuple) else ()
    return unravel_key((*group, name))


def select(tensordict: TensorDictBase, keys: Iterable[NestedKey], reader: str) -> TensorDictBase:
    """The entries that a network reads, in a new tensordict."""
    keys = list(keys)
    require_entries(tensordict, keys, reader)
    return tensordict.select(*keys)


def require_entries(tensordict: TensorDictBase, keys: Iterable[NestedKey], reader: str) -> None:
    """Refuse a tensordict that lacks what a network reads."""
    missing = [key for key in keys if tensordict.get(key, None) is None]
    if missing:
        raise KeyError(
            f"{reader} reads {missing}, which the tensordict lacks; it has {_entries(tensordict)}. Take the networks that "
            "collected the batch, or rename with set_keys."
        )


def require_next(tensordict: TensorDictBase) -> TensorDictBase:
    """The transitions' next states."""
    if (following := tensordict.get("next", None)) is None:
        raise KeyError(
            f"the tensordict has no entry 'next', only {_entries(tensordict)}. The advantage needs "
            "a batch of transitions as TorchRL's collectors and env.rollout give."
        )
    return following


def per_agent(
    tensordict: TensorDictBase, key: NestedKey, name: str, shape: Sequence[int]
) -> Tensor:
    """A signal of every agent, ``[*B, T, n, 1]``; that of a team, ``[*B, T, 1]``, is expanded."""
    key, following = unravel_key(("next", key)), require_next(tensordict)
    signal = tensordict.get(key, None)
    if signal is None:
        raise KeyError(
            f"the {name} {key!r} is missing from 'next', which has {_entries(following)}. Name it with set_keys({name}=...): "
            "on the advantage, or on the loss after loss.make_value_estimator(advantage), which forwards no key set before."
        )
    if signal.shape == tuple(shape):
        return signal
    if signal.shape == (*tensordict.batch_size, 1):
        return signal.unsqueeze(-2).expand(*shape)
    raise ValueError(
        f"the {name} {key!r} has shape {list(signal.shape)}; expected {list(shape)}, one "
        f"for each agent, or {[*tensordict.batch_size, 1]}, one for the team."
    )


def as_flags(value: Tensor, name: str) -> Tensor:
    """Booleans, also where they are written as the numbers 0 and 1.

    Raises:
        RuntimeError: for another number.

    Example:
        >>> import torch
        >>> from torchrl_ob._checks.batch import as_flags
        >>> as_flags(torch.tensor([0.0, 1.0]), "done")
        tensor([False,  True])
    """
    if value.dtype == torch.bool:
        return value
    flags = value == 1
    torch._assert_async(
        (flags | (value == 0)).all(),
        f"{name} must be true or false, 0 or 1, and has another number ({value.dtype}).",
    )
    return flags


def require_value_per_agent(
    value: Tensor, key: NestedKey, inputs: TensorDictBase, action_key: NestedKey
) -> None:
    """Refuse a critic's output other than ``[*B, n, 1]``, n being the action's."""
    batch, action = inputs.batch_size, inputs.get(action_key)
    if action.ndim <= len(batch) or value.shape != (*action.shape[: len(batch) + 1], 1):
        raise ValueError(
            f"the critic must write [*batch, n, 1] under {key!r}, a value for every agent, and wrote {list(value.shape)}: the "
            f"action {action_key!r} has {list(action.shape)}, the batch {list(batch)}. Expand a team's value over its agents."
        )


def active_agents(
    tensordict: TensorDictBase, mask_key: NestedKey, action_key: NestedKey
) -> Tensor | None:
    """Which agents take part, ``[*B, n]``; ``None`` where nothing says so."""
    mask, expected = tensordict.get(mask_key, None), tensordict.get(action_key).shape
    expected = expected[: tensordict.ndim + 1]
    if mask is None or (mask.ndim > len(expected) and mask.shape[-1] > 1):
        return None
    if mask.shape != expected:
        raise ValueError(
            f"the mask {mask_key!r} says which agents take part: expected booleans {list(expected)}, got {mask.dtype} "
            f"{list(mask.shape)}. Name another with set_keys(mask=...)."
        )
    return as_flags(mask, f"the mask {mask_key!r}")


def check_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse what a critic reads where its shape is another."""
    if value.shape != shape:
        raise ValueError(
            f"{name} must have shape {list(shape)}, batch size included, and has {list(value.shape)}. Check the sizes and the "
            "action_encoding of the critic, and the batch size of the tensordict."
        )


def require_finite(value: Tensor, message: str) -> None:
    """Stop with the message where a value is not finite, without reading it back to the host."""
    torch._assert_async(value.isfinite().all(), message)


def _entries(tensordict: TensorDictBase) -> list[NestedKey]:
    return list(tensordict.keys(include_nested=True, leaves_only=True))
