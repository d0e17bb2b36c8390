"""Agents without any available action: dead ones, as environments mask them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Size, Tensor

from torchrl_ob._checks.batch import entry_name

__all__ = ["has_choice", "lend_a_choice"]


def lend_a_choice(params: TensorDictBase, keys: Iterable[NestedKey]) -> TensorDictBase:
    """The parameters of policies, with the first action for agents whose mask leaves none.

    An environment masks all actions of an agent that is dead. There is no distribution over none, so that a
    placeholder stands for it, and everything that comes of it is dropped.

    Args:
        params: entries of a categorical policy among others.
        keys: of the parameters of the policy: booleans are masks of available actions, ``[*B, n, A]``, and
            ``logits`` of minus infinity are masked.

    Returns:
        A copy, where there is a mask at all.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl_ob.expectations.masks import lend_a_choice
        >>> params = TensorDict({"mask": torch.tensor([[True, False], [False, False]])})
        >>> lend_a_choice(params, ["mask"])["mask"]
        tensor([[ True, False],
                [ True, False]])
    """
    lent = params.copy()
    for key in keys:
        available = _available(lent, key)
        if available is None:
            continue
        entry: Tensor = lent.get(key)
        first = torch.arange(entry.shape[-1], device=entry.device) == 0
        none = ~available.any(-1, keepdim=True) & first
        lent.set(key, none | entry if entry.dtype == torch.bool else entry.masked_fill(none, 0))
    return lent


def has_choice(
    tensordict: TensorDictBase, keys: Iterable[NestedKey], agents: Size
) -> Tensor | None:
    """Which agents have an available action, ``[*B, n]``; ``None`` where no mask is in the batch.

    Args:
        tensordict: the batch, ``[*B]``.
        keys: of the parameters of the policy; booleans ``[*B, n, A]`` are masks.
        agents: ``[*B, n]``, of the action.

    Raises:
        ValueError: for a mask of other agents.
    """
    choice = None
    for key in keys:
        mask = tensordict.get(key, None)
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.ndim <= len(agents):
            continue
        if mask.shape[: len(agents)] != agents:
            raise ValueError(
                f"the mask {key!r} has shape {list(mask.shape)}; expected {[*agents, 'choices']}, as the action has."
            )
        every = mask.any(-1).reshape(*agents, -1).all(-1)  # of all factors of an action
        choice = every if choice is None else choice & every
    return choice


def _available(params: TensorDictBase, key: NestedKey) -> Tensor | None:
    """Which actions an entry leaves available, ``[*B, n, A]``; ``None`` where it is no mask of actions."""
    entry = params.get(key, None)
    if not isinstance(entry, Tensor) or entry.ndim <= params.ndim:
        return None
    if entry.dtype == torch.bool:
        return entry
    if entry_name(key) == "logits" and entry.is_floating_point():
        return entry != -math.inf
    return None
