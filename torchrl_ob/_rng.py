"""Separate random numbers, without a trace in those of training."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torchrl.checkpoint import GlobalRNGState
from torchrl.envs import EnvBase


@contextmanager
def isolated_rng(seed: int | None = None, env: EnvBase | None = None) -> Iterator[None]:
    """Leave the random states of torch, numpy and python, and of VMAS, as they were before the block.

    Args:
        seed: of the generators of torch, numpy and python within the block; by default they go on.
        env: an environment. VMAS keeps one random state for all of its environments, which is found here.

    Example:
        >>> import torch
        >>> from torchrl_ob._rng import isolated_rng
        >>> before = torch.get_rng_state()
        >>> with isolated_rng(seed=1):
        ...     _ = torch.rand(2)
        >>> torch.get_rng_state().equal(before)
        True
    """
    vmas_state = getattr(find_simulator(env), "vmas_random_state", [])
    of_vmas, generators, used = list(vmas_state), GlobalRNGState(), torch.cuda.is_initialized()
    saved = generators.state_dict()
    try:
        if seed is not None:
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            random.seed(seed)
        yield
    finally:
        generators.load_state_dict(saved)
        if not used:  # GPUs that are first used in the block, or later, start from the CPU's seed
            torch.cuda.manual_seed_all(torch.initial_seed())
        vmas_state[:] = of_vmas


def find_simulator(env: EnvBase | None) -> Any:
    """What TorchRL's wrapper, or the one that transforms are around, wraps; ``None`` where it wraps nothing."""
    # not by getattr: a ParallelEnv claims to have whatever it is asked for
    return vars(getattr(env, "base_env", env)).get("_env") if env is not None else None
