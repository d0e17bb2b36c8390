"""Multi-Agent MuJoCo: robots whose joints are shared out among agents."""

from __future__ import annotations

from functools import partial
from typing import Unpack

from torchrl.envs import EnvBase

from torchrl_ob.envs.mamujoco import SCENARIOS, MaMujocoEnv
from torchrl_ob.experiments.envs.simulators import (
    BatchOptions,
    batch_team,
    require_name,
    require_team_reward,
    told,
)

__all__ = ["make_mamujoco"]


def make_mamujoco(
    scenario: str,
    agent_conf: str | None,
    *,
    agent_obsk: int = 1,
    **options: Unpack[BatchOptions],
) -> EnvBase:
    """Robots of :class:`~torchrl_ob.envs.mamujoco.MaMujocoEnv`.

    A fall ends an episode (``terminated``); after ``max_steps``, or 1,000, it is cut (``truncated``).

    Args:
        scenario: the robot, such as ``"HalfCheetah"``.
        agent_conf: how it is shared out, such as ``"6x1"``; ``None`` for one agent that has it all.
        agent_obsk: an agent observes joints up to so many away from its own.
        **options: the sizes of the batch, and ``scenario_kwargs`` such as ``{"ctrl_cost_weight": 0.0}``.

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
    library = "Multi-Agent MuJoCo"
    require_team_reward(options, library)
    require_name(library, "scenario", scenario, SCENARIOS)
    known = SCENARIOS[scenario]
    remedy = "" if agent_conf == known else f": take env.agent_conf={known or 'null'}"
    given = {
        "agent_conf": agent_conf,
        "agent_obsk": agent_obsk,
        "scenario_kwargs": options.get("scenario_kwargs"),
    }
    with told(library, "'torchrl-ob[mujoco]'", "scenario", scenario, given, remedy):
        return batch_team(partial(MaMujocoEnv, scenario, agent_conf, agent_obsk), **options)
