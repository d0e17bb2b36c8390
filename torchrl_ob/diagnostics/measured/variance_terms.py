"""Where the variance of each agent's gradient comes from, measured on a batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl_ob._rng import isolated_rng
from torchrl_ob.advantages.base import JointAdvantage
from torchrl_ob.diagnostics.intervals import Estimate
from torchrl_ob.diagnostics.measured.scores import scores, taken_scores
from torchrl_ob.diagnostics.measured.signals import measurement, trajectory_blocks

__all__ = ["ExcessVariance", "VarianceTerms", "excess_variance", "variance_terms"]


class VarianceTerms(NamedTuple):
    """The terms of the variance of each agent's gradient, ``[n]`` each.

    Attributes:
        state: from the state.
        others: from the other agents' actions.
        own: from the agent's own action, for each baseline: the only term that a baseline changes.
        later: from what follows the joint action (later actions, the environment and the critic's error), for each
            baseline; zero if the signal is the critic's Q.
    """

    state: Estimate
    others: Estimate
    own: dict[str, Estimate]
    later: dict[str, Estimate]


class ExcessVariance(NamedTuple):
    """How much the joint critic costs each agent in variance, and its bound, ``[n]`` each."""

    excess: Estimate
    bound: Estimate


def variance_terms(
    advantage: JointAdvantage,
    batch: TensorDictBase,
    *,
    num_draws: int = 8,
    confidence: float = 0.95,
) -> VarianceTerms:
    r"""The variance of the gradient in ψ, split as in the paper.

    With :math:`g = (Q - b)\,\nabla_{\psi^i} \log\pi^i` and
    :math:`m(s, a^{-i}) = E_{a^i}[g] = E_{a^i}[Q\,\nabla_{\psi^i} \log\pi^i]`,

    .. math::
        \mathrm{Var}[g] = \mathrm{Var}_s\big[E_{a^{-i}}[m]\big]
            + E_s\big[\mathrm{Var}_{a^{-i}}[m]\big]
            + E_{s, a^{-i}}\big[\mathrm{Var}_{a^i}[g]\big],

    the terms of the state, of the others' actions and of the agent's own action. A baseline of the others' actions
    changes only the last term. If the signal is a return G, there is a fourth term,
    :math:`E[(G - b)^2 w] - E[(Q - b)^2 w]`, for everything that comes later. The terms add up to the variance that
    :func:`~torchrl_ob.diagnostics.gradient_variance` reports. Each is unbiased, so a small term may be below zero.
    (arXiv:2108.08612, section 3.)

    Args:
        advantage: any advantage of the joint action; its actor, critic, keys and options are used.
        batch: trajectories that the current policy collected, ``[*B, T]``.
        num_draws: joint actions of the policy that V averages over.
        confidence: of the intervals, by resampling trajectories.

    Returns:
        The terms of each agent.

    Example: see :mod:`torchrl_ob.diagnostics`.
    """
    team = advantage.team
    with measurement(advantage, batch, num_draws) as (batch, signals, blocks):
        weight = taken_scores(advantage, batch).square().sum(-1)
        own_actions, probabilities, _ = signals.candidates
        own_scores = scores(team.actor, batch, own_actions, psi=team.psi)
        draw, drawn = team.policy(batch).sample(), team.draw_others(batch)
        resampled = team.q_candidates(drawn, own_actions, draw)
        mean, other_mean = (
            torch.einsum("...k,...k,...kp->...p", probabilities, values, own_scores)
            for values in (signals.q_candidates, resampled)
        )  # m at the others' actions taken, and at others of the same policy
        others = (mean - other_mean).square().sum(-1) / 2
        within_state = (mean * other_mean).sum(-1)
        columns = [within_state, others]
        for name in signals.baselines:
            second = signals.second_moment(name, signals.q, weight)
            total = signals.second_moment(name, signals.signal, weight)
            columns += [second - within_state - others, total - second]
        means = blocks.means(torch.stack(columns, -1))
        squared_mean = blocks.squared_mean(blocks.sums((mean + other_mean) / 2))

    def terms(counts: Tensor) -> Tensor:
        within, *rest = means(counts).unbind(-1)
        return torch.stack([within - squared_mean(counts), *rest], -1)

    state, others_term, *pairs = blocks.resample(terms, confidence=confidence).unbind()
    own = dict(zip(signals.baselines, pairs[::2], strict=True))
    later = dict(zip(signals.baselines, pairs[1::2], strict=True))
    return VarianceTerms(state, others_term, own, later)


def excess_variance(
    advantage: JointAdvantage,
    batch: TensorDictBase,
    *,
    num_draws: int = 8,
    confidence: float = 0.95,
) -> ExcessVariance:
    r"""Variance that the joint critic adds to each agent's gradient, beside its bound.

    The centralized estimator :math:`g_C = Q(s, a)\,\nabla\log\pi^i` has more variance than the
    decentralized :math:`g_D = Q^i(s, a^i)\,\nabla\log\pi^i`, by

    .. math::
        \mathrm{Var}[g_C] - \mathrm{Var}[g_D] = E\big[w\,\mathrm{Var}_{a^{-i}}[Q(s, a)\,|\,a^i]\big]
            \le E\Big[w \sum_{j \ne i} A^j(s, a^{-j}, a^j)^2\Big],
        \qquad A^j = Q - E_{a^j}[Q],

    the sum of the other agents' squared local advantages. The inequality is Efron and Stein's, with constant one. It
    requires that the agents act independently given the state, and becomes an equality if Q is a sum of one term per
    agent. The paper's theorem 1 bounds both sides by suprema: :math:`w \le B_i^2` and :math:`|A^j| \le \epsilon_j`
    give :math:`B_i^2 \sum_{j \ne i} \epsilon_j^2` for one step, and the factor :math:`1 / (1 - \gamma^2)` for its
    discounted sum over steps. (arXiv:2108.08612, section 3; Efron and Stein, "The jackknife estimate of variance",
    1981.)

    Args:
        advantage: any advantage of the joint action; its actor and critic are used.
        batch: steps that the current policy collected, ``[*B, T]``.
        num_draws: resampled actions that each expectation averages over.
        confidence: of the intervals.

    Returns:
        The excess and the bound, in ψ, for the critic as it is.

    Example: see :mod:`torchrl_ob.diagnostics`.
    """
    team = advantage.team
    with torch.no_grad(), isolated_rng(seed=0):
        batch = advantage.read(batch)
        taken = batch.get(team.action_key).unsqueeze(batch.ndim + 1)
        weight = taken_scores(advantage, batch).square().sum(-1)
        value = team.q(batch).squeeze(-1)
        excess, bound = torch.zeros_like(weight), torch.zeros_like(weight)
        policy = team.policy(batch)
        for _ in range(num_draws):
            draw, drawn = policy.sample(), team.draw_others(batch)
            resampled = team.q_candidates(drawn, taken, draw).squeeze(-1)
            excess += (value - resampled).square() / 2
            drawn.set(team.action_key, draw)
            for key in team.action_keys:
                for agent in range(batch.get(key).shape[batch.ndim]):
                    at = (slice(None),) * batch.ndim + (agent,)
                    swapped = batch.get(key).clone()  # with the action of one agent drawn anew
                    swapped[at] = drawn.get(key)[at]
                    other = team.q(batch.copy().set(key, swapped)).squeeze(-1)
                    change = (value - other).square() / 2
                    if key == team.action_key:
                        change[at] = 0  # the own action is not one of the others'
                    bound += change
        columns = torch.stack([excess * weight, bound * weight], -1) / num_draws
        blocks = trajectory_blocks(advantage, batch, weight)
        return ExcessVariance(*blocks.mean(columns, confidence=confidence).unbind())
