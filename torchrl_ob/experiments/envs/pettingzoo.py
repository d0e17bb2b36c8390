"""Games of PettingZoo, in which all agents act at once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Unpack

from tensordict import TensorDictBase
from torchrl.envs import EnvBase
from torchrl.envs.libs.pettingzoo import PettingZooWrapper

from torchrl_ob.experiments.config.modules import load_module
from torchrl_ob.experiments.envs.simulators import BatchOptions, batch_team, told
from torchrl_ob.experiments.envs.teams import read_group_map, spaces_differ
from torchrl_ob.experiments.errors import ExperimentError

__all__ = ["make_pettingzoo"]


def make_pettingzoo(
    task: str,
    *,
    group_map: str | Mapping[str, Sequence[str]] | None = None,
    use_mask: bool = False,
    **options: Unpack[BatchOptions],
) -> EnvBase:
    """Games of PettingZoo, of one team or of several groups of agents.

    Args:
        task: a module with a function ``parallel_env``, such as ``"mpe2.simple_tag_v3"``.
        group_map: which agents form a group: by default those whose names differ in their number alone;
            ``"one_group_per_agent"``, ``"all_in_one_group"``, or names of agents by that of their group.
        use_mask: let agents leave before the game ends; they then take no part, and an episode ends when
            all have left. Without it, the first to leave ends it.
        **options: the sizes of the batch, and ``scenario_kwargs``, arguments of ``parallel_env``. A game may end before
            ``max_steps`` by itself.

    Returns:
        The environment, of batch size ``[num_envs]``.

    Raises:
        ExperimentError: for a task or an argument that is not known, without its packages, and for agents
            of one group whose spaces differ.
    """
    make_env = partial(_make_game, task, read_group_map(group_map), use_mask)
    given = {"scenario_kwargs": options.get("scenario_kwargs")}
    with told("PettingZoo", "'torchrl-ob[pettingzoo]'", "task", task, given):
        import pettingzoo  # noqa: F401

        return batch_team(make_env, **options)


def _make_game(task: str, group_map: Any, use_mask: bool, /, **arguments: Any) -> EnvBase:
    make_game = getattr(load_module(task, "env.task"), "parallel_env", None)
    if make_game is None:
        raise ExperimentError(
            f"env.task={task} has no function parallel_env: name a module of a game whose agents act at "
            "once, such as mpe2.simple_tag_v3."
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PettingZoo in TorchRL is tested using version")
        game = make_game(**arguments)
        return _Game(env=game, group_map=group_map, use_mask=use_mask, done_on_any=not use_mask)


class _Game(PettingZooWrapper):
    """A game without what it tells of its inner state, and whose agents of a group are of a kind."""

    def _make_specs(self, env: Any) -> None:
        super()._make_specs(env)
        for group, agents in self.group_map.items():
            for find_space in (self.observation_space, self.action_space):
                if len({str(find_space(agent)) for agent in agents}) > 1:
                    raise spaces_differ(group, agents)

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
