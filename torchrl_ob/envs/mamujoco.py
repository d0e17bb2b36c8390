"""Multi-Agent MuJoCo: the joints of one robot shared out among agents."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Bounded, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

__all__ = ["SCENARIOS", "MaMujocoEnv"]

SCENARIOS = {
    "Ant": "4x2",
    "CoupledHalfCheetah": "1p1",
    "HalfCheetah": "6x1",
    "Hopper": "3x1",
    "Humanoid": "9|8",
    "HumanoidStandup": "9|8",
    "InvertedDoublePendulum": None,
    "InvertedPendulum": None,
    "ManySegmentAnt": "2x3",
    "ManySegmentSwimmer": "10x2",
    "Pusher": "3p",
    "Reacher": "2x1",
    "Swimmer": "2x1",
    "Walker2d": "2x3",
}
"""The robots of gymnasium-robotics' Multi-Agent MuJoCo, and a way of sharing each out; a pendulum has one joint.

Version 1.4.2 reads the tendon of ``CoupledHalfCheetah`` as older versions of mujoco gave it, and raises
``IndexError`` with mujoco 4.0.
"""


class MaMujocoEnv(EnvBase):
    """One robot of Multi-Agent MuJoCo, of gymnasium-robotics, whose agents are one team.

    TorchRL's ``PettingZooWrapper`` takes agents of one group that observe vectors of the same size,
    and an info that is the same at reset and at a step; this robot has neither. Here

    * ``("agents", "observation")`` ``[n, o + n]`` is what an agent sees, filled up with zeros to the
      size o of the longest, then its identity, one-hot (as in arXiv:2108.08612);
    * ``("agents", "action")`` ``[n, d]`` has as many entries as the largest share of actuators; an
      agent with fewer uses the first ones and the others do nothing;
    * ``"state"`` ``[s]`` is what one agent that had the whole robot would observe;
    * ``("agents", "reward")`` ``[n, 1]`` is the robot's, the same for all;
    * a fall is ``"terminated"``, and the limit of gymnasium, 1,000 steps, ``"truncated"``.

    Args:
        scenario: the robot, one of :data:`SCENARIOS`.
        agent_conf: how it is shared out, such as ``"6x1"`` (six agents of one joint), ``"2x3"``, or
            ``"9|8"``.
        agent_obsk: an agent observes joints up to so many away from its own.

    Keyword Args:
        device: where the tensors are.
        **options: of gymnasium-robotics' ``parallel_env`` and of the robot, such as
            ``ctrl_cost_weight=0.0``.

    Raises:
        ModuleNotFoundError: without gymnasium-robotics and mujoco.

    Example:
        >>> from torchrl_ob.envs.mamujoco import MaMujocoEnv  # needs gymnasium-robotics and mujoco
        >>> env = MaMujocoEnv("HalfCheetah", "6x1")
        >>> env.rollout(3)["agents", "action"].shape
        torch.Size([3, 6, 1])
    """

    def __init__(
        self,
        scenario: str,
        agent_conf: str | None,
        agent_obsk: int | None = 1,
        *,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> None:
        super().__init__(device=device)
        self.robot = _parallel_env(scenario, agent_conf, agent_obsk, **options)
        self.agent_names = list(self.robot.possible_agents)
        self.group_map = {"agents": self.agent_names}
        self.seed_of_reset: int | None = None
        spaces = [self.robot.action_space(agent) for agent in self.agent_names]
        self.num_actuators = [space.shape[0] for space in spaces]
        widths = [self.robot.observation_space(agent).shape[0] for agent in self.agent_names]
        n, d = len(spaces), max(self.num_actuators)
        identity = np.eye(n, dtype=np.float32)
        self.blank = np.hstack([np.zeros((n, max(widths)), dtype=np.float32), identity])
        low, high = (
            torch.tensor([[float(end[0])] * d for end in ends])
            for ends in zip(*[(space.low, space.high) for space in spaces], strict=True)
        )
        self.observation_spec = Composite(
            agents=Composite(observation=Unbounded(self.blank.shape), shape=(n,)),
            state=Unbounded(self.robot.state().shape),
            device=self.device,
        )
        self.action_spec = Composite(
            agents=Composite(action=Bounded(low, high, (n, d)), shape=(n,)), device=self.device
        )
        self.reward_spec = Composite(
            agents=Composite(reward=Unbounded((n, 1)), shape=(n,)), device=self.device
        )
        ends = ("done", "terminated", "truncated")
        self.done_spec = Composite(
            {end: Categorical(2, (1,), dtype=torch.bool) for end in ends}, device=self.device
        )

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDictBase:
        observations, _info = self.robot.reset(seed=self.seed_of_reset)
        self.seed_of_reset = None  # further episodes go on with its random numbers
        return self._observed(observations)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        actions = tensordict.get(("agents", "action")).cpu().numpy()
        shares = zip(self.agent_names, actions, self.num_actuators, strict=True)
        observations, rewards, terminated, truncated, _ = self.robot.step(
            {agent: action[:size] for agent, action, size in shares}
        )
        result = self._observed(observations)
        first = self.agent_names[0]  # what is one agent's is every agent's
        result["agents", "reward"] = torch.full((len(actions), 1), float(rewards[first]))
        ends = {"terminated": bool(terminated[first]), "truncated": bool(truncated[first])}
        for name, end in {**ends, "done": any(ends.values())}.items():
            result[name] = torch.tensor([end])
        return result

    def _set_seed(self, seed: int | None) -> None:
        self.seed_of_reset = seed

    def _observed(self, observations: dict[str, Any]) -> TensorDict:
        padded = self.blank.copy()
        for row, agent in zip(padded, self.agent_names, strict=True):
            row[: len(observations[agent])] = observations[agent]
        agents = TensorDict({"observation": torch.from_numpy(padded)}, batch_size=[len(padded)])
        state = torch.as_tensor(self.robot.state(), dtype=torch.float32)
        return TensorDict({"agents": agents, "state": state}, device=self.device)

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Close the simulator."""
        super().close(raise_if_closed=raise_if_closed)
        self.robot.close()


def _parallel_env(*arguments: Any, **options: Any) -> Any:
    try:
        import mujoco  # noqa: F401  # gymnasium-robotics is imported without it

        with redirect_stderr(io.StringIO()):  # it prints a notice about robots of another kind
            from gymnasium_robotics import mamujoco_v1
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Multi-Agent MuJoCo needs gymnasium-robotics and mujoco: pip install 'torchrl-ob[mujoco]'",
            name=error.name,
        ) from error
    return mamujoco_v1.parallel_env(*arguments, **options)
