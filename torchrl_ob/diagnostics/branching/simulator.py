"""The state of a simulator as tensors and plain values, and back into a simulator of the same make.

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

from torchrl_ob._rng import find_simulator

__all__ = [
    "has_simulator",
    "is_vmas",
    "load_simulator_state",
    "read_simulator",
    "simulator_state",
    "write_simulator",
]

PLAIN = (bool, int, float, complex, str, bytes, type(None))
KEPT: tuple[type, ...] = (FunctionType, MethodType, BuiltinFunctionType, ModuleType, partial, type)
KEPT += (torch.device, torch.dtype, torch.Generator)  # an environment's own, built with it
ABSENT = object()


def has_simulator(env: EnvBase) -> bool:
    """Whether an environment, or the one that its transforms wrap, is VMAS's or saves itself."""
    return _saves_itself(env) or is_vmas(env)


def is_vmas(env: EnvBase) -> bool:
    """Whether an environment, or the one that its transforms wrap, is VMAS's."""
    return hasattr(find_simulator(env), "world")


def simulator_state(env: EnvBase) -> dict[str, Any]:
    """The state that an environment gives; of VMAS whatever scenario, world and entities hold.

    Args:
        env: TorchRL's ``VmasEnv``, an environment that saves itself, or a ``TransformedEnv`` of one.

    Returns:
        Tensors, numbers and strings in dictionaries and lists. What is the same object in VMAS is a
        reference to it here. With VMAS's random state, which all its environments share.

    Raises:
        ValueError: if the scenario holds something that cannot be written, by the path to it.

    Example:
        >>> from torchrl.envs.libs.vmas import VmasEnv
        >>> from torchrl_ob.diagnostics.branching.simulator import load_simulator_state, simulator_state
        >>> env, other = (VmasEnv("navigation", num_envs=2, seed=seed) for seed in (0, 1))
        >>> _ = env.rollout(3)
        >>> load_simulator_state(other, simulator_state(env))
        >>> other.world.agents[0].state.pos.equal(env.world.agents[0].state.pos)
        True
    """
    if _saves_itself(env):
        return _base(env).simulator_state()
    return write_simulator(find_simulator(env))


def load_simulator_state(env: EnvBase, state: dict[str, Any]) -> None:
    """Put an environment, built with the same arguments, into a state that was written.

    Args:
        env: the environment; VMAS's takes a step, so that it has whatever is made on first use.
        state: from :func:`simulator_state`.

    Raises:
        ValueError: if the state is that of another environment, by the path to the difference.
    """
    if _saves_itself(env):
        _base(env).load_simulator_state(state)
        return
    simulator = find_simulator(env)
    env.step(env.rand_action(env.reset()))
    read_simulator(simulator, state)
    _Reader({}).value(state["random"], simulator.vmas_random_state, "random")


def write_simulator(simulator: Any) -> dict[str, Any]:
    """:func:`simulator_state` of a simulator of VMAS."""
    roots = _roots(simulator)
    writer = _Writer({id(thing): path for path, thing in roots.items()})
    return {
        "objects": {path: writer.content(thing, path) for path, thing in roots.items()},
        "steps": writer.value(simulator.steps, "steps"),
        "random": writer.value(simulator.vmas_random_state, "random"),
    }


def read_simulator(simulator: Any, state: dict[str, Any], index: Tensor | None = None) -> None:
    """Put a simulator of VMAS, stepped once, into a state that was written, but for the random state.

    Args:
        simulator: it is written into.
        state: from :func:`write_simulator`.
        index: where the simulator has another number of environments, which of those written each of
            them takes. Whatever has that number as a size is taken there.

    Raises:
        ValueError: if the state does not fit the simulator, by the path to the difference.
    """
    roots = _roots(simulator)
    if roots.keys() != state["objects"].keys():
        raise ValueError(f"the state has {list(state['objects'])}, the simulator {list(roots)}.")
    reader = _Reader(dict(roots), len(state["steps"]), index)
    for path, thing in roots.items():
        reader.fill(state["objects"][path], thing, path)
    simulator.steps = reader.value(state["steps"], simulator.steps, "steps")


def _base(env: EnvBase) -> Any:
    return getattr(env, "base_env", env)


def _saves_itself(env: EnvBase) -> bool:
    return hasattr(type(_base(env)), "simulator_state")


def _roots(simulator: Any) -> dict[str, Any]:
    """What the walks start from. All are known before: which of them an attribute names may be drawn at random."""
    entities = {f"entities[{k}]": entity for k, entity in enumerate(simulator.world.entities)}
    return {"scenario": simulator.scenario, "world": simulator.world, **entities}


def _kind(thing: Any) -> str:
    # by name: scenarios are loaded anew for each environment, and so are their classes
    return getattr(thing, "__qualname__", type(thing).__qualname__)


class _Writer:
    """Describes objects by what they hold; an object met again, by the path where it was first."""

    def __init__(self, paths: dict[int, str]) -> None:
        self.paths = paths

    def value(self, thing: Any, path: str) -> Any:
        if isinstance(thing, Enum):
            return {"member": thing.name, "kind": _kind(thing)}
        if isinstance(thing, KEPT):
            return {"kind": _kind(thing)}
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
        return self.content(thing, path)

    def content(self, thing: Any, path: str) -> dict[str, Any]:
        content: dict[str, Any] = {"kind": _kind(thing)}
        if isinstance(thing, list | tuple):
            content["items"] = [self.value(x, f"{path}[{k}]") for k, x in enumerate(thing)]
        elif isinstance(thing, set | frozenset):
            items = [self.value(x, f"{path} item {k}") for k, x in enumerate(thing)]
            if all(isinstance(x, PLAIN) or (isinstance(x, dict) and "same" in x) for x in items):
                content["set"] = items  # another, such as one of classes, is the environment's own
        elif isinstance(thing, dict):
            content["entries"] = [
                [self.value(key, f"{path} key {k}"), self.value(x, f"{path}[{k}]")]
                for k, (key, x) in enumerate(thing.items())
            ]
        elif hasattr(thing, "__dict__"):
            content["attributes"] = {
                name: self.value(x, f"{path}.{name}") for name, x in vars(thing).items()
            }
        else:
            raise ValueError(f"{path} is a {_kind(thing)}, which cannot be written.")
        return content


class _Reader:
    """Writes what was described into objects of the same make, whose targets have the same paths."""

    def __init__(
        self, objects: dict[str, Any], num_envs: int = 0, index: Tensor | None = None
    ) -> None:
        self.objects, self.index = objects, index
        self.sizes = (num_envs, num_envs if index is None else len(index))

    def value(self, saved: Any, target: Any, path: str) -> Any:
        """What must stand where ``target`` stands."""
        if isinstance(saved, PLAIN):
            is_size = type(saved) is int and (saved, target) == self.sizes
            return target if is_size else saved
        if isinstance(saved, Tensor):
            self.objects[path] = self.tensor(saved, target, path)
        elif "array" in saved:
            self.objects[path] = self.tensor(saved["array"], target, path).numpy()
        elif "member" in saved:
            return type(self.require(saved, target, path))[saved["member"]]
        elif "same" in saved:
            return self.objects[saved["same"]]
        elif saved.keys() == {"kind"}:
            return self.require(saved, target, path)
        else:
            self.fill(saved, target, path)
        return self.objects[path]

    def tensor(self, saved: Tensor, target: Any, path: str) -> Tensor:
        """Taken at ``index`` along the dimension, if any, whose size is the number of environments."""
        if isinstance(target, Tensor):
            saved = saved.to(target.device)
        if self.index is None:
            return saved
        shape = getattr(target, "shape", ())
        sizes = list(zip(saved.shape, shape, strict=False))
        other = [dim for dim, (first, second) in enumerate(sizes) if first != second]
        if saved.ndim != len(shape) or [sizes[dim] for dim in other] not in ([], [self.sizes]):
            self.refuse(path, target, f"a Tensor of shape {list(saved.shape)}")
        return saved.index_select(other[0], self.index.to(saved.device)) if other else saved

    def fill(self, saved: dict[str, Any], target: Any, path: str) -> None:
        """Write the content of an object into its target."""
        if "set" in saved:
            items = [self.value(x, ABSENT, f"{path} item {k}") for k, x in enumerate(saved["set"])]
            self.objects[path] = (frozenset if saved["kind"] == "frozenset" else set)(items)
            return
        self.objects[path] = self.require(saved, target, path)
        if "items" in saved:
            if self.index is not None and len(target) != len(saved["items"]):
                self.refuse(path, target, f"a {saved['kind']} of length {len(saved['items'])}")
            have = [*target, *[ABSENT] * (len(saved["items"]) - len(target))]
            items = [self.value(x, have[k], f"{path}[{k}]") for k, x in enumerate(saved["items"])]
            if isinstance(target, list):
                target[:] = items
            else:  # its image is known only after those of its items
                self.objects[path] = getattr(target, "_make", type(target))(items)
        elif "entries" in saved:
            have = [*target, *[ABSENT] * len(saved["entries"])]
            values = {}
            for k, (key, x) in enumerate(saved["entries"]):
                name = self.value(key, have[k], f"{path} key {k}")
                values[name] = self.value(x, target.get(name, ABSENT), f"{path}[{k}]")
            target.clear()
            target.update(values)
        else:
            for name in vars(target).keys() - saved["attributes"].keys():
                delattr(target, name)
            for name, x in saved["attributes"].items():
                found = vars(target).get(name, ABSENT)
                vars(target)[name] = self.value(x, found, f"{path}.{name}")

    def require(self, saved: dict[str, Any], target: Any, path: str) -> Any:
        if target is ABSENT or _kind(target) != saved["kind"]:
            self.refuse(path, target, f"a {saved['kind']}")
        return target

    def refuse(self, path: str, target: Any, expected: str) -> None:
        found = "nothing" if target is ABSENT or target is None else f"a {_kind(target)}"
        if hasattr(target, "shape"):
            found += f" of shape {list(target.shape)}"
        elif isinstance(target, list | tuple):
            found += f" of length {len(target)}"
        raise ValueError(f"the simulator has at {path} {found} for {expected}.")
