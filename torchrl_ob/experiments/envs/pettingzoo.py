"""Games of PettingZoo, in which all agents act at once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.envs import EnvBase
from torchrl.envs.libs.pettingzoo import PettingZooWrapper

from torchrl_ob.experiments.config.modules import load_module
from torchrl_ob.experiments.envs.batched_envs import batch_envs
from torchrl_ob.experiments.envs.teams import read_group_map, team_env
from torchrl_ob.experiments.errors import ExperimentError, first_line

__all__ = ["make_pettingzoo"]


def make_pettingzoo(
    task: str,
    *,
    num_envs: int,
    max_steps: int,
    seed: int,
    shared_reward: bool = False,
    continuous_actions: bool | None = None,
    group_map: str | Mapping[str, Sequence[str]] | None = None,
    use_mask: bool = False,
    parallel: bool = False,
    scenario_kwargs: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> EnvBase:
    """Games of PettingZoo, of one team or of several groups of agents.

    Args:
        task: a module with a function ``parallel_env``, such as ``"mpe2.simple_tag_v3"``.
        num_envs: number of games.
        max_steps: length of an episode, where the game itself does not end it before.
        seed: that those of the games follow from.
        shared_reward: give every agent the mean of its group's rewards.
        continuous_actions: which actions are asked for; by default those of the game.
        group_map: which agents form a group: by default those whose names differ in their number alone;
            ``"one_group_per_agent"``, ``"all_in_one_group"``, or names of agents by that of their group.
        use_mask: let agents leave before the game ends; they then take no part, and an episode ends when
            all have left. Without it, the first to leave ends it.
        parallel: step each in a process of its own.
        scenario_kwargs: arguments of ``parallel_env``.
        device: where the tensors are.

    Returns:
        The environment, of batch size ``[num_envs]``.

    Raises:
        ExperimentError: for a task or an argument that is not known, without its packages, and for agents
            of one group whose spaces differ.
    """
    make_env = partial(
        _make_game, task, dict(scenario_kwargs or {}), read_group_map(group_map), use_mask
    )
    try:
        env = batch_envs(make_env, num_envs, seed=seed, parallel=parallel, device=device)
    except ExperimentError:
        raise
    except Exception as error:
        raise ExperimentError(
            f"PettingZoo refuses task {task!r} with scenario_kwargs={dict(scenario_kwargs or {})}: "
            f"{first_line(error)}"
        ) from error
    return team_env(
        env,
        max_steps=max_steps,
        shared_reward=shared_reward,
        continuous_actions=continuous_actions,
    )


def _make_game(task: str, options: dict[str, Any], group_map: Any, use_mask: bool) -> EnvBase:
    try:
        import pettingzoo  # noqa: F401
    except ModuleNotFoundError as error:
        raise ExperimentError(
            "PettingZoo's games need pettingzoo: pip install 'torchrl-ob[pettingzoo]'"
        ) from error
    make_game = getattr(load_module(task, "env.task"), "parallel_env", None)
    if make_game is None:
        raise ExperimentError(
            f"env.task={task} has no function parallel_env: name a module of a game whose agents act at "
            "once, such as mpe2.simple_tag_v3."
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PettingZoo in TorchRL is tested using version")
        return _Game(
            env=make_game(**options),
            group_map=group_map,
            use_mask=use_mask,
            done_on_any=not use_mask,
        )


class _Game(PettingZooWrapper):
    """A game without what it tells of its inner state, and whose agents of a group are of a kind."""

    def _make_specs(self, env: Any) -> None:
        super()._make_specs(env)
        for group, agents in self.group_map.items():
            for find_space in (self.observation_space, self.action_space):
                if len({str(find_space(agent)) for agent in agents}) > 1:
                    raise ExperimentError(
                        f"agents of the group {group!r} observe or act in different spaces, and those of a "
                        "group share one: take env.group_map=one_group_per_agent, or name groups of equal "
                        f"agents, env.group_map={{{group}: [{agents[0]}], ...}}."
                    )

    def _reset_parallel(self, **options: Any) -> Any:
        observations, infos = super()._reset_parallel(**options)
        return observations, _masks(infos)

    def _step_parallel(self, tensordict: TensorDictBase) -> Any:
        *found, infos = super()._step_parallel(tensordict)
        return *found, _masks(infos)


def _masks(infos: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of what the game tells, the actions available: the rest may differ from step to step."""
    return {
        agent: {name: value for name, value in info.items() if name == "action_mask"}
        for agent, info in infos.items()
    }
