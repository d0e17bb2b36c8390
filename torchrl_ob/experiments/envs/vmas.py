"""VMAS scenarios, simulated together as one batch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torchrl.envs import EnvBase, VmasEnv

from torchrl_ob.experiments.config.modules import load_file, load_object
from torchrl_ob.experiments.envs.teams import read_group_map, team_env
from torchrl_ob.experiments.errors import ExperimentError, first_line, nearest

if TYPE_CHECKING:
    from vmas.simulator.scenario import BaseScenario

__all__ = ["make_vmas"]


def make_vmas(
    scenario: str | BaseScenario,
    *,
    num_envs: int,
    max_steps: int,
    seed: int,
    continuous_actions: bool = True,
    shared_reward: bool = False,
    group_map: str | Mapping[str, Sequence[str]] | None = None,
    scenario_kwargs: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> EnvBase:
    """A VMAS scenario, of one team or of several groups of agents.

    Episodes are cut after ``max_steps`` as a time limit (``truncated``): the return goes on with
    what the critic expects beyond. The sum of rewards so far is in ``(group, "episode_reward")``.

    Args:
        scenario: name of a VMAS scenario; of your own the path of its file, ``"my_scenario.py"``, or its module, whose class
            is called ``Scenario`` as in VMAS, or the class, ``"my_package.my_scenario.MyScenario"``; or an instance, of which
            each environment takes one of its own.
        num_envs: number of environments that step together.
        max_steps: length of an episode.
        seed: of the starts of episodes.
        continuous_actions: or discrete ones.
        shared_reward: give every agent the mean of its group's rewards, as in a cooperative task
            (arXiv:2108.08612, section 2).
        group_map: which agents form a group: by default those whose names differ in their number alone;
            ``"one_group_per_agent"``, ``"all_in_one_group"``, or names of agents by that of their group.
        scenario_kwargs: arguments of the scenario, such as ``{"n_agents": 4}``.
        device: where the simulation runs.

    Returns:
        The environment.

    Raises:
        ExperimentError: for a scenario or an argument that VMAS does not know, and for agents of one
            group whose spaces differ.

    Example:
        >>> from torchrl_ob.experiments.envs.vmas import make_vmas  # needs vmas
        >>> env = make_vmas("balance", num_envs=2, max_steps=5, seed=0, shared_reward=True)
        >>> env.rollout(5)["next", "agents", "episode_reward"].shape
        torch.Size([2, 5, 3, 1])
    """
    own = _own_scenario(scenario)
    groups = read_group_map(group_map)
    try:
        with warnings.catch_warnings():  # of an argument that the scenario does not read
            warnings.filterwarnings("error", "Scenario kwargs")
            env = VmasEnv(
                scenario if own is None else own,
                num_envs=num_envs,
                max_steps=None,
                continuous_actions=continuous_actions,
                seed=seed,
                device=device,
                group_map=groups,
                **dict(scenario_kwargs or {}),
            )
    except Exception as error:
        raise ExperimentError(
            f"VMAS refuses scenario {scenario!r} with scenario_kwargs={dict(scenario_kwargs or {})}"
            f"{f' and group_map={groups}' if groups else ''}: {first_line(error)}"
        ) from error
    return team_env(env, max_steps=max_steps, shared_reward=shared_reward)


def _own_scenario(scenario: str | BaseScenario) -> BaseScenario | None:
    """What is not one of VMAS's own; it needs VMAS, which has to be there first."""
    try:
        known = VmasEnv.available_envs
        from vmas.simulator.scenario import BaseScenario
    except ImportError as error:
        raise ExperimentError(
            "VMAS is not installed: pip install 'torchrl-ob[experiments]'"
        ) from error
    if isinstance(scenario, str):
        if scenario in known:
            return None
        if scenario.endswith(".py"):
            found: Any = load_file(Path(scenario), "env.scenario")
        elif "." in scenario:
            found = load_object(scenario, "env.scenario")
        else:
            raise ExperimentError(
                f"VMAS has no scenario {scenario!r}: {nearest(scenario, known)} One of your own is named by its file, "
                f"{scenario}.py, or by its module."
            )
        kind = found if isinstance(found, type) else getattr(found, "Scenario", None)
        if not isinstance(kind, type) or not issubclass(kind, BaseScenario):
            raise ExperimentError(
                f"env.scenario={scenario} has no class Scenario that is a vmas.simulator.scenario.BaseScenario."
            )
        return kind()
    if not isinstance(scenario, BaseScenario):
        raise ExperimentError(
            f"a scenario of VMAS is its name or an instance of BaseScenario, got {scenario!r}."
        )
    if scenario._world is not None:
        raise ExperimentError(
            f"this {type(scenario).__name__} belongs to an environment already: give each an instance of its own."
        )
    return scenario
