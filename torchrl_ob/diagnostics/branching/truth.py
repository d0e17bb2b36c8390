r"""Measurements on the returns of branches: variance components, headroom, baselines, and how well a critic fits.

Returns have shape ``[S, M1, M2, n]``: of n agents, from S states, with M1 joint actions of the policy
and M2 continuations of each, as :func:`~torchrl_ob.diagnostics.branching.branches.branch` gives them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase

from torchrl_ob.critics.substitution import put_own_actions
from torchrl_ob.diagnostics.branching.branches import branch_returns
from torchrl_ob.diagnostics.branching.copies import Policy
from torchrl_ob.diagnostics.intervals import Estimate, resample
from torchrl_ob.expectations import Candidates
from torchrl_ob.functional import weighted_baseline

__all__ = [
    "CriticFit",
    "NestedVariance",
    "TrueBaselines",
    "critic_fit",
    "nested_variance",
    "true_baselines",
    "true_headroom",
]


class NestedVariance(NamedTuple):
    """Variance of a return within a state: of the joint action and of what follows, ``[*B, n]``."""

    action: Tensor
    noise: Tensor


class CriticFit(NamedTuple):
    """How much a critic explains of the joint action's effect: two shares ``[n]``, with their intervals."""

    r2: Estimate
    captured: Estimate


class TrueBaselines(NamedTuple):
    """COMA's baseline and the optimal one, ``[len(horizons), S, n]``; Q of the candidates ``[..., K]``."""

    coma: Tensor
    optimal: Tensor
    values: Tensor


def nested_variance(returns: Tensor) -> NestedVariance:
    r"""Unbiased variance components of a return within a state.

    .. math::
        \sigma^2_{noise} = \tfrac{1}{M_1} \sum_m \hat{Var}_k[R_{mk}], \qquad
        \sigma^2_{action} = \hat{Var}_m[\bar R_m] - \sigma^2_{noise} / M_2

    with sample variances. They estimate :math:`E_a[Var[R | a]]` and :math:`Var_a[Q(s, a)]`. The second estimate is
    unbiased and can therefore be negative: average over states before dividing by it.

    Args:
        returns: ``[*B, M1, M2, n]``, M1 and M2 at least 2.

    Raises:
        ValueError: for a single joint action or continuation.

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics.branching.truth import nested_variance
        >>> returns = torch.tensor([[1., 3.], [5., 7.]])  # two joint actions, two continuations
        >>> nested_variance(returns.unsqueeze(-1))
        NestedVariance(action=tensor([7.]), noise=tensor([2.]))
    """
    if returns.ndim < 3 or min(returns.shape[-3:-1]) < 2:
        raise ValueError(
            f"returns must have shape [*batch, M1, M2, n] with M1 and M2 at least 2, got {list(returns.shape)}."
        )
    noise = returns.var(-2).mean(-2)
    return NestedVariance(returns.mean(-2).var(-2) - noise / returns.shape[-2], noise)


def true_headroom(returns: Tensor, *, confidence: float = 0.95) -> Estimate:
    r"""Share of the variance of returns within a state that is due to the joint action.

    .. math::
        h = \frac{E_s[Var_a[Q(s, a)]]}{E_s[Var[R | s]]}

    No baseline of the state and the actions can remove more; the rest is noise of the future. With a horizon of 1 in
    a deterministic environment, the share is 1.

    Args:
        returns: ``[S, M1, M2, n]``.
        confidence: of the interval, by resampling states.

    Returns:
        One share per agent, ``[n]``, with its interval; NaN if no return varies within a state.

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics.branching.truth import true_headroom
        >>> _ = torch.manual_seed(0)
        >>> value, noise = torch.randn(200, 8, 1, 1), torch.randn(200, 8, 4, 1)
        >>> headroom = true_headroom(value + noise)
        >>> bool(0.4 < headroom.value < 0.6)
        True
    """
    action, noise = nested_variance(returns)
    return resample(
        lambda count: (count @ action) / (count @ (action + noise)),
        len(returns),
        confidence=confidence,
        like=action,
    )


def critic_fit(
    q: Tensor, returns: Tensor, *, leave_out: float = 0.0, confidence: float = 0.95
) -> CriticFit:
    r"""Whether a critic explains the joint action's effect: its Q against the true one, centred within the state.

    .. math::
        R^2 = \frac{Cov(Q, Q_{true})^2}{Var(Q) Var(Q_{true})}, \qquad
        captured = 1 - \frac{E[(Q - Q_{true})^2]}{Var(Q_{true})}
                 = \frac{2 Cov(Q, Q_{true}) - Var(Q)}{Var(Q_{true})}

    Moments are over joint actions within a state, then averaged over states. The sampling noise of the true Q enters
    neither the covariance nor, by :func:`nested_variance`, its variance. R² ignores the critic's scale. The captured
    share does not; it is never larger than R², and it is negative for a critic that does more harm than good. Both
    are 0 for a critic that ignores the action.

    Both weight a state by the variance of its action's effect. If one state in a hundred has most of that variance,
    as with collisions, they describe mainly that state, and say little about the critic elsewhere: ``leave_out=0.1``
    leaves out the tenth of the states in which the joint action matters most to an agent.

    Args:
        q: the critic's values of the branched joint actions, ``[S, M1, n]``.
        returns: ``[S, M1, M2, n]``.
        leave_out: share of the states to leave out, from 0 to below 1.
        confidence: of the intervals, by resampling states.

    Raises:
        ValueError: if the shapes do not fit, or the share does not.

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics.branching.truth import critic_fit
        >>> _ = torch.manual_seed(0)
        >>> q = torch.randn(200, 8, 1)
        >>> fit = critic_fit(3 * q, q.unsqueeze(2) + 0.1 * torch.randn(200, 8, 4, 1))
        >>> fit.r2.value.round(decimals=1), fit.captured.value.round(decimals=1)
        (tensor([1.]), tensor([-3.]))
    """
    if returns.ndim != 4 or q.shape != (*returns.shape[:2], returns.shape[3]):
        raise ValueError(
            f"q has shape {list(q.shape)} and returns {list(returns.shape)}; expected [S, M1, n] and [S, M1, M2, n]."
        )
    if not 0 <= leave_out < 1:
        raise ValueError(f"leave_out must be from 0 to below 1, got {leave_out}.")
    true = nested_variance(returns).action
    kept = true <= true.quantile(1 - leave_out, dim=0)  # [S, n]
    q = q.to(returns)
    mean = returns.mean(2)
    own = q.var(1) * kept
    joint = ((q - q.mean(1, keepdim=True)) * mean).sum(1) / (q.shape[1] - 1) * kept
    true = true * kept

    def r2(count: Tensor) -> Tensor:
        explained = (count @ joint).square() / (count @ own) / (count @ true)
        return explained.where(count @ own > 0, 0)

    def captured(count: Tensor) -> Tensor:
        return (count @ (2 * joint - own)) / (count @ true)

    share, gain = (
        resample(statistic, len(q), confidence=confidence, like=true)
        for statistic in (r2, captured)
    )
    return CriticFit(share, gain)


def true_baselines(
    env: EnvBase,
    states: TensorDictBase,
    policy: Policy,
    actions: Tensor,
    candidates: Candidates,
    **options: Any,
) -> TrueBaselines:
    r"""The baselines that a perfect critic would give.

    .. math::
        b^i(s, a^{-i}) = \sum_k x_k\, Q(s, a^{-i}, a_k)

    with Q the mean return over continuations: unbiased, as a baseline is linear in Q.

    Args:
        env: the environment, of batch size ``[S]``.
        states: the tensordict that it is in, ``[S]``.
        policy: the agents' policies.
        actions: the joint action that was taken, ``[S, n, *event]``.
        candidates: of ``states``, as ``advantage.team.candidates(states)`` gives them.
        **options: of :func:`branch_returns`.

    Returns:
        Baselines with the weights of COMA and of the optimal baseline, and the candidates' Q.
    """
    joint = put_own_actions(actions, candidates.actions).flatten(1, 2)
    returns = branch_returns(env, states, policy, joint, **options)
    whose = candidates.probabilities.shape[1:]  # candidate of which agent, and which
    values = returns.mean(-2).unflatten(2, whose)  # [H, S, n, K, n]
    values = values.diagonal(dim1=2, dim2=4).movedim(-1, 2)
    coma, optimal = (
        weighted_baseline(values, weights.to(values).expand_as(values))
        for weights in (candidates.probabilities, candidates.optimal_weights)
    )
    return TrueBaselines(coma, optimal, values)
