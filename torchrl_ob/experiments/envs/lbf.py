"""Level-Based Foraging: players on a grid collect food that they are too weak to take alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.envs import EnvBase
from torchrl.envs.libs.lbforaging import LBForagingWrapper

from torchrl_ob.experiments.envs.batched_envs import batch_envs
from torchrl_ob.experiments.envs.teams import team_env
from torchrl_ob.experiments.errors import ExperimentError, first_line, nearest

__all__ = ["make_lbf"]


def make_lbf(
    task: str,
    *,
    num_envs: int,
    max_steps: int,
    seed: int,
    shared_reward: bool = False,
    continuous_actions: bool | None = None,
    parallel: bool = False,
    scenario_kwargs: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> EnvBase:
    """Fields of Level-Based Foraging.

    The last food ends an episode (``terminated``); after ``max_steps`` it is cut (``truncated``). A
    player is rewarded for its share of what is collected, and the rewards of all players sum to 1 over
    an episode in which everything is: the mean over n agents that is logged is at most 1 / n.

    Args:
        task: of lbforaging, ``"Foraging-8x8-2p-3f-v3"``: the size of the field, players, food;
            ``-coop`` where all players are needed for each, ``-2s`` where they see two cells far.
        num_envs: number of fields.
        max_steps: length of an episode.
        seed: that those of the fields follow from.
        shared_reward: give every player the mean of the team's rewards.
        continuous_actions: they are not.
        parallel: step each in a process of its own.
        scenario_kwargs: arguments of the task, such as ``{"max_player_level": 3}``.
        device: where the tensors are.

    Returns:
        The environment, of batch size ``[num_envs]``.

    Raises:
        ExperimentError: for a task or an argument that is not known, and without lbforaging.

    Example:
        >>> from torchrl_ob.experiments.envs.lbf import make_lbf  # needs lbforaging
        >>> env = make_lbf("Foraging-5x5-2p-1f-v3", num_envs=3, max_steps=5, seed=0)
        >>> env.rollout(2)["next", "agents", "reward"].shape
        torch.Size([3, 2, 2, 1])
    """
    try:
        import gymnasium
        import lbforaging  # noqa: F401  # registers its tasks
    except ModuleNotFoundError as error:
        raise ExperimentError(
            "Level-Based Foraging needs lbforaging: pip install 'torchrl-ob[lbf]'"
        ) from error
    tasks = [name for name in gymnasium.registry if name.startswith("Foraging-")]
    if task not in tasks:
        if len(near := nearest(task, tasks)) > 200:  # there are two thousand
            near = "choose one such as 'Foraging-8x8-2p-3f-v3'."
        raise ExperimentError(f"Level-Based Foraging has no task {task!r}: {near}")
    options = {"max_episode_steps": max_steps, **dict(scenario_kwargs or {})}
    make_env = partial(_make_field, task, options)
    try:
        env = batch_envs(make_env, num_envs, seed=seed, parallel=parallel, device=device)
    except Exception as error:
        raise ExperimentError(
            f"Level-Based Foraging refuses task {task!r} with scenario_kwargs={dict(scenario_kwargs or {})}: "
            f"{first_line(error)}"
        ) from error
    return team_env(
        env,
        max_steps=max_steps,
        shared_reward=shared_reward,
        continuous_actions=continuous_actions,
    )


def _make_field(task: str, options: dict[str, Any]) -> EnvBase:
    import gymnasium
    import lbforaging  # noqa: F401  # in the process where it steps

    # the field's own limit: gymnasium.make would set that of a wrapper, and leave the field's 50 steps
    spec = copy.deepcopy(gymnasium.spec(task))
    spec.kwargs |= options
    return _Field(gymnasium.make(spec, disable_env_checker=True))


class _Field(LBForagingWrapper):
    """A field whose starts follow from its seed alone."""

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        for player in self._env.unwrapped.players:
            player.position = None  # no start is drawn where one was when the last episode ended
        return super()._reset(tensordict, **kwargs)
