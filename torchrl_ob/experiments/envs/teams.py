"""What every environment of an experiment has: one team, a time limit, and the sum of rewards."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase, unravel_key
from tensordict.utils import NestedKey
from torchrl.envs import Compose, EnvBase, RewardSum, StepCounter, TransformedEnv, UnaryTransform

from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.reading import sibling

__all__ = ["BATTLE_WON", "active_key_of", "episode_key", "episode_returns", "group_of", "team_env"]

BATTLE_WON = ("info", "battle_won")
"""Where an environment of battles says whether the step won it, ``[*B]`` or ``[*B, 1]``."""


def team_env(env: EnvBase, *, max_steps: int, shared_reward: bool = False) -> EnvBase:
    """Episodes cut after ``max_steps`` as a time limit, with their rewards summed.

    A limit is no end (``truncated``): the return goes on with what the critic expects beyond. The sum
    of rewards so far is beside the reward, in ``episode_reward``.

    Args:
        env: the environment, of one group of agents.
        max_steps: length of an episode.
        shared_reward: give every agent the mean of the team's rewards, as in a cooperative task
            (arXiv:2108.08612, section 2).

    Returns:
        The environment with its transforms.

    Raises:
        ExperimentError: for agents that do not form one group of equal spaces.
    """
    group_of(env)
    key = env.reward_key
    transforms: list[Any] = [StepCounter(max_steps=max_steps)]
    if shared_reward:
        transforms.append(UnaryTransform([key], [key], fn=_team_mean))
    transforms.append(RewardSum([key], [episode_key(key)]))
    return TransformedEnv(env, Compose(*transforms))


def active_key_of(env: EnvBase) -> NestedKey | None:
    """Where an environment says which agents take part, ``[*B, n]``; ``None`` where all always do."""
    key = (group_of(env), "mask")
    return None if env.observation_spec.get(key, None) is None else key


def episode_key(reward_key: NestedKey) -> NestedKey:
    """Where the sum of an episode's rewards so far is: beside the reward."""
    return sibling(unravel_key(reward_key), "episode_reward")


def group_of(env: EnvBase) -> str:
    """The name of the one group of agents of an environment.

    Raises:
        ExperimentError: where there are several groups, or agents of different spaces.
    """
    groups = list(env.group_map)
    if len(groups) != 1:
        raise ExperimentError(
            f"the agents form {len(groups)} groups, {', '.join(groups)}, and the training loop takes "
            "one team. Build an actor, a critic and an advantage for each group in a script."
        )
    if getattr(env, "het_specs", False):
        raise ExperimentError(
            f"agents of the group {groups[0]!r} observe or act in spaces of different sizes, and the "
            "training loop takes agents of equal spaces."
        )
    return groups[0]


def episode_returns(batch: TensorDictBase, reward_key: NestedKey) -> torch.Tensor:
    """Sum of rewards of every episode that ends in a batch, mean over agents, ``[episodes]``."""
    done = batch["next", "done"].squeeze(-1)
    returns: torch.Tensor = batch["next"].get(episode_key(reward_key))
    return returns[done].flatten(1).mean(1)


def _team_mean(reward: torch.Tensor) -> torch.Tensor:
    return reward.mean(-2, keepdim=True).expand_as(reward).contiguous()
