"""What every environment of an experiment has: groups of agents, a time limit, and sums of rewards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase, unravel_key
from tensordict.utils import NestedKey
from torchrl.envs import (
    Compose,
    EnvBase,
    MarlGroupMapType,
    RewardSum,
    StepCounter,
    TransformedEnv,
    UnaryTransform,
)

from torchrl_ob._checks.batch import sibling
from torchrl_ob.envs.flat import flat_env
from torchrl_ob.experiments.errors import ExperimentError, first_line

__all__ = [
    "BATTLE_WON",
    "agent_rewards",
    "episode_key",
    "find_active_key",
    "find_group_names",
    "find_reward_key",
    "read_group_map",
    "share_rewards",
    "spaces_differ",
    "team_env",
]

BATTLE_WON = ("info", "battle_won")
"""Where an environment of battles says whether the step won it, ``[*B]`` or ``[*B, 1]``."""


def team_env(
    env: EnvBase,
    *,
    max_steps: int,
    shared_reward: bool = False,
    continuous_actions: bool | None = None,
) -> EnvBase:
    """Episodes cut after ``max_steps`` as a time limit, with their rewards summed.

    A limit is no end (``truncated``): the return goes on with what the critic expects beyond. The sum
    of rewards so far is beside the reward, in ``episode_reward``. Every agent observes one vector of floats
    (:func:`~torchrl_ob.envs.flat.flat_env`).

    Args:
        env: the environment, of one group of agents or several.
        max_steps: length of an episode.
        shared_reward: give every agent the mean of its group's rewards, as in a cooperative task
            (arXiv:2108.08612, section 2). Groups keep theirs apart: they may be opponents.
        continuous_actions: which actions are asked for; ``None`` for those that there are.

    Returns:
        The environment with its transforms.

    Raises:
        ExperimentError: for a group of agents of different spaces, for images, and
            for actions of the other kind.
    """
    groups = find_group_names(env)
    try:
        env = flat_env(env)
    except (TypeError, ValueError) as error:
        raise ExperimentError(first_line(error)) from error
    for group in groups:
        _require_actions(env, group, continuous_actions)
    keys = list(dict.fromkeys(find_reward_key(env, group) for group in groups))
    transforms: list[Any] = [StepCounter(max_steps=max_steps)]
    if shared_reward:
        transforms += _means(keys)
    transforms.append(RewardSum(keys, [episode_key(key) for key in keys]))
    return TransformedEnv(env, Compose(*transforms), auto_unwrap=True)


def share_rewards(env: EnvBase) -> EnvBase:
    """Give every agent the mean of its group's rewards; a reward of the team is one already.

    The sums of rewards over an episode are left as they are: their mean over the agents is the same.
    """
    keys = {find_reward_key(env, group): None for group in find_group_names(env)}
    return env.append_transform(Compose(*_means(keys)))


def _require_actions(env: EnvBase, group: str, continuous: bool | None) -> None:
    spec = env.full_action_spec.get((group, "action"), None)
    if continuous is None or spec is None or spec.dtype.is_floating_point == continuous:
        return
    kind, other = ("discrete", "continuous") if continuous else ("continuous", "discrete")
    raise ExperimentError(
        f"the actions of {group!r} are {kind}, and env.continuous_actions={str(continuous).lower()} asks for {other} ones: "
        f"take env.continuous_actions={str(not continuous).lower()}, or another environment."
    )


def find_active_key(env: EnvBase, group: str) -> NestedKey | None:
    """Where an environment says which agents take part, ``[*B, n]``; ``None`` where all always do."""
    key = (group, "mask")
    return None if env.observation_spec.get(key, None) is None else key


def episode_key(reward_key: NestedKey) -> NestedKey:
    """Where the sum of an episode's rewards so far is: beside the reward."""
    return sibling(unravel_key(reward_key), "episode_reward")


def find_group_names(env: EnvBase) -> list[str]:
    """The names of the groups of agents of an environment.

    Raises:
        ExperimentError: where agents of a group have different spaces.
    """
    if not getattr(env, "group_map", None):
        raise ExperimentError(
            f"{type(env).__name__} has no group_map, which names the agents of each group: set "
            "env.group_map = {'agents': ['agent_0', 'agent_1', ...]}, the group being the first part of its keys."
        )
    for group, agents in env.group_map.items():
        if getattr(env, "het_specs", False) and env.het_specs_map[group]:
            raise spaces_differ(group, agents)
    return list(env.group_map)


def spaces_differ(group: str, agents: Sequence[str]) -> ExperimentError:
    """What is told of a group whose agents have different spaces."""
    return ExperimentError(
        f"agents of the group {group!r} observe or act in different spaces, and those of a group share one: take "
        "env.group_map=one_group_per_agent, or name groups of equal agents, "
        f"env.group_map={{{group}: [{agents[0]}], ...}}."
    )


def read_group_map(
    group_map: str | Mapping[str, Sequence[str]] | None,
) -> MarlGroupMapType | dict[str, list[str]] | None:
    """A config's grouping of agents as TorchRL takes it.

    Args:
        group_map: ``"one_group_per_agent"``, ``"all_in_one_group"``, or names of agents by that of their
            group; ``None`` for the environment's own.

    Raises:
        ExperimentError: for another word.

    Example:
        >>> from torchrl_ob.experiments.envs.teams import read_group_map
        >>> read_group_map({"hounds": ["dog_0", "dog_1"], "prey": ["hare"]})
        {'hounds': ['dog_0', 'dog_1'], 'prey': ['hare']}
    """
    if not isinstance(group_map, str):
        return group_map and {group: list(agents) for group, agents in group_map.items()}
    kinds = {kind.name.lower(): kind for kind in MarlGroupMapType}
    if group_map not in kinds:
        raise ExperimentError(
            f"env.group_map must be {' or '.join(kinds)}, or lists of agents such as "
            f"{{hounds: [dog_0, dog_1], prey: [hare]}}, got {group_map!r}."
        )
    return kinds[group_map]


def find_reward_key(env: EnvBase, group: str) -> NestedKey:
    """Where the rewards of a group are: its own, or else the one of the environment."""
    keys = [unravel_key(key) for key in env.reward_keys]
    if not keys:
        raise ExperimentError(
            f"{type(env).__name__} has no reward in its reward_spec: a reward is {(group, 'reward')}, or 'reward' of the team."
        )
    return (group, "reward") if (group, "reward") in keys else keys[0]


def agent_rewards(tensordict: TensorDictBase, keys: Iterable[NestedKey]) -> torch.Tensor:
    """Entries ``[*B, n, 1]`` of several groups, or of a team ``[*B, 1]``, side by side: ``[*B, agents]``.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl_ob.experiments.envs.teams import agent_rewards
        >>> td = TensorDict({"a": torch.zeros(5, 2, 1), "b": torch.ones(5, 1, 1)}, [5])
        >>> agent_rewards(td, ["a", "b"])[0]
        tensor([0., 0., 1.])
    """
    return torch.cat([tensordict.get(key).flatten(tensordict.ndim) for key in keys], -1)


def _means(keys: Iterable[NestedKey]) -> list[UnaryTransform]:
    """For each reward of a group of agents, ``[*B, n, 1]``; one at the root is the team's."""
    return [UnaryTransform([key], [key], fn=_team_mean) for key in keys if isinstance(key, tuple)]


def _team_mean(reward: torch.Tensor) -> torch.Tensor:
    return reward.mean(-2, keepdim=True).expand_as(reward).contiguous()
