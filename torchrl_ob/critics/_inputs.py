"""What a joint critic reads: from a tensordict, and from an environment's specs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat, starmap
from typing import Any, NamedTuple

from tensordict import TensorDictBase, unravel_key
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs import EnvBase

from torchrl_ob._checks.batch import check_shape, select
from torchrl_ob._specs import (
    Group,
    check_vector,
    group_key,
    observation_leaves,
    read_action,
    read_observation,
)
from torchrl_ob.critics.backbones import Others


class Inputs(NamedTuple):
    """Of N states.

    Attributes:
        observation: ``[N, n, o]``.
        state: ``[N, s]``.
        action: features of the joint action, ``[N, n, a]``.
        own: K alternative own actions, ``[N, n, K, *event]``, where they are asked about.
        others: agents of other groups, where there are any.
    """

    observation: Tensor
    state: Tensor
    action: Tensor
    own: Tensor | None = None
    others: Others | None = None

    def split(self, size: int) -> Iterable[Inputs]:
        """In parts of ``size`` states."""
        parts = [repeat(None) if entry is None else entry.split(size) for entry in self]
        return starmap(Inputs, zip(*parts, strict=False))  # endless, where an entry is None


def read_entry(tensordict: TensorDictBase, key: NestedKey, shape: tuple[int, ...]) -> Tensor:
    """An entry ``[*B, *shape]`` as ``[N, *shape]``.

    Raises:
        KeyError: if it is missing.
        ValueError: if it has another shape.
    """
    value: Tensor = select(tensordict, [key], "the critic").get(key)
    check_shape(repr(key), value, (*tensordict.batch_size, *shape))
    return value.reshape(tensordict.batch_size.numel(), *shape)


def input_shapes(
    num_agents: int,
    observation: tuple[NestedKey, int | None],
    state: tuple[NestedKey, int | None],
) -> dict[NestedKey, tuple[int, ...]]:
    """Shapes of the observations and of the global state by their keys, of no width what is not read.

    Raises:
        ValueError: if neither is read.
    """
    (observation_key, observation_dim), (state_key, state_dim) = observation, state
    if not observation_dim and not state_dim:
        raise ValueError("the critic reads nothing: give observation_dim, state_dim or both.")
    shapes = (num_agents, observation_dim or 0), (state_dim or 0,)
    return dict(zip(map(unravel_key, (observation_key, state_key)), shapes, strict=True))


def read_states(
    tensordict: TensorDictBase, shapes: dict[NestedKey, tuple[int, ...]]
) -> list[Tensor]:
    """Entries ``[*B, *shape]`` as ``[N, *shape]``, observations and state."""
    read = {key: read_entry(tensordict, key, x) for key, x in shapes.items() if x[-1]}
    like = next(iter(read.values()))  # of the precision of the network
    return [
        read[key] if key in read else like.new_zeros(len(like), *x) for key, x in shapes.items()
    ]


def read_sizes(env: EnvBase, group: Group, options: dict[str, Any]) -> dict[str, Any]:
    """Sizes and keys of the critic of a group, from an environment's specs; see ``JointQCritic.from_env``."""
    action, specs = read_action(env, group), env.observation_spec_unbatched
    key = unravel_key(options.get("observation_key") or group_key(group, "observation"))
    state_key = options.get("state_key", "state")
    sizes: dict[str, Any] = {"observation_dim": None, "state_dim": None, **action.sizes()}
    wanted = {name: options.get(name, ...) is not None for name in sizes}  # None leaves it out
    if wanted["observation_dim"] and observation_leaves(specs.get(key, None), key):
        key, spec = read_observation(env, group, key)
        sizes["observation_dim"] = spec.shape[-1]
    state = specs.get(state_key, None)
    if wanted["state_dim"] and state is not None:
        check_vector(state, state_key, ("s",))
        sizes["state_dim"] = state.shape[-1]
    if sizes["observation_dim"] is None and sizes["state_dim"] is None:
        raise KeyError(
            f"the environment has neither {key} nor {state_key}; it has {list(specs.keys(True, True))}. Pass "
            "observation_key=... or state_key=...."
        )
    keys = {"observation_key": key, "state_key": state_key, "action_key": action.key}
    return {**sizes, **options, **keys}
