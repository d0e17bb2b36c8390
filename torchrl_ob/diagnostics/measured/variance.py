"""The variance of each agent's policy gradient under four baselines, on the same batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl_ob._actors import require_no_memory
from torchrl_ob.advantages.base import JointAdvantage
from torchrl_ob.diagnostics.intervals import Blocks, Estimate
from torchrl_ob.diagnostics.measured.scores import output_jacobians, scores, taken_scores
from torchrl_ob.diagnostics.measured.signals import Signals, measurement
from torchrl_ob.expectations.components import node_candidates
from torchrl_ob.expectations.gaussian import gaussian_components
from torchrl_ob.expectations.quadrature import Candidates
from torchrl_ob.expectations.rules import gauss_hermite
from torchrl_ob.expectations.truncated import truncated_components
from torchrl_ob.functional import optimal_weights, weighted_baseline

__all__ = [
    "GradientVariance",
    "compare_baselines",
    "gradient_variance",
    "parameter_gradient_variance",
]


class GradientVariance(NamedTuple):
    """Total variance of the gradient of one step, and how the baselines compare.

    Attributes:
        variance: for each baseline, of every agent, ``[n]``.
        ratio: the variance summed over agents, over that of OB: scalars.
    """

    variance: dict[str, Estimate]
    ratio: dict[str, Estimate]

    def __str__(self) -> str:
        """A table of the baselines, the intervals in brackets."""
        lines = ["baseline    over OB                    variance of each agent"]
        for name, variance in self.variance.items():
            value, low, high = (x.item() for x in self.ratio[name])
            agents = " ".join(f"{x:.4g}" for x in variance.value.tolist())
            interval = f"[{low:.3f}, {high:.3f}]"
            lines.append(f"{name:9} {value:9.3f} {interval:19}  {agents}")
        return "\n".join(lines)


def gradient_variance(
    advantage: JointAdvantage,
    batch: TensorDictBase,
    *,
    num_draws: int = 8,
    confidence: float = 0.95,
) -> GradientVariance:
    r"""Variance of the gradient with respect to ψ, under four baselines on identical data.

    .. math::
        \mathrm{Var}[X^i \nabla_{\psi^i} \log\pi^i]
            = E[(X^i)^2 w] - \|E[X^i \nabla_{\psi^i} \log\pi^i]\|^2,
        \qquad X^i = G^i - b^i \text{ or } Q^i - b^i

    for b = 0, the state value :math:`V = E_a[Q]` of the same critic, COMA's baseline and OB. The variance is the
    trace of the covariance over the steps of the batch. The mean is the same for all baselines and is estimated once,
    from pairs of different trajectories, so that the variance is unbiased. The variance under V is unbiased too,
    because the sampling noise of V is subtracted. (arXiv:2108.08612, section 4.)

    Args:
        advantage: any advantage of the joint action; its actor, critic, keys, return and options are used, but not
            its baseline.
        batch: trajectories that the current policy collected, ``[*B, T]``. It is not changed, nor
            are parameters' gradients and torch's generators.
        num_draws: joint actions of the policy that V averages over.
        confidence: of the intervals, by resampling trajectories.

    Returns:
        The variance of each baseline, and its ratio to OB's.

    Raises:
        ValueError: for a wrong shape, or a batch of one step.
        KeyError: for a missing key.

    Example: see :mod:`torchrl_ob.diagnostics`.
    """
    with measurement(advantage, batch, num_draws) as measured:
        return compare_baselines(advantage, *measured, confidence)


def parameter_gradient_variance(
    advantage: JointAdvantage,
    batch: TensorDictBase,
    *,
    num_draws: int = 8,
    confidence: float = 0.95,
) -> GradientVariance:
    r"""Variance of the gradient with respect to the actor's parameters θ, including the exact OB.

    As :func:`gradient_variance`, with :math:`\nabla_\theta \log\pi^i` from per-sample Jacobians of
    the network. A fifth baseline, ``"ob_exact"``, is the one that is optimal for θ,

    .. math::
        b = \frac{E_{a^i}[Q\,\|\nabla_\theta \log\pi^i\|^2]}{E_{a^i}[\|\nabla_\theta \log\pi^i\|^2]};

    Its ratio shows how much the surrogate in ψ, which is the library's baseline, loses. (arXiv:2108.08612, theorem
    3.)

    The Jacobians need ``n P`` backward passes for a step: measure on a few trajectories, ``batch[:8]``.

    Args:
        advantage: any advantage of the joint action.
        batch: trajectories that the current policy collected, ``[*B, T]``.
        num_draws: joint actions of the policy that V averages over.
        confidence: of the intervals.

    Returns:
        The variance of each baseline, and its ratio to OB's.

    Raises:
        ValueError: for an actor that remembers.

    Example: see :mod:`torchrl_ob.diagnostics`.
    """
    actor = advantage.team.actor
    require_no_memory(actor)
    with measurement(advantage, batch, num_draws) as (batch, signals, blocks):
        own = batch.get(advantage.team.action_key).unsqueeze(batch.ndim + 1)
        candidates = _dense_candidates(advantage, batch)
        values = advantage.team.q_candidates(batch, candidates.actions)
        every = torch.cat([own, candidates.actions], batch.ndim + 1)
        score = scores(actor, batch, every, psi=None).flatten(0, batch.ndim - 1)  # [N, n, 1 + K, P]
        least = (signals.signal - signals.baselines["ob"]).flatten(0, -2)  # [N, n]
        weights, start, sums = [], 0, least.new_zeros(())
        for jacobian in output_jacobians(actor, batch.reshape(-1)):
            chunk = slice(start, start + len(jacobian))
            metric = torch.einsum("cnpt,cnqt->cnpq", jacobian, jacobian)
            weights.append(torch.einsum("cnkp,cnpq,cnkq->cnk", score[chunk], metric, score[chunk]))
            gradient = torch.einsum("cn,cnp,cnpt->cnt", least[chunk], score[chunk, :, 0], jacobian)
            sums = sums + blocks.sums_of_steps(gradient, chunk)
            start = chunk.stop
        weight = torch.cat(weights).unflatten(0, batch.batch_size)
        optimal = optimal_weights(candidates.probabilities, weight[..., 1:])
        signals.baselines["ob_exact"] = weighted_baseline(values, optimal)
        return _compare(signals, weight[..., 0], sums, blocks, confidence)


def _dense_candidates(advantage: JointAdvantage, batch: TensorDictBase) -> Candidates:
    """Candidates for a weight that is no sum over components: of Gaussians at many points."""
    dist = advantage.team.policy(batch)
    components = truncated_components(dist) or gaussian_components(dist)
    if components is None:
        return advantage.team.candidates(batch)
    scale = components.scale
    dim = scale.shape[-1]
    if dim <= 3:
        nodes, weights = (
            torch.cartesian_prod(*[x.to(scale)] * dim).reshape(-1, dim) for x in gauss_hermite(5)
        )
        nodes, weights = nodes.reshape(-1, *[1] * (scale.ndim - 1), dim), weights.prod(-1)
    else:
        half = torch.randn(512, *[1] * (scale.ndim - 1), dim).to(scale)
        nodes, weights = torch.cat([half, -half]), scale.new_full((1024,), 1 / 1024)
    return node_candidates(components, nodes.expand(-1, *scale.shape), weights, advantage.team.psi)


def compare_baselines(
    advantage: JointAdvantage,
    batch: TensorDictBase,
    signals: Signals,
    blocks: Blocks,
    confidence: float = 0.95,
) -> GradientVariance:
    """:func:`gradient_variance` of signals that were read before."""
    score = taken_scores(advantage, batch)
    least = (signals.signal - signals.baselines["ob"]).unsqueeze(-1) * score
    return _compare(signals, score.square().sum(-1), blocks.sums(least), blocks, confidence)


def _compare(
    signals: Signals, weight: Tensor, mean_sums: Tensor, blocks: Blocks, confidence: float
) -> GradientVariance:
    """Variances and ratios with their intervals.

    Args:
        signals: signal and baselines of the batch.
        weight: squared norm of the score of every step, ``[*B, T, n]``.
        mean_sums: sums over each block of the gradient with the smallest variance, ``[F, n, P]``.
        blocks: the blocks.
        confidence: of the intervals.
    """
    names = list(signals.baselines)
    second_moment = blocks.means(
        torch.stack([signals.second_moment(name, signals.signal, weight) for name in names], -1)
    )
    squared_mean = blocks.squared_mean(mean_sums)

    def variance(counts: Tensor) -> Tensor:
        return second_moment(counts) - squared_mean(counts).unsqueeze(-1)  # [R, n, baselines]

    def ratio(counts: Tensor) -> Tensor:
        team = variance(counts).sum(1)
        return team / team[:, [names.index("ob")]]

    by_name = (
        dict(zip(names, blocks.resample(statistic, confidence=confidence).unbind(), strict=True))
        for statistic in (variance, ratio)
    )
    return GradientVariance(*by_name)
