"""What an environment's specs say of a group of agents: its action, its mask and its observation.

Every spec is read into what the networks are built from, or refused by its class, with the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from tensordict import unravel_key
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import (
    Binary,
    Bounded,
    Categorical,
    Composite,
    MultiCategorical,
    MultiOneHot,
    OneHot,
    TensorSpec,
    Unbounded,
)
from torchrl.data.tensor_specs import Stacked
from torchrl.envs import EnvBase

from torchrl_ob._action_encodings import ActionEncoding
from torchrl_ob._checks.batch import entry_name

Group = str | tuple[str, ...]

FLAT_ENV = "pass the environment through torchrl_ob.envs.flat.flat_env, or append transforms"
OWN_GROUPS = (
    "agents of one group share a space: give those of each kind a group of their own (group_map)."
)
OWN_ACTOR = "build a ProbabilisticActor yourself, since the advantages take any distribution."


class ActionSpace(NamedTuple):
    """The action of a group of agents.

    Attributes:
        key: where it is.
        num_agents: number of agents n.
        encoding: how an action is written, as :class:`~torchrl_ob.JointQCritic` has it.
        action_dim: size of a continuous action, or number of choices of all factors together.
        dtype: of the action.
        nvec: number of choices of each factor, where there are several.
        bounds: lowest and highest value of a continuous action, ``[n, d]`` each; ``None`` where it has none.
    """

    key: NestedKey
    num_agents: int
    encoding: ActionEncoding
    action_dim: int
    dtype: torch.dtype
    nvec: tuple[int, ...] | None = None
    bounds: tuple[Tensor, Tensor] | None = None

    def sizes(self) -> dict[str, Any]:
        """The arguments of a critic that follow."""
        sizes = {"num_agents": self.num_agents, "action_dim": self.action_dim}
        return {**sizes, "action_encoding": self.encoding, "nvec": self.nvec}


def group_key(group: Group, *names: str) -> NestedKey:
    """The key of an entry of a group.

    Example:
        >>> from torchrl_ob._specs import group_key
        >>> group_key("agents", "action"), group_key(("red", "tanks"), "action")
        (('agents', 'action'), ('red', 'tanks', 'action'))
    """
    return unravel_key((*(group if isinstance(group, tuple) else (group,)), *names))


def find_mask_key(env: EnvBase, group: Group) -> NestedKey | None:
    """Where an environment says which actions are available: beside the observation, or in it."""
    specs, key = env.observation_spec_unbatched, group_key(group, "action_mask")
    if specs.get(key, None) is not None:
        return key
    observation = specs.get(group_key(group, "observation"), None)
    nested = isinstance(observation, Composite) and observation.get("action_mask", None) is not None
    return group_key(group, "observation", "action_mask") if nested else None


def read_action(env: EnvBase, group: Group) -> ActionSpace:
    """The action of a group, from its spec.

    Args:
        env: the environment.
        group: name of the group.

    Raises:
        KeyError: where the environment has no such group.
        TypeError: for a spec of another kind.
        ValueError: for a spec of another shape, and for agents whose choices differ.
    """
    key = group_key(group, "action")
    spec = env.full_action_spec_unbatched.get(key, None)
    if spec is None:
        raise KeyError(
            f"the environment has no {key}; its action keys are {list(env.action_keys)}. Pass group=..., "
            "the name of the group of agents."
        )
    if isinstance(spec, Stacked):
        # of the batch: without it TorchRL leaves the batch in the specs of a stack
        batched, batch = env.full_action_spec[key], env.batch_size
        agents = [
            agent[(0,) * len(batch)] if batch else agent for agent in batched.unbind(len(batch))
        ]
        return _stacked_space(agents, key)
    return _action_space(spec, key)


def _action_space(spec: TensorSpec, key: NestedKey) -> ActionSpace:
    name = f"the action {key!r}, a {type(spec).__name__} of shape {list(spec.shape)},"
    if isinstance(spec, Composite):
        raise TypeError(f"{name} has several entries, {list(spec.keys())}: {OWN_ACTOR}")
    if 0 in spec.shape:
        raise ValueError(f"{name} is empty: no agent has an action there.")
    num_agents, dtype, event = spec.shape[:1].numel(), spec.dtype, spec.shape[1:]
    is_single = isinstance(spec, Categorical) and not isinstance(spec, Binary | MultiCategorical)
    if spec.ndim == 0 or len(event) > 1 or (len(event) == 0 and not is_single):
        choices = "[n] for one choice, " if is_single else ""
        raise ValueError(
            f"{name} must have a dimension of agents, and one of what each does: {choices}[n, d]. Append "
            "torchrl.envs.FlattenAction, or UnsqueezeTransform with in_keys_inv."
        )
    numbers, bounds = isinstance(spec, Bounded | Unbounded), None
    if isinstance(spec, OneHot) and not isinstance(spec, MultiOneHot):
        return ActionSpace(key, num_agents, "one_hot", event[0], dtype)
    if numbers and dtype.is_floating_point:
        if isinstance(spec, Bounded) and not (
            spec.space.low.isneginf().all() and spec.space.high.isposinf().all()
        ):
            bounds = spec.space.low, spec.space.high
        return ActionSpace(key, num_agents, "continuous", event[0], dtype, bounds=bounds)
    encoding: ActionEncoding = "multi_categorical"
    if isinstance(spec, MultiOneHot):
        encoding, nvec = "multi_one_hot", [box.n for box in spec.space.boxes]
    elif isinstance(spec, MultiCategorical):
        rows = spec.nvec.reshape(-1, event[0]).tolist()
        nvec = rows[0]
        if any(row != nvec for row in rows):
            raise ValueError(
                f"{name} has {rows} choices, other ones for each agent, and {OWN_GROUPS}"
            )
    elif isinstance(spec, Categorical):
        if spec.space.n < 1:
            raise ValueError(
                f"{name} has {spec.space.n} choices: give the spec how many there are."
            )
        if not event:
            return ActionSpace(key, num_agents, "categorical", spec.space.n, dtype)
        nvec = [spec.space.n] * event[0]
    elif numbers:
        raise TypeError(
            f"{name} has integers, {dtype}, that may be no choices: give it a Categorical or MultiCategorical spec."
        )
    else:
        raise TypeError(
            f"{name} is of a kind that is not known: actions are bounded or unbounded floats, categorical, one-hot, "
            f"several of these side by side, or binary. Or {OWN_ACTOR}"
        )
    return ActionSpace(key, num_agents, encoding, sum(nvec), dtype, tuple(nvec))


def _stacked_space(agents: Sequence[TensorSpec], key: NestedKey) -> ActionSpace:
    """Agents whose specs differ: in their bounds alone, or refused."""
    spaces = [_action_space(agent.unsqueeze(0), key) for agent in agents]
    alike = {space._replace(bounds=None) for space in spaces}
    bounds = [space.bounds for space in spaces if space.bounds is not None]
    if len(alike) != 1 or len(bounds) not in (0, len(spaces)):
        kinds = ", ".join(type(agent).__name__ for agent in agents)
        raise ValueError(
            f"the action {key!r}, Stacked from {kinds}, has agents whose specs differ, and {OWN_GROUPS}"
        )
    joint: Any = tuple(torch.cat(ends) for ends in zip(*bounds, strict=True)) or None
    return spaces[0]._replace(num_agents=len(spaces), bounds=joint)


def observation_leaves(spec: TensorSpec | None, key: NestedKey) -> dict[NestedKey, TensorSpec]:
    """The entries of an observation by their keys, without the mask of available actions."""
    if spec is None:
        return {}
    if not isinstance(spec, Composite):
        return {key: spec}
    return {
        unravel_key((key, name)): leaf
        for name, leaf in spec.items(True, True)
        if entry_name(name) != "action_mask"
    }


def read_observation(
    env: EnvBase, group: Group, key: NestedKey | None = None
) -> tuple[NestedKey, TensorSpec]:
    """Where the observation of a group is, and its spec, ``[n, o]``.

    A nested observation of one entry, beside which there may be a mask of the available actions, is that
    entry.

    Args:
        env: the environment.
        group: name of the group.
        key: where the observation is; ``(group, "observation")`` by default.

    Raises:
        KeyError: where the group has none.
        TypeError: for one of several entries, an image, and another dtype than the networks'.
        ValueError: for another shape.
    """
    key = unravel_key(key or group_key(group, "observation"))
    leaves = observation_leaves(env.observation_spec_unbatched.get(key, None), key)
    if not leaves:
        raise KeyError(
            f"the environment has no {key}; its action keys are {list(env.action_keys)}. Pass group=..., the name "
            "of the group of agents, or observation_key=...."
        )
    if len(leaves) > 1:
        raise TypeError(
            f"the observation {key!r} has entries {list(leaves)}, and one is read: {FLAT_ENV} (torchrl.envs.CatTensors)."
        )
    ((key, spec),) = leaves.items()
    check_vector(spec, key, ("n", "o"))
    return key, spec


def check_vector(spec: TensorSpec, key: NestedKey, shape: Sequence[str]) -> None:
    """Refuse a spec of other than floats of a shape such as ``("n", "o")``."""
    name, floats = check_entry(spec, key), torch.get_default_dtype()
    if spec.dtype != floats:
        cast = "DoubleToFloat" if spec.dtype == torch.float64 else "DTypeCastTransform"
        raise TypeError(
            f"{name} is {spec.dtype}, and networks are {floats}: {FLAT_ENV} (torchrl.envs.{cast})."
        )
    if spec.ndim != len(shape):
        raise ValueError(
            f"{name} must have the shape [{', '.join(shape)}]: {FLAT_ENV} (torchrl.envs.FlattenObservation, "
            "UnsqueezeTransform)."
        )


def check_entry(spec: TensorSpec, key: NestedKey) -> str:
    """Refuse an entry of an observation that is no vector, even when it is flattened and cast; its name in messages."""
    name = f"the observation {key!r}, a {type(spec).__name__} of shape {list(spec.shape)},"
    if isinstance(spec, Stacked):
        raise ValueError(f"{name} has agents whose specs differ, and {OWN_GROUPS}")
    if 0 in spec.shape:
        raise ValueError(f"{name} is empty: nothing is observed there.")
    if spec.ndim > 3 or (
        spec.ndim == 3 and spec.dtype == torch.uint8
    ):  # rows and columns, or planes
        raise TypeError(
            f"{name} is an image: encode it in an actor and a critic of your own (torchrl.envs.ToTensorImage, "
            "torchrl.modules.MultiAgentConvNet), or flatten it (torchrl.envs.FlattenObservation)."
        )
    return name
