"""Multi-Agent MuJoCo: robots whose joints are shared out among agents."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torchrl.envs import EnvBase

from torchrl_ob.envs.mamujoco import SCENARIOS, MaMujocoEnv
from torchrl_ob.experiments.envs.batched_envs import batch_envs
from torchrl_ob.experiments.envs.teams import require_team_reward, team_env
from torchrl_ob.experiments.errors import ExperimentError, first_line, nearest

__all__ = ["make_mamujoco"]


def make_mamujoco(
    scenario: str,
    agent_conf: str | None,
    *,
    num_envs: int,
    max_steps: int,
    seed: int,
    agent_obsk: int = 1,
    parallel: bool = False,
    shared_reward: bool = True,
    continuous_actions: bool | None = None,
    scenario_kwargs: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> EnvBase:
    """Robots of :class:`~torchrl_ob.envs.mamujoco.MaMujocoEnv`.

    A fall ends an episode (``terminated``); after ``max_steps``, or 1,000, it is cut (``truncated``).

    Args:
        scenario: the robot, such as ``"HalfCheetah"``.
        agent_conf: how it is shared out, such as ``"6x1"``; ``None`` for one agent that has it all.
        num_envs: number of robots.
        max_steps: length of an episode.
        seed: that those of the robots follow from.
        agent_obsk: an agent observes joints up to so many away from its own.
        parallel: step each in a process of its own.
        shared_reward: the reward is the team's: nothing else is possible.
        continuous_actions: they are.
        scenario_kwargs: arguments of the robot, such as ``{"ctrl_cost_weight": 0.0}``.
        device: where the tensors are.

    Returns:
        The environment, of batch size ``[num_envs]``.

    Raises:
        ExperimentError: for a robot, a way of sharing it out or an argument that is not known, and
            without gymnasium-robotics and mujoco.

    Example:
        >>> from torchrl_ob.experiments.envs.mamujoco import make_mamujoco  # needs mujoco
        >>> env = make_mamujoco("Hopper", "3x1", num_envs=2, max_steps=5, seed=0)
        >>> env.rollout(5)["next", "agents", "episode_reward"].shape
        torch.Size([2, 5, 3, 1])
    """
    require_team_reward(shared_reward, "Multi-Agent MuJoCo")
    if scenario not in SCENARIOS:
        raise ExperimentError(
            f"Multi-Agent MuJoCo has no scenario {scenario!r}: {nearest(scenario, SCENARIOS)}"
        )
    options = dict(scenario_kwargs or {})
    make_env = partial(MaMujocoEnv, scenario, agent_conf, agent_obsk, **options)
    try:
        env = batch_envs(make_env, num_envs, seed=seed, parallel=parallel, device=device)
    except ModuleNotFoundError as error:
        raise ExperimentError(first_line(error)) from error
    except Exception as error:
        known = SCENARIOS[scenario]
        remedy = "" if agent_conf == known else f": take env.agent_conf={known or 'null'}"
        raise ExperimentError(
            f"Multi-Agent MuJoCo refuses scenario {scenario!r} with agent_conf={agent_conf!r}, "
            f"agent_obsk={agent_obsk!r} and scenario_kwargs={options}: {first_line(error)}{remedy}"
        ) from error
    return team_env(env, max_steps=max_steps, continuous_actions=continuous_actions)
