"""Candidates of the categorical family: every action, with exact probabilities and weights.

ψ are the logits, even if the distribution was built from probabilities or from the scores of an ordinal one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributions as D
from torchrl.modules import MaskedCategorical, MaskedOneHotCategorical, OneHotCategorical

from torchrl_ob._factored_categorical import FactoredCategorical
from torchrl_ob.expectations.quadrature import Candidates, mixture_of_products
from torchrl_ob.expectations.registry import Options, register_candidates
from torchrl_ob.functional import (
    GaussianPsi,
    categorical_log_score_weights,
    categorical_optimal_weights,
)
from torchrl_ob.functional.scores import available_log_probs

__all__ = ["MAX_JOINT_CHOICES", "categorical_log_probs"]

ONE_HOT = (OneHotCategorical, MaskedOneHotCategorical, D.OneHotCategorical)
"""Distributions over one-hot vectors."""

MAX_JOINT_CHOICES = 4096
"""Multi-categorical actions with more joint choices than this are refused, not enumerated."""


def categorical_scores(
    dist: D.Distribution, actions: Tensor, psi: GaussianPsi | None
) -> Tensor | None:
    """``1[a] - π`` of actions ``[*B, n, K, *event]``, in the logits: ``[*B, n, K, P]``."""
    several = isinstance(dist, D.Independent)
    base: Any = dist.base_dist if isinstance(dist, D.Independent) else dist
    if isinstance(base, D.Independent) or (several and isinstance(base, ONE_HOT)):
        return None
    probs = categorical_log_probs(base).exp()
    if isinstance(base, ONE_HOT):
        chosen = actions
    else:
        chosen = actions.unsqueeze(-1) == torch.arange(probs.shape[-1], device=probs.device)
    score = chosen.to(probs.dtype) - probs.unsqueeze(-3 if several else -2)
    return score.flatten(-2) if several else score


@register_candidates(FactoredCategorical)
def factored_candidates(dist: FactoredCategorical, options: Options) -> Candidates:
    """Candidates of several factors, each with its number of choices."""
    factors = [categorical_log_probs(factor) for factor in dist.factors]
    joint = dist.encode(_joint_choices(factors))
    return _expanded(joint, *_joint_weights(factors), dist.logits.dtype)


@register_candidates(*ONE_HOT, D.Categorical, MaskedCategorical, scores=categorical_scores)
def categorical_candidates(dist: D.Distribution, options: Options) -> Candidates | None:
    """Candidates of a categorical, a one-hot one, their masked versions, or ``Independent`` ones of one agent.

    Raises:
        ValueError: for a multi-categorical with too many joint choices, or a mask of indices.
    """
    several = isinstance(dist, D.Independent)
    base: Any = dist.base_dist if isinstance(dist, D.Independent) else dist
    if isinstance(base, D.Independent) or (
        several and len(base.batch_shape) != len(dist.batch_shape) + 1
    ):
        return None
    if getattr(base, "_sparse_mask", False):
        raise ValueError(
            f"{type(base).__name__} has `indices`, which differ from agent to agent: give it a boolean `mask` over actions."
        )
    log_probs = categorical_log_probs(base)
    if several:
        factors = list(log_probs.unbind(-2))
        actions, (probabilities, weights) = _joint_choices(factors), _joint_weights(factors)
    else:
        actions = torch.arange(log_probs.shape[-1], device=log_probs.device)
        probabilities, weights = log_probs.exp(), categorical_optimal_weights(log_probs)
    if isinstance(base, ONE_HOT):
        actions = torch.eye(log_probs.shape[-1], dtype=torch.long, device=actions.device)[actions]
    return _expanded(actions, probabilities, weights, _given(base)[0].dtype)


def categorical_log_probs(dist: Any) -> Tensor:
    """Log-probabilities of a categorical, ``[*B, A]``, ``-inf`` where an action is ruled out.

    Those of ``probs`` are not clamped, as torch does; what a mask excludes is ruled out, whatever number stands
    for it in the logits.
    """
    logits, is_logits = _given(dist)
    if not is_logits:
        logits = logits.log()
    if isinstance(dist, MaskedCategorical):
        logits = logits.masked_fill(~dist.mask, -math.inf)
    return available_log_probs(logits)


def _given(dist: Any) -> tuple[Tensor, bool]:
    """What a categorical, or the one within torch's one-hot one, was built from, and whether that is logits."""
    kept = (dist._categorical if isinstance(dist, D.OneHotCategorical) else dist).__dict__
    return (kept["logits"], True) if "logits" in kept else (kept["probs"], False)


def _expanded(actions: Tensor, probabilities: Tensor, weights: Tensor, dtype: Any) -> Candidates:
    """The same actions ``[K, *event]`` for every agent, and the weights in the precision of its policy."""
    batch = probabilities.shape[:-1]
    expanded = actions.expand(*batch, *actions.shape)
    return Candidates(expanded, probabilities.to(dtype), weights.to(dtype))


def _joint_choices(log_probs: Sequence[Tensor]) -> Tensor:
    """All joint choices of D factors, ``[K, D]``."""
    choices = [factor.shape[-1] for factor in log_probs]
    if math.prod(choices) > MAX_JOINT_CHOICES:
        raise ValueError(
            f"a multi-categorical action with {choices} choices has {math.prod(choices)} joint choices, more than the "
            f"{MAX_JOINT_CHOICES} that are enumerated. Split it over more agents, or use fewer choices."
        )
    lines = [torch.arange(count, device=log_probs[0].device) for count in choices]
    return torch.cartesian_prod(*lines).reshape(-1, len(choices))


def _joint_weights(log_probs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Probabilities and weights of all joint choices of D independent factors ``[*B, n, A_d]``.

    ψ is all their logits.
    """
    # The mixture of products that quadrature.py writes, as there over components: E[w f] / E[w] =
    # Σ_d c_d Σ_a x_d(a_d) Π_{j != d} pi_j(a_j) f(a) with c_d = E[w_d] / E[w] and x_d the optimal weights of
    # factor d. Both in log space, as functional/scores.py has x_d, because E[w_d] may vanish.
    log_expected = torch.stack(
        [(x + categorical_log_score_weights(x)).logsumexp(-1) for x in log_probs], -1
    )
    deterministic = (log_expected == -math.inf).all(-1, keepdim=True)
    share = log_expected.masked_fill(deterministic, 0).softmax(-1)  # c_d, [*B, n, D]
    own = [factor.exp() for factor in log_probs]
    tilted = [categorical_optimal_weights(factor) for factor in log_probs]
    return mixture_of_products(own, tilted, share)
