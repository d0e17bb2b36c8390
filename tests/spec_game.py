"""An environment of given specs, for tests of what is built from them."""

import torch
from tensordict import TensorDict
from torchrl.data import Categorical, Composite, Unbounded
from torchrl.envs import EnvBase


class SpecGame(EnvBase):
    """Draws every observation from its spec, and refuses actions that are not in theirs.

    Args:
        action: spec of the action of the group "agents", ``[n, *]``.
        observation: of the observation, ``[n, *]``; four floats by default.
        more: other specs of the group, by name; of the root where their key is a tuple.
    """

    def __init__(self, action, observation=None, batch_size=(), state=None, **more):
        super().__init__(batch_size=batch_size)
        n = action.shape[0] if action.ndim else 1
        observation = Unbounded((n, 4)) if observation is None else observation
        full = {"observation": observation, **more}
        root = {} if state is None else {"state": self.batched(state)}
        self.observation_spec = self.composite(
            agents=self.composite(**{k: self.batched(v) for k, v in full.items()}), **root
        )
        self.action_spec = self.composite(agents=self.composite(action=self.batched(action)))
        reward = Unbounded((*batch_size, n, 1))
        self.reward_spec = self.composite(agents=self.composite(reward=reward))
        done = Categorical(2, (*batch_size, 1), dtype=torch.bool)
        self.done_spec = self.composite(done=done, terminated=done.clone())
        self.group_map = {"agents": [f"agent_{i}" for i in range(n)]}

    def composite(self, **specs):
        return Composite(specs, shape=self.batch_size)

    def batched(self, spec):
        if not self.batch_size:
            return spec
        return spec.expand(*self.batch_size, *spec.shape)

    def _reset(self, tensordict=None):
        return self.observation_spec.rand().update(self.full_done_spec.zero())

    def _step(self, tensordict):
        self.action_spec_in(tensordict)
        out = self._reset()
        reward = torch.randn(self.full_reward_spec["agents", "reward"].shape)
        return out.update(TensorDict({"agents": {"reward": reward}}, self.batch_size))

    def action_spec_in(self, tensordict):
        """Raises where the action is not in its spec."""
        spec = self.full_action_spec["agents", "action"]
        spec.assert_is_in(tensordict["agents", "action"])

    def _set_seed(self, seed):
        torch.manual_seed(0 if seed is None else seed)
