"""VMAS scenarios, simulated together as one batch."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torchrl.envs import EnvBase, VmasEnv

from torchrl_ob.experiments.config.modules import load_file, load_object
from torchrl_ob.experiments.envs.simulators import told
from torchrl_ob.experiments.envs.teams import read_group_map, team_env
from torchrl_ob.experiments.errors import ExperimentError, nearest

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
    groups = read_group_map(group_map)
    given = {"scenario_kwargs": scenario_kwargs, "group_map": groups}
    with (
        told("VMAS", "'torchrl-ob[experiments]'", "scenario", scenario, given),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings(
            "error", "Scenario kwargs"
        )  # of one that the scenario does not read
        try:
            env = VmasEnv(
                _find_scenario(scenario),
                num_envs=num_envs,
                max_steps=None,
                continuous_actions=continuous_actions,
                seed=seed,
                device=device,
                group_map=groups,
                **(scenario_kwargs or {}),
            )
        except UserWarning as error:
            unread = [x for x in scenario_kwargs or {} if repr(x) in str(error)]
            if not unread:
                raise
            away = " ".join(shlex.quote(f"~env.scenario_kwargs.{x}") for x in unread)
            raise ExperimentError(
                f"VMAS refuses scenario {scenario!r}, which has no argument {' or '.join(map(repr, unread))}: leave it out; "
                f"what an experiment sets is taken away by {away}."
            ) from error
    return team_env(env, max_steps=max_steps, shared_reward=shared_reward)


def _find_scenario(scenario: str | BaseScenario) -> str | BaseScenario:
    """One of VMAS's own by its name, or an instance of another."""
    from vmas.simulator.scenario import BaseScenario

    if isinstance(scenario, BaseScenario):
        if scenario._world is not None:
            raise ExperimentError(
                f"this {type(scenario).__name__} belongs to an environment already: give each an instance of its own."
            )
        return scenario
    if scenario in VmasEnv.available_envs:
        return scenario
    if scenario.endswith(".py"):
        found: Any = load_file(Path(scenario), "env.scenario")
    elif "." in scenario:
        found = load_object(scenario, "env.scenario")
    else:
        raise ExperimentError(
            f"VMAS has no scenario {scenario!r}: {nearest(scenario, VmasEnv.available_envs)} One of your own is named by its "
            f"file, {scenario}.py, or by its module."
        )
    kind = getattr(found, "Scenario", found)
    if not isinstance(kind, type) or not issubclass(kind, BaseScenario):
        raise ExperimentError(
            f"env.scenario={scenario} has no class Scenario that is a vmas.simulator.scenario.BaseScenario."
        )
    return kind()
