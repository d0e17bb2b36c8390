"""Environments that step one at a time, as one batch."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable

import torch
from torchrl.envs import EnvBase, ParallelEnv, SerialEnv

__all__ = ["batch_envs"]


def batch_envs(
    make_env: Callable[[], EnvBase],
    num_envs: int,
    *,
    seed: int,
    parallel: bool = False,
    device: torch.device | str = "cpu",
) -> EnvBase:
    """Environments as one batch, each with a seed of its own that follows from one.

    In this process they step one after the other, which is the faster way where a step takes less than
    what it costs to hand it to a process, about a millisecond: Level-Based Foraging and MuJoCo.
    To use more cores for such, take ``collector=multi_sync``, whose workers have a share each.

    Args:
        make_env: makes one of them; called once here, and in the process where it steps.
        num_envs: number of environments.
        seed: that theirs follow from.
        parallel: step each in a process of its own.
        device: where the batch is.

    Returns:
        The environments, of batch size ``[num_envs]``.

    Example:
        >>> from torchrl.envs import LBForagingEnv  # needs lbforaging
        >>> from torchrl_ob.experiments.envs.batched_envs import batch_envs
        >>> env = batch_envs(lambda: LBForagingEnv("Foraging-5x5-2p-1f-v3"), 3, seed=0)
        >>> env.reset()["agents", "observation"].shape
        torch.Size([3, 2, 9])
    """
    make_env().close()  # what is wrong is told here, not by a process among others
    env = (ParallelEnv if parallel else SerialEnv)(num_envs, make_env, device=device)
    atexit.register(_close, weakref.ref(env))  # Python waits for the processes of one that is open
    env.set_seed(seed)  # it starts them
    env.group_map = next(iter(env.group_map))  # TorchRL gives a list of theirs, which are the same
    env.het_specs = False  # one tensor holds them
    return env


def _close(env: weakref.ref[EnvBase]) -> None:
    if (still_there := env()) is not None:
        still_there.close(raise_if_closed=False)
