"""Whether the critic's value depends on the action, and how well it predicts the return."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl_ob.advantages.base import JointAdvantage
from torchrl_ob.diagnostics.intervals import Blocks, Estimate
from torchrl_ob.diagnostics.measured.signals import Signals, measurement

__all__ = ["CriticQuality", "critic_quality", "judge_critic"]

BLIND = 1e-3
"""Below this share of the return's variance, the critic is said to ignore the action."""


class CriticQuality(NamedTuple):
    """How the critic's Q relates to actions and returns, ``[n]`` each, for each agent.

    Attributes:
        q_spread: standard deviation of Q across the agent's own actions, with the others' held.
        others_spread: standard deviation, across the others' actions, of the mean of Q over the agent's own action.
        explained_variance: ``1 - Var(G - Q) / Var(G)`` over the batch; 1 is perfect.
        slope: slope of ``G - V`` on ``Q - V`` within states: 1 if Q's action part is calibrated, 0 if it is noise;
            below 1/2, an action-dependent baseline adds noise; not finite if Q does not vary.
        bias: mean of ``G - V`` over its root mean square, near [-1, 1]: far from 0 if the critic lags behind the
            policy. Baselines then differ in their means too, unless the advantage is standardized.
    """

    q_spread: Estimate
    others_spread: Estimate
    explained_variance: Estimate
    slope: Estimate
    bias: Estimate

    def __str__(self) -> str:
        """One line for each number, one column for each agent, with the intervals."""
        lines = []
        for name, estimate in zip(self._fields, self, strict=True):
            agents = zip(*(bound.tolist() for bound in estimate), strict=True)
            cells = (f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in agents)
            lines.append(f"{name:20}" + "  ".join(f"{cell:24}" for cell in cells).rstrip())
        return "\n".join(lines)


def critic_quality(
    advantage: JointAdvantage,
    batch: TensorDictBase,
    *,
    num_draws: int = 8,
    confidence: float = 0.95,
) -> CriticQuality:
    """Whether the critic's value depends on the action, and how well it predicts the return.

    Args:
        advantage: any advantage of the joint action; its actor, critic, keys and options are used.
        batch: trajectories that the current policy collected, ``[*B, T]``.
        num_draws: joint actions of the policy that each variance is estimated from.
        confidence: of the intervals, by resampling trajectories.

    Returns:
        The numbers of each agent.

    Warns:
        UserWarning: if the critic ignores the action: Q's variance over joint actions is less than a thousandth of
            the return's around V. Every baseline is then in effect a state value.

    Example: see :mod:`torchrl_ob.diagnostics`.
    """
    with measurement(advantage, batch, num_draws) as (batch, signals, blocks):
        quality, seen = judge_critic(signals, blocks, confidence)
    blind = [agent for agent, share in enumerate(seen.tolist()) if not share >= BLIND]
    if blind:
        warnings.warn(
            f"the critic ignores the action of agents {blind}: Q varies over joint actions by less "
            f"than {BLIND:.1%} of the return's variance. OB, COMA and a state value are then one and "
            "the same. Train the critic longer, give it a value norm, or use its pooled backbone.",
            stacklevel=2,
        )
    return quality


def judge_critic(
    signals: Signals, blocks: Blocks, confidence: float = 0.95
) -> tuple[CriticQuality, Tensor]:
    """:func:`critic_quality` of signals read before, and Q's share of the return's variance, ``[n]``."""
    target, q, value = signals.value_target, signals.q, signals.v
    own, error = signals.own_variance(), target - q
    centers = blocks.means(torch.stack([target, error], -1))(blocks.every)
    target_mean, error_mean = centers[0].unbind(-1)  # of each agent
    noise = value.variance / value.num_draws  # of V, in both factors of the products below
    columns = {
        "own": own,
        "others": value.variance - own,
        "target": (target - target_mean).square(),
        "error": (error - error_mean).square(),
        "level": target - value.mean,
        "residual": (target - value.mean).square() - noise,
        "covariance": (target - value.mean) * (q - value.mean) - noise,
        "action": value.variance,
    }
    means = blocks.means(torch.stack(list(columns.values()), -1))

    def statistics(counts: Tensor) -> Tensor:
        mean = dict(zip(columns, means(counts).unbind(-1), strict=True))
        return torch.stack(
            [
                mean["own"].clamp(min=0).sqrt(),
                mean["others"].clamp(min=0).sqrt(),
                1 - mean["error"] / mean["target"],
                mean["covariance"] / mean["action"],
                mean["level"] / mean["residual"].sqrt(),
                mean["action"] / mean["residual"],
            ],
            -1,
        )

    *quality, seen = blocks.resample(statistics, confidence=confidence).unbind()
    return CriticQuality(*quality), seen.value
