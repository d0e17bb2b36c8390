"""SMAX: the battles of StarCraft's micromanagement challenge in JAX, simulated together as one batch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torchrl.envs import ActionMask, Compose, EnvBase, UnaryTransform

from torchrl_ob.envs.jaxmarl import JaxMARLEnv
from torchrl_ob.experiments.envs.simulators import require_name, require_team_reward, told
from torchrl_ob.experiments.envs.teams import team_env

__all__ = ["make_smax"]


def make_smax(
    map_name: str,
    *,
    num_envs: int,
    max_steps: int,
    seed: int,
    shared_reward: bool = True,
    continuous_actions: bool | None = None,
    scenario_kwargs: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> EnvBase:
    """A map of SMAX (Rutherford et al., arXiv:2311.10090), whose enemies follow its heuristic.

    An episode ends with the battle. One that is not decided after ``max_steps`` is cut, as a time
    limit (``truncated``). All agents get the reward of the team, dead ones too. Positions in the
    ``"state"`` are shares of the map, as those in the observations are; SMAX itself has them in units
    of the map, up to 32.

    Args:
        map_name: such as ``"3m"``.
        num_envs: number of environments that step together.
        max_steps: length of an episode that no battle ends.
        seed: of the starts of episodes and of the battles' chances.
        shared_reward: the reward is the team's: nothing else is possible.
        continuous_actions: which actions are asked for, as ``scenario_kwargs`` may set them.
        scenario_kwargs: arguments of JaxMARL's ``HeuristicEnemySMAX``, such as
            ``{"attack_mode": "random"}``.
        device: where the simulation runs.

    Returns:
        The environment. Random actions are among the available ones.

    Raises:
        ExperimentError: for a map or an argument that SMAX does not know, where JaxMARL is not
            installed, and where JAX has no such device.

    Example:
        >>> from torchrl_ob.experiments.envs.smax import make_smax  # needs jaxmarl
        >>> env = make_smax("3m", num_envs=2, max_steps=5, seed=0)
        >>> env.rollout(5)["next", "agents", "episode_reward"].shape
        torch.Size([2, 5, 3, 1])
    """
    require_team_reward({"shared_reward": shared_reward}, "SMAX")
    logging.getLogger("jax").setLevel(logging.WARNING)  # it tells of each device that is not there
    given = {"scenario_kwargs": scenario_kwargs, "device": str(device)}
    with told("SMAX", "'torchrl-ob[smax]'", "map", map_name, given):
        maps = JaxMARLEnv.lib.environments.smax.smax_env.MAP_NAME_TO_SCENARIO
        require_name("SMAX", "map", map_name, maps)
        env = JaxMARLEnv(
            "HeuristicEnemySMAX",
            scenario=maps[map_name],
            max_steps=max_steps,
            num_envs=num_envs,
            seed=seed,
            device=device,
            **(scenario_kwargs or {}),
        )
    transforms = [UnaryTransform(["state"], ["state"], fn=_state_scale(env).mul)]
    if "action_mask" in env.observation_spec["agents"]:  # not where actions are continuous
        transforms.append(ActionMask(("agents", "action"), ("agents", "action_mask")))
    team = team_env(env, max_steps=max_steps, continuous_actions=continuous_actions)
    return team.append_transform(Compose(*transforms))


def _state_scale(env: EnvBase) -> torch.Tensor:
    """What the state is multiplied by: one, and for positions one over the size of the map."""
    features = len(env.own_features)  # of a unit; the teams and types of all units follow
    units = env.observation_spec["state"].shape[-1] // (features + 2)
    scale = torch.ones(units, features, device=env.device)
    for name, size in (("position_x", env.map_width), ("position_y", env.map_height)):
        scale[:, env.own_features.index(name)] = 1 / size
    return torch.cat([scale.flatten(), torch.ones(2 * units, device=env.device)])
