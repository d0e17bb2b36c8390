"""The state of a simulator as tensors and plain values, to write to a checkpoint and read back.

An environment that has ``simulator_state`` and ``load_simulator_state`` is asked. VMAS has no such thing:
its objects are reached through the environment that is handed in, and it is never imported.
"""

from __future__ import annotations

from enum import Enum
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchrl.envs import EnvBase

from torchrl_ob._rng import simulator_of

__all__ = ["has_simulator", "is_vmas", "load_simulator_state", "simulator_state"]

PLAIN = (bool, int, float, complex, str, bytes, type(None))
KEPT: tuple[type, ...] = (
    FunctionType,
    MethodType,
    BuiltinFunctionType,
    ModuleType,
    partial,
    type,
    Enum,
)
KEPT += (torch.device, torch.dtype, torch.Generator)  # an environment's own, built with it
ABSENT = object()


def has_simulator(env: EnvBase) -> bool:
    """Whether an environment, or the one that its transforms wrap, is VMAS's or saves itself."""
    return _saves_itself(env) or is_vmas(env)


def is_vmas(env: EnvBase) -> bool:
    """Whether an environment, or the one that its transforms wrap, is VMAS's."""
    return hasattr(simulator_of(env), "world")


def simulator_state(env: EnvBase) -> dict[str, Any]:
    """What an environment says of itself; of VMAS whatever scenario, world and entities hold.

    Args:
        env: TorchRL's ``VmasEnv``, an environment that saves itself, or a ``TransformedEnv`` of one.

    Returns:
        Tensors, numbers and strings in dictionaries and lists. What is the same object in VMAS is a
        reference to it here. With VMAS's random state, which all its environments share.

    Raises:
        TypeError: where the scenario holds something that cannot be written, by the path to it.

    Example:
        >>> from torchrl.envs.libs.vmas import VmasEnv
        >>> from torchrl_ob.experiments.simulator_state import load_simulator_state, simulator_state
        >>> env, other = (VmasEnv("navigation", num_envs=2, seed=seed) for seed in (0, 1))
        >>> _ = env.rollout(3)
        >>> load_simulator_state(other, simulator_state(env))
        >>> other.world.agents[0].state.pos.equal(env.world.agents[0].state.pos)
        True
    """
    if _saves_itself(env):
        return _base(env).simulator_state()
    simulator = simulator_of(env)
    roots = _roots(simulator)
    writer = _Writer({id(thing): name for name, thing in roots.items()})
    return {
        "objects": {name: writer.attributes(thing, name) for name, thing in roots.items()},
        "steps": simulator.steps.clone(),
        "random": writer.value(simulator.vmas_random_state, "random"),
    }


def load_simulator_state(env: EnvBase, state: dict[str, Any]) -> None:
    """Put an environment, built with the same arguments, into a state that was written.

    Args:
        env: the environment; VMAS's takes a step, so that it has whatever is made on first use.
        state: from :func:`simulator_state`.

    Raises:
        ValueError: where the state is that of another environment, by the path to the difference.
    """
    if _saves_itself(env):
        _base(env).load_simulator_state(state)
        return
    simulator = simulator_of(env)
    env.step(env.rand_action(env.reset()))
    roots = _roots(simulator)
    if roots.keys() != state["objects"].keys():
        raise ValueError(f"the state has {list(state['objects'])}, the scenario {list(roots)}.")
    reader = _Reader(dict(roots))
    for name, thing in roots.items():
        reader.attributes(thing, state["objects"][name], name)
    simulator.steps = state["steps"].to(simulator.steps.device)
    reader.value(state["random"], simulator.vmas_random_state, "random")


def _base(env: EnvBase) -> Any:
    return getattr(env, "base_env", env)


def _saves_itself(env: EnvBase) -> bool:
    return hasattr(type(_base(env)), "simulator_state")


def _roots(simulator: Any) -> dict[str, Any]:
    entities = {f"entities[{k}]": entity for k, entity in enumerate(simulator.world.entities)}
    return {"scenario": simulator.scenario, "world": simulator.world, **entities}


class _Writer:
    """Describes objects by what they hold; an object met again, by the path where it was first."""

    def __init__(self, paths: dict[int, str]) -> None:
        self.paths = paths

    def value(self, thing: Any, path: str) -> Any:
        if isinstance(thing, KEPT):
            return {"kept": True}
        if isinstance(thing, PLAIN):
            return thing
        if isinstance(thing, np.generic):
            return thing.item()
        if id(thing) in self.paths:
            return {"same": self.paths[id(thing)]}
        self.paths[id(thing)] = path
        if isinstance(thing, Tensor):
            return thing.detach().clone()
        if isinstance(thing, np.ndarray):
            return {"array": torch.from_numpy(thing.copy())}
        if isinstance(thing, list | tuple):
            return {"items": [self.value(x, f"{path}[{k}]") for k, x in enumerate(thing)]}
        if isinstance(thing, set | frozenset):  # of pairs of entities that may collide
            plain = all(isinstance(x, PLAIN) for x in thing)
            return {"set": list(thing)} if plain else {"kept": True}
        if isinstance(thing, dict):
            return {
                "entries": [
                    [self.value(key, f"{path} key {k}"), self.value(x, f"{path}[{k}]")]
                    for k, (key, x) in enumerate(thing.items())
                ]
            }
        if hasattr(thing, "__dict__"):
            return {"attributes": self.attributes(thing, path)}
        raise TypeError(f"cannot write a {type(thing).__name__} at {path} of the simulator.")

    def attributes(self, thing: Any, path: str) -> dict[str, Any]:
        return {name: self.value(x, f"{path}.{name}") for name, x in vars(thing).items()}


class _Reader:
    """Writes what was described into objects of the same make."""

    def __init__(self, objects: dict[str, Any]) -> None:
        self.objects = objects

    def value(self, saved: Any, target: Any, path: str) -> Any:
        """What must stand where ``target`` stands."""
        if isinstance(saved, dict) and "kept" in saved:
            return self.require(target, path)
        if isinstance(saved, dict) and "same" in saved:
            return self.objects[saved["same"]]
        if isinstance(saved, PLAIN):
            return saved
        self.objects[path] = image = self.image(saved, target, path)
        return image

    def image(self, saved: Any, target: Any, path: str) -> Any:
        if isinstance(saved, Tensor):
            return saved.to(target.device) if isinstance(target, Tensor) else saved
        if "array" in saved:
            return saved["array"].numpy()
        if "set" in saved:
            return type(self.require(target, path))(saved["set"])
        self.require(target, path)
        self.objects[path] = target
        if "items" in saved:
            have = [*target, *[ABSENT] * (len(saved["items"]) - len(target))]
            items = [self.value(x, have[k], f"{path}[{k}]") for k, x in enumerate(saved["items"])]
            if isinstance(target, list):
                target[:] = items
                return target
            return getattr(target, "_make", type(target))(items)
        if "entries" in saved:
            have = [*target.items(), *[(ABSENT, ABSENT)] * len(saved["entries"])]
            entries = [
                (self.value(key, have[k][0], f"{path} key {k}"), x, f"{path}[{k}]")
                for k, (key, x) in enumerate(saved["entries"])
            ]
            values = [(k, self.value(x, target.get(k, ABSENT), where)) for k, x, where in entries]
            target.clear()
            target.update(values)
            return target
        self.attributes(target, saved["attributes"], path)
        return target

    def attributes(self, target: Any, saved: dict[str, Any], path: str) -> None:
        for name in vars(target).keys() - saved.keys():
            delattr(target, name)
        for name, x in saved.items():
            image = self.value(x, vars(target).get(name, ABSENT), f"{path}.{name}")
            vars(target)[name] = image

    def require(self, target: Any, path: str) -> Any:
        if target is ABSENT:
            raise ValueError(f"the simulator has nothing at {path}, where the state was saved.")
        return target
