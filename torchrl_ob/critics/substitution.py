"""Alternative own actions in any critic of the joint action."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from torchrl_ob._checks.arguments import check_whole_number
from torchrl_ob._checks.batch import check_shape

__all__ = ["put_own_actions", "substitute_candidates", "value_candidates"]


def put_own_actions(action: Tensor, own: Tensor) -> Tensor:
    """Copies ``[B, n, K, n, *event]`` of joint actions ``[B, n, *event]``, each with one of own actions ``[B, n, K, *event]``."""
    n, event = own.shape[1], action.ndim - 2
    mine = torch.eye(n, dtype=torch.bool, device=own.device).reshape(1, n, 1, n, *[1] * event)
    return torch.where(mine, own.unsqueeze(3), action[:, None, None])


def value_candidates(
    critic: TensorDictModuleBase, tensordict: TensorDictBase, actions: Tensor, **keys: NestedKey
) -> Tensor:
    """Q of alternative own actions, ``[*B, n, K]``: by the critic's own ``candidate_values``, or else :func:`substitute_candidates`."""
    if hasattr(critic, "candidate_values"):
        values: Tensor = critic.candidate_values(tensordict, actions)
        return values
    return substitute_candidates(
        critic, tensordict, actions, action_key=keys["action_key"], value_key=keys["value_key"]
    )


def substitute_candidates(
    critic: TensorDictModuleBase,
    tensordict: TensorDictBase,
    actions: Tensor,
    *,
    action_key: NestedKey,
    value_key: NestedKey,
    chunk_bytes: int = 2**26,
) -> Tensor:
    """Q of alternative own actions from any critic of the joint action.

    Each candidate is substituted into a copy of the critic's inputs: ``n K`` evaluations of the joint action for every state.

    Args:
        critic: a module from (among others) ``action_key`` to ``value_key``, ``[*B, n, 1]``.
        tensordict: the critic's inputs, of batch size ``[*B]``.
        actions: K own actions of every agent, ``[*B, n, K, *event]``.
        action_key: where the critic reads the joint action, ``[*B, n, *event]``.
        value_key: where the critic writes its values.
        chunk_bytes: memory that the copies of the inputs may take at a time.

    Returns:
        ``[*B, n, K]``.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import TensorDictModule
        >>> from torchrl_ob.critics.substitution import substitute_candidates
        >>> total = TensorDictModule(lambda a: a.sum(-2, keepdim=True).expand_as(a), ["a"], ["q"])
        >>> td = TensorDict({"a": torch.tensor([[1.], [2.]])}, batch_size=[])  # two agents
        >>> own = torch.tensor([[[0.], [10.]], [[0.], [20.]]])  # two candidates for each
        >>> substitute_candidates(total, td, own, action_key="a", value_key="q")
        tensor([[ 2., 12.],
                [ 1., 21.]])
    """
    batch = tensordict.batch_size
    check_whole_number("chunk_bytes", chunk_bytes)
    n, num_candidates, *event = actions.shape[len(batch) :]
    inputs = tensordict.select(*critic.in_keys).reshape(batch.numel())
    own = actions.reshape(batch.numel(), n, num_candidates, *event)
    bytes_per_state = n * num_candidates * inputs.bytes() // max(batch.numel(), 1)
    chunk = max(1, chunk_bytes // max(bytes_per_state, 1))
    values = []
    for x, alternatives in zip(inputs.split(chunk), own.split(chunk), strict=True):
        copies = x[:, None, None].expand(x.shape[0], n, num_candidates).reshape(-1)
        joint = put_own_actions(x.get(action_key), alternatives)
        value = critic(copies.set(action_key, joint.flatten(0, 2))).get(value_key)
        check_shape(repr(value_key), value, (*copies.batch_size, n, 1))
        value = value.reshape(x.shape[0], n, num_candidates, n)
        values.append(value.diagonal(dim1=1, dim2=3).transpose(-1, -2))
    return torch.cat(values).reshape(*batch, n, num_candidates)
