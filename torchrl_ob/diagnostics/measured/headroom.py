"""The largest share of the variance that a baseline can remove."""

from __future__ import annotations

from typing import NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl_ob.advantages.base import JointAdvantage
from torchrl_ob.diagnostics.intervals import Estimate
from torchrl_ob.diagnostics.measured.signals import candidate_variance, measurement, policy_value
from torchrl_ob.functional import lambda_return

__all__ = ["Headroom", "headroom"]


class Headroom(NamedTuple):
    """Shares of the variance of each agent's signal within a state, ``[n]`` each, summing to one.

    Attributes:
        others: from the other agents' current actions.
        own: from the agent's own current action.
        later: from the team's later actions.
        rest: from the environment and from the critic's error.
    """

    others: Estimate
    own: Estimate
    later: Estimate
    rest: Estimate

    def __str__(self) -> str:
        """The number that decides, in words; and where the critic's account cannot be believed."""
        lines = []
        for agent, shares in enumerate(zip(*(x.value.tolist() for x in self), strict=True)):
            others, own, later, rest = (f"{100 * share:.1f}%" for share in shares)
            now = 100 * min(1.0, max(0.0, shares[0] + shares[1]))
            lines.append(
                f"agent {agent}: by the critic's account, baselines can remove at most {now:.1f}% "
                f"of the variance here: {others} comes from the others' current actions and {own} from the own one, "
                f"{later} from later actions, {rest} from the environment and the critic's error."
            )
            if self.rest.high[agent] < 0:
                lines[-1] += (
                    " These cannot be shares: Q varies over actions by more than the return does. "
                    "Train the critic on this policy first, then measure again."
                )
        return "\n".join(lines)


def headroom(
    advantage: JointAdvantage,
    batch: TensorDictBase,
    *,
    num_draws: int = 8,
    confidence: float = 0.95,
) -> Headroom:
    r"""How much of the signal's variance a baseline can remove, according to the critic.

    Within a state, the return deviates from the state value by :math:`G - V = (Q - V) + (G - Q)`. The first part
    comes from the current joint action,
    :math:`\mathrm{Var}_a[Q] = \mathrm{Var}_{a^{-i}}[E_{a^i} Q] + E_{a^{-i}}[\mathrm{Var}_{a^i} Q]`, the others' and
    the agent's own; OB, or any baseline of the others' actions, can change only this part. In the second part, later
    actions enter through Q of the states that follow, with variance

    .. math::
        L_t = \gamma^2 \big[((1 - \lambda)^2 + \lambda^2)\,\mathrm{Var}_a[Q(s_{t+1}, a)]
              + \lambda^2 L_{t+1}\big],

    and the rest is the environment's noise and the critic's error. If the signal is the critic's Q itself, all of the
    variance comes from the current action. All shares are unbiased up to the ratio.

    A critic that is not trained yet may predict more variance than the return has; the rest is then below zero, and
    ``str()`` says so. A critic that ignores actions hides headroom that is there: see
    :func:`~torchrl_ob.diagnostics.true_headroom` for the truth.

    Args:
        advantage: any advantage of the joint action; its actor, critic, keys and options are used.
        batch: trajectories that the current policy collected, ``[*B, T]``.
        num_draws: joint actions of the policy that the variance of Q is estimated from.
        confidence: of the intervals, by resampling trajectories.

    Returns:
        The shares of each agent; ``str()`` puts them into words.

    Example: see :mod:`torchrl_ob.diagnostics`.
    """
    with measurement(advantage, batch, num_draws) as (batch, signals, blocks):
        value, own = signals.v, signals.own_variance()
        later, rest = torch.zeros_like(own), torch.zeros_like(own)
        if advantage.signal == "lambda_return":
            later = _later_variance(advantage, batch, num_draws)
            spread = (signals.signal - value.mean).square() - value.variance / num_draws
            rest = spread - value.variance - later
        means = blocks.means(torch.stack([value.variance - own, own, later, rest], -1))

    def shares(counts: Tensor) -> Tensor:
        parts = means(counts)
        return parts / parts.sum(-1, keepdim=True)

    return Headroom(*blocks.resample(shares, confidence=confidence).unbind())


def _later_variance(advantage: JointAdvantage, batch: TensorDictBase, num_draws: int) -> Tensor:
    """Variance of the return that the team's later actions bring, ``[*B, T, n]``."""
    following, team = advantage.following(batch), advantage.team
    total = policy_value(advantage, following, num_draws).variance
    following_value = total  # variance of the value that the return goes on with
    if advantage.bootstrap == "expected":
        candidates = team.candidates(following)
        action, drawn = team.policy(following).sample(), team.draw_others(following)
        values = team.q_candidates(drawn, candidates.actions, action)
        following_value = total - candidate_variance(candidates.probabilities, values)
    done, terminated = (flags.squeeze(-1) for flags in advantage.ends(batch))
    time_dim = advantage._get_time_dim(None, batch)
    last = torch.zeros_like(done)
    last.select(time_dim, -1).fill_(True)
    trace = advantage.lmbda * (~(done | last)).to(total.dtype)
    arriving = (1 - trace).square() * following_value + trace.square() * total
    if advantage.bootstrap == "control_variate":
        # what Q explains of later actions is taken off the return
        arriving = torch.stack([team.v(following).squeeze(-1) for _ in range(2)]).var(0)
    return lambda_return(
        advantage.gamma**2 * (~terminated).to(total.dtype) * arriving,
        torch.zeros_like(total),
        done,
        terminated,
        gamma=advantage.gamma**2,
        lmbda=advantage.lmbda**2,
        time_dim=time_dim,
    )
