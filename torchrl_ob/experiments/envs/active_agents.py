"""Which agents have a choice, told from the mask of available actions."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torchrl.data import Categorical, TensorSpec
from torchrl.envs import Transform

__all__ = ["ActiveAgents"]


class ActiveAgents(Transform):
    """Says which agents have more than one action available, ``[*B, n]``.

    A unit that is dead, or waits, has a single one: its policy has no gradient. One that has none at all
    is given every action, so that its distribution exists; it is not active either.

    Args:
        mask_key: where the available actions are, ``[*B, n, A]``.
        active_key: where it is said which agents have a choice.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl_ob.experiments.envs.active_agents import ActiveAgents
        >>> available = torch.tensor([[True, True], [True, False], [False, False]])
        >>> td = ActiveAgents()(TensorDict({"agents": {"action_mask": available}}))
        >>> td["agents", "mask"]
        tensor([ True, False, False])
        >>> td["agents", "action_mask"][2]
        tensor([True, True])
    """

    def __init__(
        self,
        mask_key: NestedKey = ("agents", "action_mask"),
        active_key: NestedKey = ("agents", "mask"),
    ) -> None:
        super().__init__(in_keys=[mask_key], out_keys=[mask_key, active_key])
        self.mask_key, self.active_key = mask_key, active_key

    def _call(self, next_tensordict: TensorDictBase) -> TensorDictBase:
        mask = next_tensordict.get(self.mask_key)
        next_tensordict.set(self.active_key, mask.sum(-1) > 1)
        next_tensordict.set(self.mask_key, mask | ~mask.any(-1, keepdim=True))
        return next_tensordict

    forward = _call

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        return self._call(tensordict_reset)

    def transform_observation_spec(self, observation_spec: TensorSpec) -> TensorSpec:
        """The environment's, with what is written."""
        mask = observation_spec[self.mask_key]
        observation_spec[self.active_key] = Categorical(
            2, mask.shape[:-1], device=mask.device, dtype=torch.bool
        )
        return observation_spec
