"""A game for teams that remember: what each agent is told at the first step decides what it must do at the last."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from torchrl_ob._checks.arguments import check_whole_number

__all__ = ["RememberTheCue"]


class RememberTheCue(EnvBase):
    """Each agent gets a cue at the first step and must name it ``delay`` steps later; the reward is the team's.

    Observations ``("agents", "observation")`` ``[n, 2]`` are the cue, +1 or -1 at the first step and 0 later, and 1 at the last
    step, when it counts. Actions ``("agents", "action")`` are 0 or 1. The reward ``"reward"`` ``[1]`` is 0 before the last
    step, and there the share of agents that choose 1 for +1 and 0 for -1. A team without a memory cannot exceed
    1/2 in the mean, whatever it does; one that remembers reaches 1.

    Args:
        num_envs: how many games are played at once.
        num_agents: n.
        delay: steps from the cue to the answer.
        seed: of the cues.
        device: where everything is.

    Example:
        >>> from torchrl_ob.envs.cue import RememberTheCue
        >>> env = RememberTheCue(4, num_agents=3, delay=10, seed=0)
        >>> td = env.rollout(20)
        >>> td.shape, td["next", "terminated"][:, -1].all()
        (torch.Size([4, 11]), tensor(True))
    """

    def __init__(
        self,
        num_envs: int,
        *,
        num_agents: int = 3,
        delay: int = 10,
        seed: int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        check_whole_number("num_envs", num_envs)
        check_whole_number("num_agents", num_agents)
        check_whole_number("delay", delay)
        super().__init__(device=device, batch_size=[num_envs])
        self.delay, shape = delay, (num_envs, num_agents)
        self.group_map = {"agents": [f"agent_{k}" for k in range(num_agents)]}

        def of_agents(**specs: Composite) -> Composite:
            return Composite(agents=Composite(specs, shape=shape), shape=shape[:1])

        self.observation_spec = of_agents(observation=Unbounded((*shape, 2)))
        self.action_spec = of_agents(action=Categorical(2, shape=shape))
        self.reward_spec = Unbounded((num_envs, 1))
        flag = Binary(1, (num_envs, 1), dtype=torch.bool)
        self.done_spec = Composite(done=flag, terminated=flag.clone(), shape=shape[:1])
        self.cue = torch.zeros(shape, device=self.device)
        self.time = torch.zeros(num_envs, 1, dtype=torch.int64, device=self.device)
        self.set_seed(seed)

    def _set_seed(self, seed: int | None) -> None:
        self.generator = torch.Generator(self.device or "cpu")
        if seed is not None:
            self.generator.manual_seed(seed)

    def _reset(self, tensordict: TensorDictBase | None, **options: object) -> TensorDictBase:
        """Begin episodes, where ``"_reset"`` says so; all by default."""
        begun = None if tensordict is None else tensordict.get("_reset", None)
        if begun is None:
            begun = torch.ones_like(self.time, dtype=torch.bool)
        sides = torch.randint(2, self.cue.shape, generator=self.generator, device=self.cue.device)
        self.cue = torch.where(begun, 2.0 * sides - 1, self.cue)
        self.time = torch.where(begun, 0, self.time)
        return self._state(torch.zeros_like(begun))

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        right = tensordict["agents", "action"] == (self.cue > 0)
        over = self.time == self.delay
        self.time = self.time + 1
        return self._state(over).set("reward", right.float().mean(-1, keepdim=True) * over)

    def _state(self, over: Tensor) -> TensorDict:
        cue = self.cue * (self.time == 0)
        last = (self.time == self.delay).expand_as(cue).float()
        agents = TensorDict({"observation": torch.stack([cue, last], -1)}, cue.shape)
        state = {"agents": agents, "done": over, "terminated": over.clone()}
        return TensorDict(state, self.batch_size, device=self.device)
