"""Networks that remember, in an experiment: who has a memory, and what its states need of environment and collection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig
from tensordict.nn import TensorDictSequential
from torch import nn
from torchrl.envs import EnvBase, InitTracker, Transform, TransformedEnv
from torchrl.modules.utils import get_primers_from_module

from torchrl_ob.experiments.envs.transforms import make_env

__all__ = ["acting_policy", "has_memory", "keep_states", "make_tracked_env", "primers"]


def has_memory(network: nn.Module) -> bool:
    """Whether the output of a network at a step depends on the steps before."""
    return hasattr(network, "encode") or bool(primers(network))


def primers(*networks: nn.Module) -> list[Transform]:
    """What gives an environment the states of networks that remember; nothing for others."""
    found = [get_primers_from_module(network, warn=False) for network in networks]
    return [transform for transform in found if transform is not None]


def keep_states(env: EnvBase, transforms: Iterable[Transform]) -> EnvBase:
    """The environment with these states, zero where an episode begins, and with what tells so."""
    for k, transform in enumerate(transforms):
        if k == 0 and not _is_tracked(env):
            env = env.append_transform(InitTracker())
        env = env.append_transform(transform)
    return env


def _is_tracked(env: EnvBase) -> bool:
    return isinstance(env, TransformedEnv) and any(
        isinstance(x, InitTracker) for x in env.transform
    )


def make_tracked_env(config: DictConfig, transforms: list[Transform], **options: Any) -> EnvBase:
    """:func:`make_env` with states."""
    return keep_states(make_env(config, **options), transforms)


def acting_policy(actor: nn.Module, critics: Iterable[nn.Module]) -> nn.Module:
    """What collects: the actor, with the memories of critics beside it, whose states it leaves in the batch."""
    memories = {
        id(critic.memory): critic.memory
        for critic in critics
        if has_memory(critic) and hasattr(critic, "memory")
    }
    return TensorDictSequential(actor, *memories.values()) if memories else actor
