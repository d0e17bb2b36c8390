"""Policies of a team, built from an environment's specs."""

from __future__ import annotations

from typing import Any

import torch
from tensordict.nn import TensorDictModule
from torch import distributions as D
from torch import nn
from torchrl.data import Bounded, Categorical, MultiCategorical, OneHot
from torchrl.envs import EnvBase
from torchrl.modules import (
    MaskedCategorical,
    MaskedOneHotCategorical,
    NormalParamExtractor,
    OneHotCategorical,
    ProbabilisticActor,
    TanhNormal,
)

from torchrl_ob.networks import team_network

__all__ = ["policy_from_env"]


def policy_from_env(
    env: EnvBase,
    *,
    group: str = "agents",
    share_params: bool = True,
    depth: int = 2,
    num_cells: int = 256,
    activation_class: type[nn.Module] = nn.Tanh,
) -> ProbabilisticActor:
    """Decentralised policies of a group of agents: each acts on its own observation.

    Bounded continuous actions get a :class:`~torchrl.modules.TanhNormal`, discrete ones a categorical
    over their choices, one-hot where the environment's actions are. An environment that says which are
    available, in ``(group, "action_mask")`` ``[n, A]``, gets the masked versions.

    Args:
        env: the environment, with ``(group, "observation")`` ``[n, o]`` and ``(group, "action")``.
        group: name of the group of agents.
        share_params: whether one network serves all agents, or each has its own.
        depth: number of hidden layers.
        num_cells: width of the hidden layers.
        activation_class: activation function.

    Returns:
        The policies, which write the action and its log-probability.

    Raises:
        KeyError: where the environment has no such group.
        TypeError: for actions of another kind.

    Example:
        >>> from torchrl.envs import VmasEnv  # needs vmas
        >>> from torchrl_ob.policies import policy_from_env
        >>> env = VmasEnv("navigation", num_envs=2, n_agents=3)
        >>> env.rollout(5, policy_from_env(env))["agents", "action"].shape
        torch.Size([2, 5, 3, 2])
    """
    observation_key, action_key = (group, "observation"), (group, "action")
    observation = env.observation_spec_unbatched.get(observation_key, None)
    action = env.full_action_spec_unbatched.get(action_key, None)
    if observation is None or action is None:
        raise KeyError(
            f"the environment has no {observation_key} or no {action_key}; its action keys are "
            f"{list(env.action_keys)}. Pass group=..., the name of the group of agents."
        )
    mask_key = (group, "action_mask")
    masked = env.observation_spec_unbatched.get(mask_key, None) is not None
    names, distribution, num_outputs, options = _distribution(action, masked)
    net = team_network(
        observation.shape,
        num_outputs,
        centralized=False,
        share_params=share_params,
        depth=depth,
        num_cells=num_cells,
        activation_class=activation_class,
        device=env.device,
    )
    if len(names) > 1:
        net = nn.Sequential(net, NormalParamExtractor())
    params = [(group, name) for name in names]
    return ProbabilisticActor(
        TensorDictModule(net, [observation_key], params),
        in_keys={"logits": params[0], "mask": mask_key} if masked else params,
        out_keys=[action_key],
        distribution_class=distribution,
        distribution_kwargs=options,
        return_log_prob=True,
    )


def _distribution(
    spec: Any, masked: bool
) -> tuple[list[str], type[D.Distribution], int, dict[str, Any]]:
    """Names of the parameters, class, number of the network's outputs, and constants of the class."""
    if isinstance(spec, OneHot):
        one_hot = MaskedOneHotCategorical if masked else OneHotCategorical
        return ["logits"], one_hot, spec.shape[-1], {}
    if isinstance(spec, Categorical) and not isinstance(spec, MultiCategorical):
        if masked:
            # its cross entropy takes no samples of a batch of teams, which a compiled loss draws
            return ["logits"], MaskedCategorical, spec.space.n, {"use_cross_entropy": False}
        return ["logits"], D.Categorical, spec.space.n, {}
    if isinstance(spec, Bounded) and spec.dtype.is_floating_point:
        low, high = (torch.as_tensor(end)[0] for end in (spec.space.low, spec.space.high))
        return ["loc", "scale"], TanhNormal, 2 * spec.shape[-1], {"low": low, "high": high}
    raise TypeError(
        f"no policy for actions of {type(spec).__name__}: they are bounded and continuous, categorical "
        "or one-hot. Build a ProbabilisticActor yourself; the advantages take any."
    )
