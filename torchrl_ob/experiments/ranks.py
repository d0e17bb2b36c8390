"""The ranks of a run that ``torchrun`` starts: each collects a share of every batch, and all take the same steps.

Everything here does nothing, or returns what it is given, in a run of one process.
"""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from omegaconf import DictConfig
from torch import Tensor, nn

from torchrl_ob.experiments.errors import ExperimentError, first_line

__all__ = [
    "OfEachRank",
    "any_rank",
    "average_gradients",
    "copy_weights",
    "count_ranks",
    "gather",
    "is_first",
    "joined",
    "mean_over_ranks",
    "mean_tensor",
    "rank",
    "said_by_first",
    "share_config",
    "standardize",
    "to_own_device",
]

Said = TypeVar("Said")

SHARED = ("env.num_envs", "collector.frames_per_batch", "trainer.minibatch_size")
"""The sizes of which each rank has its share."""


def rank() -> int:
    """Which of the ranks this process is."""
    return int(os.environ["RANK"]) if dist.is_torchelastic_launched() else 0


def count_ranks() -> int:
    """How many ranks the run has."""
    return int(os.environ["WORLD_SIZE"]) if dist.is_torchelastic_launched() else 1


def is_first() -> bool:
    """Whether this process evaluates, logs, prints and saves."""
    return rank() == 0


@contextmanager
def joined(timeout: float) -> Iterator[None]:
    """Meet the other ranks, where there are any and the caller has not, and part from them at the end.

    Args:
        timeout: seconds that a rank waits for another.

    Raises:
        ExperimentError: where they do not meet, and where this machine has no GPU for the rank.
    """
    if not dist.is_torchelastic_launched() or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available():
        place, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= gpus:
            raise ExperimentError(
                f"rank {place} of this machine has no GPU, of which there are {gpus}: take --nproc-per-node={gpus}, or "
                "CUDA_VISIBLE_DEVICES= with device=cpu."
            )
        torch.cuda.set_device(place)
    with _with_others():
        dist.init_process_group(timeout=timedelta(seconds=timeout))
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _with_others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # whatever the backend raises
        reason = first_line(error).split(". ")[0]  # without advice for who wrote the backend
        raise ExperimentError(
            f"rank {rank()} lost the others ({reason}): one has ended, with a message of its own, or was waited "
            "for longer than rank_timeout. Go on from the last checkpoint with resume=auto."
        ) from error


def share_config(config: DictConfig) -> DictConfig:
    """The config of this rank's environments: its share of the sizes, and a seed of its own.

    Args:
        config: of the run. The first rank keeps its seed.
    """
    own = copy.deepcopy(config)
    for key in SHARED:
        group, name = key.split(".")
        own[group][name] //= count_ranks()
    if not is_first():
        own.seed = int(np.random.SeedSequence([config.seed, rank()]).generate_state(1)[0])
    return own


def copy_weights(module: nn.Module) -> None:
    """Have every rank begin with the first one's parameters and buffers."""
    if dist.is_initialized():
        with _with_others():
            for tensor in (*module.parameters(), *module.buffers()):
                dist.broadcast(tensor.detach(), 0)


def average_gradients(gradients: Sequence[Tensor]) -> None:
    """Give every rank the mean of all ranks' gradients, in place; they travel as one tensor."""
    if count_ranks() == 1:
        return
    flat = mean_tensor(torch.cat([x.flatten() for x in gradients]))
    for gradient, part in zip(gradients, flat.split([x.numel() for x in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def mean_tensor(tensor: Tensor) -> Tensor:
    """The mean over ranks, in place."""
    with _with_others():
        dist.all_reduce(tensor)
    return tensor.div_(count_ranks())


def standardize(
    advantage: Tensor, active: Tensor | None = None, exclude_dims: Sequence[int] = ()
) -> Tensor:
    """TorchRL's normalization of the advantages of a minibatch, by mean and deviation over all ranks.

    Args:
        advantage: of this rank's minibatch, ``[N, n, 1]``.
        active: which agents take part, ``[N, n]``; the others do not count.
        exclude_dims: dimensions that are normalized apart.

    Returns:
        The same shape.
    """
    apart = {x % advantage.ndim for x in exclude_dims}
    dims = [x for x in range(advantage.ndim) if x not in apart]
    mask = torch.ones_like(advantage) if active is None else active.to(advantage).unsqueeze(-1)
    mask = mask.expand_as(advantage)

    def total(values: Tensor) -> Tensor:
        return mean_tensor(values.sum(dims, keepdim=True)) * count_ranks()

    count = total(mask).clamp_min(1)
    rest = advantage - total(advantage * mask) / count
    squares = total(rest.square() * mask)
    if active is None:
        return rest / (squares / (count - 1)).sqrt().clamp_min(torch.finfo(torch.float).resolution)
    return rest / (squares / count).sqrt().clamp_min(1e-4)


def mean_over_ranks(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as means over the ranks that have them."""
    if not dist.is_initialized():
        return dict(numbers)
    found: list[Any] = [None] * count_ranks()
    with _with_others():
        dist.all_gather_object(found, dict(numbers))
    names = dict.fromkeys(name for each in found for name in each)
    return {name: float(np.mean([x[name] for x in found if name in x])) for name in names}


def any_rank(flag: bool) -> bool:
    """Whether it is so on any rank; asked on all of them."""
    return bool(mean_over_ranks({"flag": flag})["flag"])


def said_by_first(value: Said) -> Said:
    """The first rank's value, on every rank."""
    if not dist.is_initialized():
        return value
    found = [value]
    with _with_others():
        dist.broadcast_object_list(found, 0)
    return found[0]


def gather(state: Any) -> list[Any]:
    """On the first rank the states of all, in their order; on others nothing.

    Args:
        state: what ``torch.load(weights_only=True)`` reads. Tensors of a GPU come to the first rank's.
    """
    file = io.BytesIO()
    torch.save(state, file)
    found: list[Any] | None = [None] * count_ranks() if is_first() else None
    with _with_others():
        dist.gather_object(file.getvalue(), found)
    return [
        torch.load(io.BytesIO(x), weights_only=True, map_location=to_own_device)
        for x in found or ()
    ]


def to_own_device(storage: Any, place: str) -> Any:
    """Where ``torch.load`` puts a tensor of the CPU, and of another rank's GPU."""
    return storage if place == "cpu" else storage.cuda()


class OfEachRank:
    """Parts of which each rank has its own, in one state.

    Args:
        **parts: loaded in this order.
    """

    def __init__(self, **parts: Any) -> None:
        self.parts = parts

    def state_dict(self) -> dict[str, Any]:
        """Of all ranks; each must ask for it, and the first gets it."""
        return {"ranks": gather({name: part.state_dict() for name, part in self.parts.items()})}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take this rank's."""
        for name, part in self.parts.items():
            part.load_state_dict(state_dict["ranks"][rank()][name])
