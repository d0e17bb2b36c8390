"""What an environment of an experiment has, those of users too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tensordict import unravel_key
from torchrl.envs import EnvBase

from torchrl_ob.experiments.envs.teams import episode_key, find_reward_key
from torchrl_ob.experiments.errors import ExperimentError

__all__ = ["check_env"]

REMEDY = (
    "Return team_env(env, max_steps=max_steps) of torchrl_ob.experiments.envs.teams, which cuts episodes as a time limit and sums "
    "their rewards, of an env whose group_map names its groups of agents."
)


def check_env(env: Any, num_envs: int, target: str) -> EnvBase:
    """Refuse an environment that lacks what training and evaluation read, all of it told at once.

    It is a TorchRL environment of batch size ``[num_envs]`` whose ``group_map`` names the agents of each group; each
    group has an observation and an action ``[num_envs, n, ...]``; the reward ``[num_envs, n, 1]`` is the group's, or at the
    root ``[num_envs, 1]`` the team's, with its sum over the episode in ``episode_reward`` beside it; ``done`` and
    ``truncated`` are at the root.

    Args:
        env: what was made.
        num_envs: how many environments were asked for.
        target: what made it, for the message.

    Returns:
        The environment.

    Raises:
        ExperimentError: naming what is missing.
    """
    if not isinstance(env, EnvBase):
        raise ExperimentError(
            f"env: {target} made a {type(env).__name__}, and must make a TorchRL environment (torchrl.envs.EnvBase)."
        )
    missing = list(_missing(env, num_envs))
    if missing:
        raise ExperimentError(
            f"env: the environment of {target} lacks {'; '.join(missing)}. {REMEDY}"
        )
    return env


def _missing(env: EnvBase, num_envs: int) -> Iterator[str]:
    if tuple(env.batch_size) != (num_envs,):
        yield f"a batch size of [num_envs]=[{num_envs}]: it has {list(env.batch_size)}"
    groups = getattr(env, "group_map", None)
    if not isinstance(groups, Mapping) or not groups:
        yield "a group_map, such as {'agents': ['agent_0', 'agent_1']}"
        groups = {}
    seen = [unravel_key(key) for key in env.observation_spec.keys(True, True)]
    actions = [unravel_key(key) for key in env.action_keys]
    rewards = [unravel_key(key) for key in env.reward_keys]
    done = [unravel_key(key) for key in env.done_keys]
    if not rewards:
        yield "a reward in its reward_spec"
    for group in groups:
        if not any(key[0] == group for key in seen if isinstance(key, tuple)):
            yield f"an observation ({group!r}, 'observation'): its observations are {seen}"
        if (group, "action") not in actions:
            yield f"an action ({group!r}, 'action'): its actions are {actions}"
        if rewards:
            beside = episode_key(find_reward_key(env, group))
            if beside not in seen:
                yield f"the sum of an episode's rewards, {beside!r}"
    for key in ("done", "truncated"):
        if key not in done:
            yield f"{key!r} at the root: it has {done}"
