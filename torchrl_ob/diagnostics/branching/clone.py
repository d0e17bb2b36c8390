"""Copying states of a VMAS environment, and leaving every source of randomness as it was.

VMAS is never imported: its objects are reached through the environment that is handed in.
"""

from __future__ import annotations

import copy
from enum import Enum
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchrl.envs import EnvBase, TransformedEnv

from torchrl_ob._rng import isolated_rng

__all__ = ["clone_vmas", "name_of"]

ATOMS = (int, float, complex, str, bytes, type(None), Enum, torch.device, torch.dtype, np.generic)
CODE = (FunctionType, MethodType, BuiltinFunctionType, ModuleType, partial, type)
ABSENT = object()


def clone_vmas(env: EnvBase, index: Tensor) -> EnvBase:
    """A new environment of ``len(index)`` copies; the k-th is in the state of env's ``index[k]``-th.

    A second environment is built with the arguments of the first. Then whatever the first one's
    scenario and world hold is written into it: entities' states, shaping terms, counters, sensors,
    controllers. What has the number of environments as a size is taken at ``index``. Transforms are
    copied with their state. The environment handed in and all random states are left as they were.

    Args:
        env: TorchRL's ``VmasEnv``, or a ``TransformedEnv`` of one.
        index: which state each copy takes, ``[M]``.

    Raises:
        TypeError: for an environment of another kind.
        ValueError: where the scenario holds something that has no counterpart in a second
            environment, by the scenario's name and the path to it.

    Example:
        >>> import torch
        >>> from torchrl.envs.libs.vmas import VmasEnv
        >>> from torchrl_ob.diagnostics.branching.clone import clone_vmas
        >>> env = VmasEnv("navigation", num_envs=2, n_agents=2, seed=0)
        >>> td = env.rollout(3)[:, -1]
        >>> wide = clone_vmas(env, torch.tensor([0, 1, 1]))
        >>> wide.batch_size
        torch.Size([3])
        >>> action = env.rand_action(td)["agents", "action"]
        >>> reward = wide.step(td[[0, 1, 1]].set(("agents", "action"), action[[0, 1, 1]]))["next"]
        >>> env.step(td)["next", "agents", "reward"][1].equal(reward["agents", "reward"][2])
        True
    """
    if isinstance(env, TransformedEnv):
        transform = copy.deepcopy(env.transform.clone())  # a clone alone shares its tensors
        return TransformedEnv(clone_vmas(env.base_env, index), transform)
    simulator = getattr(env, "_env", None)
    if not hasattr(simulator, "vmas_random_state"):
        raise TypeError(
            f"clone_vmas copies TorchRL's VmasEnv, and this is a {type(env).__name__}. Hand over "
            "a function clone(env, index) that copies states of this environment."
        )
    if len(index) == env.batch_size[0]:
        # sizes would not tell what each environment has its own of: by way of one copy more
        wider = clone_vmas(env, torch.cat([index, index[:1]]))
        return clone_vmas(wider, torch.arange(len(index)))
    with isolated_rng(env=env), torch.no_grad():
        twin = _build(env, len(index))
        # a step makes the tensors that are made on first use
        twin.step(twin.rand_action(twin.reset()))
        _Copy(name_of(env), index, env.batch_size[0]).simulator(simulator, twin._env)
    return twin


def name_of(env: EnvBase) -> str:
    """The name of the scenario of a VMAS environment; of the class of another."""
    scenario = getattr(env, "scenario_name", type(env).__name__)
    return scenario if isinstance(scenario, str) else type(scenario).__name__


def _build(env: EnvBase, num_envs: int) -> EnvBase:
    """A second environment with the arguments of the first."""
    arguments = dict(env._constructor_kwargs)
    if "scenario" not in arguments:
        raise ValueError(
            f"a {type(env).__name__} around a VMAS environment does not know how that was built. "
            "Build it as VmasEnv(scenario, num_envs=...)."
        )
    if not isinstance(arguments["scenario"], str):  # the instance holds the first one's world
        arguments["scenario"] = type(arguments["scenario"])()
    arguments |= {
        "num_envs": num_envs,
        "device": env.device,
        "group_map": env.group_map,
        "categorical_actions": env.categorical_actions,
    }
    return type(env)(**arguments)


class _Copy:
    """Writes what one simulator holds into another, of another number of environments.

    Both are walked together. An object of the source has one image in the copy, so that what is the
    same object there is the same here.
    """

    def __init__(self, scenario: str, index: Tensor, num_envs: int) -> None:
        self.scenario, self.index = scenario, index
        self.sizes = (num_envs, len(index))
        self.images: dict[int, Any] = {}

    def simulator(self, source: Any, target: Any) -> None:
        pairs = {
            "scenario": (source.scenario, target.scenario),
            "world": (source.world, target.world),
        }
        entities = zip(source.world.entities, target.world.entities, strict=True)
        pairs |= {f"world.entities[{k}]": pair for k, pair in enumerate(entities)}
        # paired before the walk: which of them an attribute names may be drawn at random
        self.images = {id(first): second for first, second in pairs.values()}
        for path, (first, second) in pairs.items():
            self.attributes(first, second, path)
        target.steps = self.image(source.steps, target.steps, "steps")

    def image(self, source: Any, target: Any, path: str) -> Any:
        """What the copy must hold for ``source`` where it holds ``target`` so far."""
        if isinstance(source, ATOMS):
            is_size = type(source) is int and (source, target) == self.sizes
            return target if is_size else source
        if id(source) not in self.images:
            if isinstance(source, tuple):  # its image is known only after those of its items
                items = self.items(source, target, path)
                make = getattr(source, "_make", type(source))
                self.images[id(source)] = make(items)
            elif isinstance(source, Tensor | np.ndarray):
                self.images[id(source)] = self.array(source, target, path)
            else:
                self.check_kind(source, target, path)
                self.images[id(source)] = target
                self.fill(source, target, path)
        return self.images[id(source)]

    def fill(self, source: Any, target: Any, path: str) -> None:
        if isinstance(source, CODE):
            return  # the copy's own: a method of its own objects
        if isinstance(source, dict):
            self.entries(source, target, path)
        elif isinstance(source, list):
            target[:] = self.items(source, target, path)
        elif isinstance(source, set | frozenset):
            if source != target:
                self.refuse(path, "another content")
        elif hasattr(source, "__dict__"):
            self.attributes(source, target, path)
        else:
            self.refuse(path, "nothing that could be compared with it")

    def attributes(self, source: Any, target: Any, path: str) -> None:
        self.entries(vars(source), vars(target), path, form=".{}")

    def entries(self, source: Any, target: Any, path: str, form: str = "[{!r}]") -> None:
        keys = {key: self.images.get(id(key), key) for key in source}  # keys may be entities
        for extra in target.keys() - set(keys.values()):
            del target[extra]
        for key, value in source.items():
            found = target.get(keys[key], ABSENT)
            target[keys[key]] = self.image(value, found, path + form.format(key))

    def items(self, source: Any, target: Any, path: str) -> list[Any]:
        if not isinstance(target, type(source)) or len(source) != len(target):
            self.refuse(path, f"{_describe(target)} for {_describe(source)}")
        return [
            self.image(first, second, f"{path}[{k}]")
            for k, (first, second) in enumerate(zip(source, target, strict=True))
        ]

    def array(self, source: Any, target: Any, path: str) -> Any:
        """Taken at ``index`` along the dimension, if any, whose size is the number of copies."""
        shape = getattr(target, "shape", None)
        if shape is not None and len(shape) == source.ndim:
            pairs = list(zip(source.shape, shape, strict=True))
            other = [dim for dim, (first, second) in enumerate(pairs) if first != second]
            if not other:
                return copy.copy(source) if isinstance(source, np.ndarray) else source.clone()
            if len(other) == 1 and pairs[other[0]] == self.sizes:
                if isinstance(source, np.ndarray):
                    return source.take(self.index.cpu().numpy(), other[0])
                return source.detach().index_select(other[0], self.index.to(source.device))
        return self.refuse(path, f"{_describe(target)} for {_describe(source)}")

    def check_kind(self, source: Any, target: Any, path: str) -> None:
        # scenarios are loaded anew for each environment: their classes differ, not by name
        kinds = [type(thing).__qualname__ for thing in (source, target)]
        names = [getattr(thing, "__qualname__", None) for thing in (source, target)]
        if target is ABSENT or kinds[0] != kinds[1] or names[0] != names[1]:
            self.refuse(path, f"{_describe(target)} for {_describe(source)}")

    def refuse(self, path: str, found: str) -> Any:
        raise ValueError(
            f"a state of the VMAS scenario {self.scenario!r} cannot be copied: a second environment "
            f"of it, reset and stepped once, has at {path} {found}. Hand over a function "
            "clone(env, index) that copies this scenario's states."
        )


def _describe(thing: Any) -> str:
    if thing is ABSENT or thing is None:
        return "nothing"
    if hasattr(thing, "shape"):
        return f"a {type(thing).__name__} of shape {list(thing.shape)}"
    if isinstance(thing, list | tuple):
        return f"a {type(thing).__name__} of length {len(thing)}"
    return f"a {type(thing).__name__}"
