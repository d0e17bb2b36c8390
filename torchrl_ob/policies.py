"""Policies of a team, built from an environment's specs."""

from __future__ import annotations

from typing import Any, Literal

import torch
from tensordict.nn import TensorDictModule, TensorDictSequential
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torch import distributions as D
from torchrl.envs import EnvBase
from torchrl.modules import (
    IndependentNormal,
    MaskedCategorical,
    MaskedOneHotCategorical,
    NormalParamExtractor,
    OneHotCategorical,
    ProbabilisticActor,
    TanhNormal,
)

from torchrl_ob._factored_categorical import FactoredCategorical
from torchrl_ob._networks import team_network
from torchrl_ob._specs import (
    OWN_ACTOR,
    ActionSpace,
    Group,
    find_mask_key,
    group_key,
    read_action,
    read_observation,
)
from torchrl_ob.recurrent.networks import make_memory

__all__ = ["policy_from_env"]


def policy_from_env(
    env: EnvBase,
    *,
    group: Group = "agents",
    observation_key: NestedKey | None = None,
    share_params: bool = True,
    depth: int = 2,
    num_cells: int = 256,
    activation_class: type[nn.Module] = nn.Tanh,
    cell: Literal["gru", "lstm"] | None = None,
    memory_size: int = 64,
) -> ProbabilisticActor:
    """Decentralized policies of a group of agents: each acts on its own observation, or on a memory of its own observations.

    Continuous actions get a :class:`~torchrl.modules.TanhNormal` between the bounds of every agent and dimension, or
    an :class:`~torchrl.modules.IndependentNormal` if there are no bounds. Discrete actions get a categorical over
    their choices, one-hot if the environment's actions are, and a ``FactoredCategorical`` if there are several
    factors. If the environment says which choices are available, ``(group, "action_mask")`` ``[n, A]`` or in the
    observation, the policies use the masked versions. Every action that is drawn is in the environment's spec.

    Args:
        env: the environment, with ``(group, "observation")`` ``[n, o]`` and ``(group, "action")``.
        group: name of the group of agents.
        observation_key: key of the observation; by default ``(group, "observation")``, or its only entry beside the
            mask if it is nested.
        share_params: whether one network serves all agents, or each has its own.
        depth: number of hidden layers.
        num_cells: width of the hidden layers.
        activation_class: activation function.
        cell: ``"gru"`` or ``"lstm"`` for a memory, a :class:`~torchrl_ob.MultiAgentGRU` or
            :class:`~torchrl_ob.MultiAgentLSTM` before the hidden layers. The environment then needs ``InitTracker()``, and the
            primer that ``torchrl.modules.utils.get_primers_from_module(policy)`` gives.
        memory_size: width of the memory's state.

    Returns:
        The policies, which write the action and its log-probability.

    Raises:
        KeyError: if the environment has no such group.
        TypeError: for actions or observations of another kind.
        ValueError: for bounds on one side, and for another shape.

    Example:
        >>> from torchrl.envs import VmasEnv  # needs vmas
        >>> from torchrl_ob.policies import policy_from_env
        >>> env = VmasEnv("navigation", num_envs=2, n_agents=3)
        >>> env.rollout(5, policy_from_env(env))["agents", "action"].shape
        torch.Size([2, 5, 3, 2])
    """
    observation_key, observation_spec = read_observation(env, group, observation_key)
    action = read_action(env, group)
    mask_key = _mask_key(env, group, action)
    names, distribution, num_outputs, options = _distribution(action, mask_key is not None)
    sizes: dict[str, Any] = {"depth": depth, "num_cells": num_cells, "device": env.device}
    sizes |= {"share_params": share_params, "activation_class": activation_class}
    shape, read, before = observation_spec.shape, observation_key, []
    if cell is not None:
        memory = make_memory(
            cell, group, observation_key, shape, memory_size, share_params=share_params
        )
        before, read = [memory.to(env.device)], memory.out_keys[0]
        shape = torch.Size([shape[0], memory_size])
    net = team_network(shape, num_outputs, centralized=False, **sizes)
    if len(names) > 1:
        net = nn.Sequential(net, NormalParamExtractor())
    params = [group_key(group, name) for name in names]
    module = TensorDictModule(net, [read], params)
    return ProbabilisticActor(
        TensorDictSequential(*before, module) if before else module,
        in_keys=params if mask_key is None else {"logits": params[0], "mask": mask_key},
        out_keys=[action.key],
        distribution_class=distribution,
        distribution_kwargs=options,
        return_log_prob=True,
    )


def _mask_key(env: EnvBase, group: Group, action: ActionSpace) -> NestedKey | None:
    """Where the available actions are, checked against the action; ``None`` where all always are."""
    key, action_key = find_mask_key(env, group), action.key
    if key is None and getattr(env.full_action_spec_unbatched[action_key], "mask", None) is None:
        return None
    if key is None:
        raise ValueError(
            f"the spec of {action_key!r} has a mask, and the environment writes none: put it under "
            f"{group_key(group, 'action_mask')!r}, as torchrl.envs.ActionMask takes it."
        )
    mask = env.observation_spec_unbatched[key]
    if action.encoding == "continuous":
        raise ValueError(
            f"the mask {key!r} rules out none of continuous actions, {action_key!r}: append torchrl.envs.ExcludeTransform."
        )
    expected = (action.num_agents, action.action_dim)
    if tuple(mask.shape) != expected:
        raise ValueError(
            f"the mask {key!r} has shape {list(mask.shape)}; expected {list(expected)}, as {action_key!r} has choices."
        )
    if mask.dtype != torch.bool:
        raise TypeError(
            f"the mask {key!r} is {mask.dtype}: append torchrl.envs.DTypeCastTransform({mask.dtype}, torch.bool, "
            f"in_keys=[{key!r}]), or pass the environment through torchrl_ob.envs.flat.flat_env."
        )
    return key


def _distribution(
    action: ActionSpace, masked: bool
) -> tuple[list[str], type[D.Distribution], int, dict[str, Any]]:
    """Names of the parameters, class, number of the network's outputs, and constants of the class."""
    drawn = {"continuous": torch.get_default_dtype(), "categorical": torch.int64}
    if action.dtype != (wanted := drawn.get(action.encoding, action.dtype)):
        raise TypeError(
            f"the action {action.key!r} is {action.dtype}, and the policy draws {wanted}: append torchrl.envs.DoubleToFloat "
            f"or DTypeCastTransform({action.dtype}, {wanted}, in_keys_inv=[...]), or pass the environment through "
            "torchrl_ob.envs.flat.flat_env."
        )
    if action.encoding == "continuous":
        names, size = ["loc", "scale"], 2 * action.action_dim
        if action.bounds is None:
            return names, IndependentNormal, size, {}
        low, high = _inner_bounds(action.key, *action.bounds)
        return names, TanhNormal, size, {"low": low, "high": high}
    if action.encoding == "categorical":
        if masked:
            # its cross entropy takes no samples of a batch of teams, which a compiled loss draws
            return ["logits"], MaskedCategorical, action.action_dim, {"use_cross_entropy": False}
        return ["logits"], D.Categorical, action.action_dim, {}
    # of a single choice TorchRL's unmasked one leaves out the last dimension
    torchrls = action.dtype == torch.int64 and (masked or action.action_dim > 1)
    if action.encoding == "one_hot" and torchrls:
        one_hot = MaskedOneHotCategorical if masked else OneHotCategorical
        return ["logits"], one_hot, action.action_dim, {}
    factors = {
        "nvec": action.nvec or (action.action_dim,),
        "one_hot": action.encoding.endswith("one_hot"),
        "dtype": action.dtype,
    }
    return ["logits"], FactoredCategorical, action.action_dim, factors


def _inner_bounds(key: NestedKey, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds ``[n, d]`` for a squashed Gaussian, within the action's by what rounding may add to a sample.

    Raises:
        ValueError: if a dimension has a bound on one side alone, or none beside others that have, and
            where nothing is between the bounds.
    """
    margin = 4 * torch.finfo(low.dtype).eps * torch.maximum(low.abs(), high.abs())
    inner, remedy = (low + margin, high - margin), None
    if not (low.isfinite() & high.isfinite()).all():
        remedy = "each dimension of every agent must have two finite ones, or all none"
    elif not (inner[0] < inner[1]).all() or not (high - low).isfinite().all():
        remedy = (
            f"in {low.dtype} some are equal or too far apart: leave out dimensions without a choice"
        )
    if remedy:
        raise ValueError(
            f"the action {key!r} has bounds from {low.tolist()} to {high.tolist()}: {remedy}; or {OWN_ACTOR}"
        )
    return inner
