"""Asking the actor and the critic of a team, with the answers checked.

Both the advantages and the diagnostics read a team's networks through these functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from tensordict import TensorDictBase, unravel_key
from tensordict.nn import (
    CompositeDistribution,
    ProbabilisticTensorDictSequential,
    TensorDictModuleBase,
)
from tensordict.utils import NestedKey
from torch import Tensor
from torch import distributions as D
from torchrl.modules import OneHotCategorical

from torchrl_ob._checks.batch import name_of, require_finite, require_value_per_agent, select
from torchrl_ob.critics.substitution import candidate_values
from torchrl_ob.expectations.autodiff import score_candidates
from torchrl_ob.expectations.availability import lend_a_choice
from torchrl_ob.expectations.candidates import Candidates, action_candidates

__all__ = [
    "acting_parameters",
    "action_key_of",
    "build_policy",
    "flat_parameters",
    "inputs_of",
    "joint_value",
    "own_action_values",
    "policy_parameters",
    "require_joint_critic",
    "team_candidates",
    "team_policy",
]


def action_key_of(actor: ProbabilisticTensorDictSequential) -> NestedKey:
    """Where an actor writes the actions of its agents.

    Raises:
        TypeError: for a module without a distribution.
        ValueError: for one that writes several actions.
    """
    action_keys = getattr(actor, "dist_sample_keys", None)
    if action_keys is None:
        raise TypeError(
            "actor_network must be a probabilistic tensordict module, such as TorchRL's "
            f"ProbabilisticActor: {type(actor).__name__} has no distribution."
        )
    if len(action_keys) != 1:
        raise ValueError(
            f"the actor must write one action, and writes {action_keys}. Several parts of one agent's action, "
            "as of a CompositeDistribution, belong into one entry: Independent(Categorical, 1) for several "
            "choices, or one Gaussian over all dimensions. Several groups of agents take an actor and an advantage "
            "each."
        )
    return unravel_key(action_keys[0])


def team_policy(
    actor: ProbabilisticTensorDictSequential, tensordict: TensorDictBase
) -> D.Distribution:
    """The agents' policies, one distribution of batch shape ``[*B, n]``."""
    return build_policy(actor, policy_parameters(actor, tensordict))


def build_policy(
    actor: ProbabilisticTensorDictSequential, params: TensorDictBase
) -> D.Distribution:
    """The agents' policies of given parameters; an agent without any available action gets the first."""
    _require_same_agents(actor, params)
    dist = actor.build_dist_from_params(lend_a_choice(params, actor.dist_params_keys))
    if isinstance(dist, CompositeDistribution):
        (dist,) = dist.dists.values()  # of one action: see action_key_of
    if isinstance(dist, OneHotCategorical) and len(dist.batch_shape) == params.ndim:
        raise ValueError(
            "TorchRL's OneHotCategorical drops the last dimension of logits [*B, n, 1] and takes the n agents for "
            "choices: where each has a single action, use torch.distributions.OneHotCategorical."
        )
    return dist


def inputs_of(actor: ProbabilisticTensorDictSequential) -> list[NestedKey]:
    """What an actor reads; not what its networks write for its distribution, as TorchRL lists of nested entries."""
    written = [
        key if isinstance(key, tuple) else (key,) for key in map(unravel_key, actor.out_keys)
    ]
    read = []
    for key in map(unravel_key, actor.in_keys):
        path = key if isinstance(key, tuple) else (key,)
        if not any(out[: len(path)] == path and out != path for out in written):
            read.append(key)
    return read


def policy_parameters(
    actor: ProbabilisticTensorDictSequential, tensordict: TensorDictBase
) -> TensorDictBase:
    """ψ of the agents: what the actor hands to their distributions."""
    in_keys = inputs_of(actor)
    inputs = select(tensordict, in_keys, "the actor")
    for key in in_keys:
        require_finite(inputs.get(key), f"the actor's input {key!r} is not finite.")
    return actor.get_dist_params(lend_a_choice(inputs, actor.dist_params_keys))


def flat_parameters(actor: ProbabilisticTensorDictSequential, tensordict: TensorDictBase) -> Tensor:
    """The numbers in :func:`policy_parameters`, ``[*B, P]``, what is masked by infinity as zeros."""
    params = policy_parameters(actor, tensordict).select(*actor.dist_params_keys)
    leaves = [x for x in params.values(True, True) if x.is_floating_point()]
    flat = [x.flatten(tensordict.ndim) for x in leaves]
    return torch.cat(flat, -1).nan_to_num(posinf=0, neginf=0)


def _require_same_agents(actor: ProbabilisticTensorDictSequential, params: TensorDictBase) -> None:
    """Refuse parameters and masks of a policy that are of different numbers of agents."""
    entries = [params.get(key) for key in actor.dist_params_keys]
    per_agent = [x for x in entries if x.ndim > params.ndim]
    agents = {x.shape[params.ndim] for x in per_agent if x.dtype != torch.bool}
    masked = {x.shape[params.ndim] for x in per_agent if x.dtype == torch.bool}
    if len(agents - {1}) > 1 or masked - {max(agents, default=0)}:  # a parameter may be shared
        shapes = {
            key: list(x.shape) for key, x in zip(actor.dist_params_keys, entries, strict=True)
        }
        raise ValueError(
            f"the policy's parameters and masks are of different numbers of agents, {shapes}: expected "
            f"{[*params.batch_size, 'n']} in front. Check the actor's outputs, and what the batch has of them."
        )


def acting_parameters(
    actor: ProbabilisticTensorDictSequential, tensordict: TensorDictBase
) -> TensorDictBase:
    """ψ with which the agents acted, which the actor wrote beside the action; else of the current actor."""
    if all(tensordict.get(key, None) is not None for key in actor.dist_params_keys):
        return tensordict
    return policy_parameters(actor, tensordict)


def team_candidates(
    actor: ProbabilisticTensorDictSequential,
    tensordict: TensorDictBase,
    *,
    params: TensorDictBase | None = None,
    **options: Any,
) -> Candidates:
    """Candidate own actions of every agent, ``[*B, n, K, *event]``.

    Args:
        actor: the agents' policies.
        tensordict: the actor's inputs, of batch size ``[*B]``.
        params: parameters of the agents' distributions; by default those of the current actor.
        **options: of :func:`~torchrl_ob.expectations.candidates.action_candidates`.
    """
    if params is None:
        params = policy_parameters(actor, tensordict)
    policy = build_policy(actor, params)
    candidates = action_candidates(policy, **options)
    if candidates is None:
        candidates = score_candidates(
            policy,
            lend_a_choice(params, actor.dist_params_keys),
            partial(build_policy, actor),
            actor.dist_params_keys,
            num_points=options.get("num_points"),
        )
    if candidates.probabilities.ndim != tensordict.ndim + 2:
        raise ValueError(
            f"the policy is a {type(policy).__name__} of batch shape {list(policy.batch_shape)}; "
            f"expected {[*tensordict.batch_size, 'n']}, one distribution for each agent. Wrap it in "
            "torch.distributions.Independent so that an action is a single event."
        )
    require_finite(
        candidates.optimal_weights,
        "the policy's probabilities are not finite: a parameter of the actor or an observation "
        "is NaN.",
    )
    return candidates


def require_joint_critic(
    critic: TensorDictModuleBase, action: NestedKey, others: Sequence[NestedKey]
) -> None:
    """Refuse a critic that does not read the joint action, or reads an action that no actor writes."""
    in_keys = [unravel_key(key) for key in critic.in_keys]
    # of a critic that does not tell, what is named as the own action is
    read = getattr(critic, "action_keys", None) or [
        key for key in in_keys if name_of(key) == name_of(action)
    ]
    missing = [key for key in read if key not in (action, *others)]
    if missing and action in in_keys:
        raise ValueError(
            f"the critic reads the actions {missing}, which {action!r} does not include: give the actors "
            "that write them, as other_actors=[...]. An entry that is no action needs another name."
        )
    if action not in in_keys:
        raise ValueError(
            f"the critic reads {in_keys} and so ignores the joint action {action!r}: it is a "
            "state value. Use a critic of the joint action, such as JointQCritic, or TorchRL's "
            "GAE or MultiAgentGAE with this one."
        )


def joint_value(
    critic: TensorDictModuleBase,
    tensordict: TensorDictBase,
    *,
    action_key: NestedKey,
    value_key: NestedKey,
    action: Tensor | None = None,
) -> Tensor:
    """Q of the joint action, ``[*B, n, 1]``: of the one taken, or of ``action`` ``[*B, n, *event]``."""
    inputs = _critic_inputs(critic, tensordict, action_key, action)
    value = critic(inputs).get(value_key)
    require_value_per_agent(value, value_key, inputs, action_key)
    _require_finite_value(critic, value, value_key)
    return value


def own_action_values(
    critic: TensorDictModuleBase,
    tensordict: TensorDictBase,
    candidates: Tensor,
    *,
    action_key: NestedKey,
    value_key: NestedKey,
    action: Tensor | None = None,
) -> Tensor:
    """Q of alternative own actions, ``[*B, n, K]``.

    Args:
        critic: the critic of the joint action.
        tensordict: its inputs, of batch size ``[*B]``.
        candidates: own actions of every agent, ``[*B, n, K, *event]``.
        action_key: where the critic reads the joint action.
        value_key: where it writes its values.
        action: the joint action whose others' part is held, ``[*B, n, *event]``: by default the one
            taken.

    Raises:
        ValueError: where the alternatives are of other agents, or of another shape, than the action.
    """
    inputs = _critic_inputs(critic, tensordict, action_key, action)
    taken, at = inputs.get(action_key).shape, tensordict.ndim + 1
    if (*candidates.shape[:at], *candidates.shape[at + 1 :]) != taken:
        raise ValueError(
            f"the action {action_key!r} has shape {list(taken)}, batch size, agents and its own, and the policy's "
            f"alternatives {list(candidates.shape)}, so many of each. Check the parameters of the policy that the "
            "batch has beside the action."
        )
    values = candidate_values(
        critic, inputs, candidates, action_key=action_key, value_key=value_key
    )
    _require_finite_value(critic, values, value_key)
    return values


def _critic_inputs(
    critic: TensorDictModuleBase,
    tensordict: TensorDictBase,
    action_key: NestedKey,
    action: Tensor | None,
) -> TensorDictBase:
    keys = [unravel_key(key) for key in critic.in_keys]
    if action is None:
        return select(tensordict, keys, "the critic")
    inputs = select(tensordict, [key for key in keys if key != action_key], "the critic")
    return inputs.set(action_key, action)


def _require_finite_value(
    critic: TensorDictModuleBase, value: Tensor, value_key: NestedKey
) -> None:
    require_finite(
        value,
        f"the critic's output {value_key!r} is not finite. Check its inputs "
        f"{list(critic.in_keys)} for NaN, the learning rate and the gradient norm.",
    )
