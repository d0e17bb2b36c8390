"""Copies of states of a VMAS environment."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torchrl.envs import Compose, EnvBase, TensorDictPrimer, TransformedEnv

from torchrl_ob._rng import find_simulator, isolated_rng
from torchrl_ob.diagnostics.branching.simulator import read_simulator, write_simulator

__all__ = ["clone_vmas", "find_scenario_name"]


def clone_vmas(env: EnvBase, index: Tensor) -> EnvBase:
    """A new environment of ``len(index)`` copies; the k-th is in the state of env's ``index[k]``-th.

    A second environment is built with the arguments of the first. Then whatever the first one's
    scenario and world hold is written into it: entities' states, shaping terms, counters, sensors,
    controllers. What has the number of environments as a size is taken at ``index``. Transforms are
    copied with their state. The environment handed in and all random states are left as they were.

    Args:
        env: TorchRL's ``VmasEnv``, or a ``TransformedEnv`` of one.
        index: which state each copy takes, ``[M]``.

    Raises:
        TypeError: for an environment of another kind.
        ValueError: if the scenario holds something that has no counterpart in a second
            environment, by the scenario's name and the path to it.

    Example:
        >>> import torch
        >>> from torchrl.envs.libs.vmas import VmasEnv
        >>> from torchrl_ob.diagnostics.branching.clone import clone_vmas
        >>> env = VmasEnv("navigation", num_envs=2, n_agents=2, seed=0)
        >>> td = env.rollout(3)[:, -1]
        >>> wide = clone_vmas(env, torch.tensor([0, 1, 1]))
        >>> wide.batch_size
        torch.Size([3])
        >>> action = env.rand_action(td)["agents", "action"]
        >>> reward = wide.step(td[[0, 1, 1]].set(("agents", "action"), action[[0, 1, 1]]))["next"]
        >>> env.step(td)["next", "agents", "reward"][1].equal(reward["agents", "reward"][2])
        True
    """
    if isinstance(env, TransformedEnv):
        transform = copy.deepcopy(env.transform.clone())  # a clone alone shares its tensors
        for primer in transform if isinstance(transform, Compose) else [transform]:
            if isinstance(primer, TensorDictPrimer) and primer.primers.shape == env.batch_size:
                primer.primers = primer.primers[0]  # it was expanded when it was appended
        return TransformedEnv(clone_vmas(env.base_env, index), transform)
    simulator = find_simulator(env)
    if not hasattr(simulator, "vmas_random_state"):
        raise TypeError(
            f"clone_vmas copies VmasEnv, and this is a {type(env).__name__}. Hand over a function clone(env, index) for it."
        )
    if len(index) == env.batch_size[0]:
        # sizes would not tell what each environment has its own of: by way of one copy more
        wider = clone_vmas(env, torch.cat([index, index[:1]]))
        return clone_vmas(wider, torch.arange(len(index)))
    with isolated_rng(env=env), torch.no_grad():
        twin = _build(env, len(index))
        # a step makes the tensors that are made on first use
        twin.step(twin.rand_action(twin.reset()))
        try:
            read_simulator(twin._env, write_simulator(simulator), index)
        except ValueError as error:
            raise ValueError(
                f"a state of the VMAS scenario {find_scenario_name(env)!r} cannot be copied to a second environment: {error} Hand "
                "over a function clone(env, index) that copies it."
            ) from error
    return twin


def find_scenario_name(env: EnvBase) -> str:
    """The name of the scenario of a VMAS environment; of the class of another."""
    scenario = getattr(env, "scenario_name", type(env).__name__)
    return scenario if isinstance(scenario, str) else type(scenario).__name__


def _build(env: EnvBase, num_envs: int) -> EnvBase:
    """A second environment with the arguments of the first."""
    arguments = dict(env._constructor_kwargs)
    if "scenario" not in arguments:
        raise ValueError(
            f"how a {type(env).__name__} was built is unknown. Build it as VmasEnv(scenario, num_envs=...)."
        )
    if not isinstance(arguments["scenario"], str):  # the instance holds the first one's world
        arguments["scenario"] = type(arguments["scenario"])()
    arguments |= {
        "num_envs": num_envs,
        "device": env.device,
        "group_map": env.group_map,
        "categorical_actions": env.categorical_actions,
    }
    return type(env)(**arguments)
