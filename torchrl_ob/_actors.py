"""What is asked of one actor: its keys, the parameters that it hands to its agents' distributions, and these."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase, unravel_key
from tensordict.nn import CompositeDistribution, ProbabilisticTensorDictSequential
from tensordict.utils import NestedKey
from torch import Tensor
from torch import distributions as D
from torchrl.modules import OneHotCategorical, set_recurrent_mode
from torchrl.modules.utils import get_primers_from_module

from torchrl_ob._checks.batch import require_finite, select
from torchrl_ob.expectations.categorical import ONE_HOT
from torchrl_ob.expectations.masks import lend_a_choice


def action_key(actor: ProbabilisticTensorDictSequential) -> NestedKey:
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
            f"the actor must write one action, and writes {action_keys}: put the parts of an action, as of a "
            "CompositeDistribution, into one entry, such as Independent(Categorical, 1); groups of agents have an actor each."
        )
    return unravel_key(action_keys[0])


def input_keys(actor: ProbabilisticTensorDictSequential) -> list[NestedKey]:
    """What an actor reads; not what its networks write for its distribution, as TorchRL lists of nested entries."""
    nested = [key for key in map(unravel_key, actor.out_keys) if isinstance(key, tuple)]

    def is_written(key: NestedKey) -> bool:
        path = key if isinstance(key, tuple) else (key,)
        return any(out[: len(path)] == path != out for out in nested)

    return [key for key in map(unravel_key, actor.in_keys) if not is_written(key)]


def policy_parameters(
    actor: ProbabilisticTensorDictSequential, tensordict: TensorDictBase
) -> TensorDictBase:
    """ψ of the agents: what the actor hands to their distributions."""
    keys = input_keys(actor)
    inputs = select(tensordict, keys, "the actor")
    for key in keys:
        require_finite(inputs.get(key), f"the actor's input {key!r} is not finite.")
    with set_recurrent_mode(False):  # the batch has the state before every step
        return actor.get_dist_params(lend_a_choice(inputs, actor.dist_params_keys))


def flat_parameters(actor: ProbabilisticTensorDictSequential, tensordict: TensorDictBase) -> Tensor:
    """The numbers in :func:`policy_parameters`, ``[*B, P]``, what is masked by infinity as zeros."""
    params = policy_parameters(actor, tensordict).select(*actor.dist_params_keys)
    leaves = [x for x in params.values(True, True) if x.is_floating_point()]
    flat = [x.flatten(tensordict.ndim) for x in leaves]
    return torch.cat(flat, -1).nan_to_num(posinf=0, neginf=0)


def build_policy(
    actor: ProbabilisticTensorDictSequential, params: TensorDictBase
) -> D.Distribution:
    """The agents' policies of given parameters; an agent without any available action gets the first."""
    _require_same_agents(actor, params)
    dist = actor.build_dist_from_params(lend_a_choice(params, actor.dist_params_keys))
    if isinstance(dist, CompositeDistribution):
        (dist,) = dist.dists.values()  # of one action: see action_key
    if isinstance(dist, OneHotCategorical) and len(dist.batch_shape) == params.ndim:
        raise ValueError(
            "TorchRL's OneHotCategorical drops the last dimension of logits [*B, n, 1] and takes the n agents for "
            "choices: where each has a single action, use torch.distributions.OneHotCategorical."
        )
    return dist


def current_policy(
    actor: ProbabilisticTensorDictSequential, tensordict: TensorDictBase
) -> D.Distribution:
    """The agents' policies, of what the actor reads in a batch."""
    return build_policy(actor, policy_parameters(actor, tensordict))


def _require_same_agents(actor: ProbabilisticTensorDictSequential, params: TensorDictBase) -> None:
    """Refuse parameters and masks of a policy that are of different numbers of agents."""
    entries = [params.get(key) for key in actor.dist_params_keys]
    per_agent = [x for x in entries if x.ndim > params.ndim]
    agents = {x.shape[params.ndim] for x in per_agent if x.dtype != torch.bool}
    masked = {x.shape[params.ndim] for x in per_agent if x.dtype == torch.bool}
    if len(agents - {1}) > 1 or masked - {max(agents, default=0)}:  # a parameter may be shared
        shapes = {key: list(params.get(key).shape) for key in actor.dist_params_keys}
        raise ValueError(
            f"the policy's parameters and masks are of different numbers of agents, {shapes}: expected "
            f"{[*params.batch_size, 'n']} in front. Check what the actor writes and the batch has of them."
        )


def require_choice(
    policy: D.Distribution, tensordict: TensorDictBase, key: NestedKey, active: Tensor | None
) -> None:
    """Stop where an agent that takes part took an action that is no choice of its categorical policy.

    Args:
        policy: of batch shape ``[*B, n]``.
        tensordict: the batch, ``[*B]``.
        key: of the action.
        active: which agents take part, ``[*B, n]``; ``None`` where all do.
    """
    base, action = getattr(policy, "base_dist", policy), tensordict.get(key)
    if isinstance(base, ONE_HOT):  # TorchRL's say that they are of integers
        choice: Tensor = D.constraints.one_hot.check(action)
    elif isinstance(base, D.Categorical):
        choice = base.support.check(action)
    else:
        return
    choice = choice.reshape(*action.shape[: tensordict.ndim + 1], -1).all(-1)
    if active is not None:
        choice = choice | ~active
    torch._assert_async(
        choice.all(), f"an action in {key!r} is out of range: no choice of the agent's policy."
    )


def require_no_memory(actor: ProbabilisticTensorDictSequential) -> None:
    """Refuse an actor whose gradient in its parameters goes through the steps before."""
    if get_primers_from_module(actor, warn=False) is not None:
        raise ValueError(
            "the actor remembers: its gradient in its parameters goes through the steps before, and here it is taken one "
            "step deep. Measure with gradient_variance, in the parameters of the distribution."
        )
