"""Scores of the agents' policies: the gradients whose variance is at stake."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase, unravel_key
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor

from torchrl_ob._actors import build_policy, input_keys, policy_parameters
from torchrl_ob.advantages.base import JointAdvantage
from torchrl_ob.expectations.autodiff import log_prob_scores
from torchrl_ob.expectations.masks import lend_a_choice
from torchrl_ob.expectations.registry import closed_form_scores
from torchrl_ob.functional import GaussianPsi

__all__ = ["output_jacobians", "scores", "taken_scores"]


def scores(
    actor: ProbabilisticTensorDictSequential,
    tensordict: TensorDictBase,
    actions: Tensor,
    *,
    psi: GaussianPsi | None,
) -> Tensor:
    r"""Score :math:`\nabla_\psi \log\pi^i(a_k | \psi^i)` of every agent's actions.

    In closed form, ``1[a] - π``, for categorical policies in their logits, and for Gaussians, squashed or truncated;
    by automatic differentiation of ``log_prob`` otherwise. (arXiv:2108.08612, section 4.)

    Args:
        actor: the agents' policies.
        tensordict: its inputs, of batch size ``[*B]``.
        actions: K own actions of every agent, ``[*B, n, K, *event]``.
        psi: what ψ is for a Gaussian, as in :func:`~torchrl_ob.expectations.action_candidates`; ``None`` for the
            parameters that the network outputs.

    Returns:
        ``[*B, n, K, P]``, with P the size of ψ.
    """
    params = policy_parameters(actor, tensordict)
    params = lend_a_choice(params.select(*actor.dist_params_keys).detach(), actor.dist_params_keys)
    names = [unravel_key(key)[-1] for key in params.keys(True, True)]
    dist = build_policy(actor, params)
    if psi is not None or "logits" in names:
        closed_form = closed_form_scores(dist, actions, psi)
        if closed_form is not None:
            return closed_form
    actions = actions.movedim(tensordict.ndim + 1, 0)
    return log_prob_scores(params, actions, partial(build_policy, actor))[1].movedim(0, -2)


def taken_scores(advantage: JointAdvantage, batch: TensorDictBase) -> Tensor:
    """Score in ψ of the actions that were taken, ``[*B, n, P]``."""
    taken = batch.get(advantage.tensor_keys.action).unsqueeze(batch.ndim + 1)
    return scores(advantage.team.actor, batch, taken, psi=advantage.team.psi).squeeze(-2)


def output_jacobians(
    actor: ProbabilisticTensorDictSequential, tensordict: TensorDictBase, chunk_bytes: int = 2**28
) -> Iterator[Tensor]:
    r"""Jacobian of each agent's distribution parameters in the parameters θ of the network.

    One sample at a time by :func:`torch.func.vmap`, so that
    :math:`\nabla_\theta \log\pi^i = J_i^\top \nabla_{\psi^i} \log\pi^i`.

    Args:
        actor: the agents' policies.
        tensordict: its inputs, of batch size ``[N]``.
        chunk_bytes: memory that the Jacobians of one chunk may take.

    Yields:
        For consecutive chunks of the samples, ``[c, n, P, Θ]``.
    """
    params = TensorDict.from_module(actor)
    trained = {key: p.detach() for key, p in params.items(True, True) if p.requires_grad}

    def outputs(theta: dict[Any, Tensor], inputs: TensorDictBase) -> Tensor:
        live = params.clone(recurse=False)
        for key, value in theta.items():
            live.set(key, value)
        with live.to_module(actor):
            out = actor.get_dist_params(inputs)
        leaves = (out.get(key) for key in actor.dist_params_keys)
        return torch.cat([x.flatten(1) for x in leaves if x.is_floating_point()], -1)

    inputs = tensordict.select(*input_keys(actor))
    one = outputs(trained, inputs[0])
    size = one.numel() * sum(p.numel() for p in trained.values()) * one.element_size()
    jacobian = torch.vmap(torch.func.jacrev(outputs), (None, 0))
    for chunk in inputs.split(max(1, chunk_bytes // max(size, 1))):
        parts = jacobian(trained, chunk).values()
        yield torch.cat([part.flatten(3) for part in parts], -1)
