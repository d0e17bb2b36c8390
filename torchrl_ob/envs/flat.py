"""Observations of any kind as one vector of floats for each agent."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tensordict import TensorDictBase, unravel_key
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Binary, Categorical, MultiCategorical, OneHot, TensorSpec, Unbounded
from torchrl.envs import ActionMask, Compose, DTypeCastTransform, EnvBase, Transform, TransformedEnv

from torchrl_ob._action_encodings import one_hot, one_hot_factors
from torchrl_ob._checks.batch import sibling
from torchrl_ob._specs import check_entry, find_mask_key, group_key, observation_leaves, read_action

__all__ = ["FlatObservation", "flat_env"]


def flat_env(env: EnvBase) -> EnvBase:
    """An environment whose agents observe one vector of floats each.

    Appends transforms where they are needed: to every group whose observation is nested, of another shape
    than ``[n, o]`` or of another dtype than the networks', a :class:`FlatObservation`; and TorchRL's
    :class:`~torchrl.envs.DTypeCastTransform` for actions, rewards and a state of another precision. An
    environment that needs none is returned as it is.

    Args:
        env: the environment, with ``(group, "observation")`` for each group of its ``group_map``.

    Raises:
        TypeError: for images, which need your own encoder.
        ValueError: for agents of one group whose observations differ.

    Example:
        >>> from torchrl.envs import VmasEnv  # needs vmas
        >>> from torchrl_ob.envs.flat import flat_env
        >>> env = VmasEnv("balance", num_envs=2, n_agents=3)
        >>> flat_env(env) is env
        True
    """
    transforms = [x for group in env.group_map for x in _vectors(env, group)] + _casts(env)
    return TransformedEnv(env, Compose(*transforms), auto_unwrap=True) if transforms else env


def _vectors(env: EnvBase, group: str) -> list[Transform]:
    """What makes a vector of the observation of a group; nothing where it is one."""
    specs, key = env.observation_spec_unbatched, group_key(group, "observation")
    leaves, mask = observation_leaves(specs.get(key, None), key), find_mask_key(env, group)
    for name, leaf in leaves.items():
        check_entry(leaf, name)
    ready = all(
        name == key and leaf.ndim == 2 and leaf.dtype == torch.get_default_dtype()
        for name, leaf in leaves.items()
    )
    if not leaves or (ready and (mask is None or specs[mask].dtype == torch.bool)):
        return []
    vector = FlatObservation(leaves, key, mask_key=mask)
    if mask is None or read_action(env, group).encoding not in ("categorical", "one_hot"):
        return [vector]
    # random actions are drawn from the spec of the whole, and no longer from the one that the environment masks
    return [vector, ActionMask(group_key(group, "action"), vector.out_mask)]


def _casts(env: EnvBase) -> list[Transform]:
    """What casts rewards, state and actions to what networks give and take."""
    floats = torch.get_default_dtype()
    read = {unravel_key(key): env.full_reward_spec_unbatched[key] for key in env.reward_keys}
    if (state := env.observation_spec_unbatched.get("state", None)) is not None:
        read["state"] = state
    casts = [
        DTypeCastTransform(spec.dtype, floats, in_keys=[key])
        for key, spec in read.items()
        if spec.dtype != floats
    ]
    for key in env.action_keys:
        spec = env.full_action_spec_unbatched[key]
        wanted = floats if spec.dtype.is_floating_point else torch.int64
        as_it_is = isinstance(spec, Binary | MultiCategorical | OneHot)  # drawn in any dtype
        if spec.dtype != wanted and not as_it_is:
            casts.append(DTypeCastTransform(spec.dtype, wanted, in_keys=[], in_keys_inv=[key]))
    return casts


class FlatObservation(Transform):
    """The entries of a group's observation side by side, as one vector of floats ``[*B, n, o]``.

    Every entry is flattened; an index of several choices is written as a one-hot vector. A mask of the
    available actions in the observation is put beside it, as booleans.

    Args:
        leaves: specs of the entries, ``[n, *]``, by their keys.
        out_key: where the vector is written, ``(group, "observation")``.
        mask_key: where the mask of the available actions is, if there is one.
    """

    def __init__(
        self,
        leaves: Mapping[NestedKey, TensorSpec],
        out_key: NestedKey,
        mask_key: NestedKey | None = None,
    ) -> None:
        self.out_mask = sibling(out_key, "action_mask")
        masks = ([], []) if mask_key is None else ([mask_key], [self.out_mask])
        super().__init__(in_keys=[*leaves, *masks[0]], out_keys=[out_key, *masks[1]])
        self.leaves, self.out_key, self.mask_key = dict(leaves), out_key, mask_key

    def _call(self, next_tensordict: TensorDictBase) -> TensorDictBase:
        parts = [_features(next_tensordict.get(key), spec) for key, spec in self.leaves.items()]
        mask = None if self.mask_key is None else next_tensordict.get(self.mask_key)
        next_tensordict.set(self.out_key, torch.cat(parts, -1))
        return next_tensordict if mask is None else next_tensordict.set(self.out_mask, mask.bool())

    forward = _call

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        return self._call(tensordict_reset)

    def transform_observation_spec(self, observation_spec: TensorSpec) -> TensorSpec:
        """The environment's, with the vector, and the mask beside it."""
        zeros = self._call(observation_spec.zero())
        flat, device = zeros.get(self.out_key), observation_spec.device
        observation_spec[self.out_key] = Unbounded(flat.shape, device=device, dtype=flat.dtype)
        if self.mask_key is not None:
            shape = zeros.get(self.out_mask).shape
            observation_spec[self.out_mask] = Categorical(2, shape, device, torch.bool)
        return observation_spec


def _features(value: Tensor, spec: TensorSpec) -> Tensor:
    """An entry ``[*B, n, *]`` as floats ``[*B, n, o]``."""
    event = spec.ndim - 1
    if isinstance(spec, MultiCategorical):
        value = one_hot_factors(value, spec.nvec.reshape(-1, spec.shape[-1])[0].tolist())
    elif isinstance(spec, Categorical) and spec.space.n > 2:
        value, event = one_hot(value, spec.space.n), event + 1
    value = value.flatten(-event) if event else value.unsqueeze(-1)
    return value.to(torch.get_default_dtype())
