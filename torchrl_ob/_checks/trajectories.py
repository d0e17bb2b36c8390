"""Where time is in a batch, which of its steps are real, and what follows them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

from torchrl_ob._checks.batch import as_flags, entry_name, require_next


def require_steps(tensordict: TensorDictBase, time_dim: int | None) -> None:
    """Refuse a batch without steps, one that is flattened, unless it is said which dimension is time, and ``torch.vmap``."""
    if tensordict.ndim == 0:
        raise ValueError(
            "the batch size is [], a single step: stack the steps of each trajectory along time, [*B, time]."
        )
    if tensordict.batch_size.numel() == 0:
        raise ValueError(
            f"the batch is empty, of batch size {list(tensordict.batch_size)}: it has no step."
        )
    if time_dim is None and tensordict.ndim == 1 and tensordict.names != ["time"]:
        raise ValueError(
            f"the batch has one dimension, {list(tensordict.batch_size)}, which is not named 'time'. Call the advantage on "
            "[*B, time], before flattening into minibatches; for a single trajectory pass time_dim=0."
        )
    leaves = () if torch.compiler.is_compiling() else tensordict.values(True, True)
    if any(torch._C._functorch.is_batchedtensor(x) for x in leaves if isinstance(x, Tensor)):
        raise TypeError(
            "an advantage takes all dimensions of a batch at once: call it without torch.vmap."
        )


def require_time_dim(time_dim: int, ndim: int) -> int:
    """The dimension of time, counted from the first.

    Raises:
        ValueError: where the batch has no such dimension; those of agents and features are none of the batch.
    """
    if not -ndim <= time_dim < ndim:
        raise ValueError(
            f"time_dim must be a dimension of the batch, from {-ndim} to {ndim - 1} here, got {time_dim}."
        )
    return time_dim % ndim


def valid_steps(tensordict: TensorDictBase, key: NestedKey) -> Tensor | None:
    """Which steps are no padding, ``[*B, T]``; ``None`` where the batch does not say so.

    Args:
        tensordict: the batch, ``[*B, T]``.
        key: of booleans ``[*B, T]`` or ``[*B, T, 1]``, as TorchRL's ``split_trajectories`` writes them.

    Raises:
        ValueError: for a mask of another shape.
        RuntimeError: where no step is valid.
    """
    mask, batch = tensordict.get(key, None), tensordict.batch_size
    if mask is None:
        return None
    if mask.shape not in (batch, (*batch, 1)):
        raise ValueError(
            f"{key!r} says which steps are no padding: expected shape {list(batch)}, got "
            f"{list(mask.shape)}. Name another with set_keys(valid=...)."
        )
    mask = as_flags(mask.reshape(batch), f"the mask {key!r}")
    torch._assert_async(mask.any(), f"all steps of the batch are padding, says {key!r}.")
    return mask


def fill_padding(tensordict: TensorDictBase, valid: Tensor, key: NestedKey) -> TensorDictBase:
    """A copy of the batch where every padded step is one of the valid steps again, but for the mask.

    What is asked of networks and distributions is then of their kind; what comes of it is to be dropped.

    Args:
        tensordict: the batch, ``[*B, T]``.
        valid: which steps are no padding, ``[*B, T]``.
        key: of the mask.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl_ob._checks.trajectories import fill_padding
        >>> valid = torch.tensor([[True, True, False]])
        >>> td = TensorDict({"scale": torch.tensor([[2.0, 3.0, 0.0]]), "mask": valid}, [1, 3])
        >>> fill_padding(td, valid, "mask")["scale"]
        tensor([[2., 3., 2.]])
    """
    first = valid.flatten().to(torch.uint8).argmax().reshape(1)

    def fill(entry: Tensor) -> Tensor:
        one = entry.flatten(0, valid.ndim - 1).index_select(0, first)
        return torch.where(_expand(valid, entry), entry, one)

    filled: TensorDictBase = tensordict.apply(fill)
    return filled.set(key, tensordict.get(key))


def following_states(
    tensordict: TensorDictBase, terminated: Tensor, keys: Iterable[NestedKey]
) -> TensorDictBase:
    """The next states; after a termination, where nothing follows, the state before it again.

    Environments leave there what they like: no available action, NaN. It is multiplied by zero in a return, but
    must not reach a network or a distribution.

    Args:
        tensordict: the batch, ``[*B, T]``.
        terminated: of every agent, ``[*B, T, n, 1]``, or of the team, ``[*B, T, 1]``.
        keys: of what is read of the next states.
    """
    over = terminated.flatten(tensordict.ndim).all(-1)
    following = require_next(tensordict)
    states = following.copy()
    for key in keys:
        before, after = tensordict.get(key, None), following.get(key, None)
        if isinstance(before, Tensor) and isinstance(after, Tensor) and before.shape == after.shape:
            states.set(key, torch.where(_expand(over, after), before, after))
    return states


def require_whole_trajectories(
    tensordict: TensorDictBase,
    done: Tensor,
    *,
    ids_key: NestedKey,
    valid: Tensor | None,
    time_dim: int,
) -> None:
    """Stop where a trajectory goes on as another one that nothing ended, such as one of another worker.

    Args:
        tensordict: the batch, ``[*B, T]``.
        done: of every agent, ``[*B, T, n, 1]``, or of the team, ``[*B, T, 1]``.
        ids_key: where the collector numbers trajectories, ``[*B, T]``.
        valid: which steps are no padding, where not all are valid.
        time_dim: which dimension is time.
    """
    ids = tensordict.get(ids_key, None)
    if ids is None or ids.shape not in (tensordict.batch_size, (*tensordict.batch_size, 1)):
        return
    ids = ids.reshape(tensordict.batch_size).movedim(time_dim, 0)
    # a collector takes a trajectory for ended where any agent is done, and marks it with a new number
    entries = require_next(tensordict).items(True, True)
    ends = [done, *(x for key, x in entries if entry_name(key) == "done")]
    ended = torch.stack([x.flatten(tensordict.ndim).bool().any(-1) for x in ends]).any(0)
    ended = ended.movedim(time_dim, 0)
    joined = (ids[1:] != ids[:-1]) & ~ended[:-1]
    if valid is not None:
        valid = valid.movedim(time_dim, 0)
        joined = joined & valid[1:] & valid[:-1]
    torch._assert_async(
        ~joined.any(),
        f"trajectories lie end to end in time: {ids_key!r} changes where nothing is done, as in the batches "
        'of several workers. Collect with cat_results=0 or "stack", or reshape to [trajectories, time].',
    )


def shift_back(flags: Tensor, time_dim: int) -> Tensor:
    """What holds of the next step, ``[*B, T]``; at the last one, what holds of itself."""
    flags = flags.movedim(time_dim, 0)
    return torch.cat([flags[1:], flags[-1:]]).movedim(0, time_dim)


def _expand(flags: Tensor, like: Tensor) -> Tensor:
    return flags.reshape(*flags.shape, *[1] * (like.ndim - flags.ndim))
