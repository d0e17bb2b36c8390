"""The starting point of every measurement: the signal of a batch, and its four baselines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl_ob._checks.arguments import check_whole_number
from torchrl_ob._rng import isolated_rng
from torchrl_ob.advantages.base import JointAdvantage
from torchrl_ob.diagnostics.intervals import Blocks
from torchrl_ob.expectations import Candidates
from torchrl_ob.functional import weighted_baseline

__all__ = [
    "PolicyValue",
    "Signals",
    "candidate_variance",
    "measurement",
    "policy_value",
    "trajectory_blocks",
]


class PolicyValue(NamedTuple):
    """Mean and variance of Q over joint actions of the policy, ``[*B, n]`` each, from M draws."""

    mean: Tensor
    variance: Tensor
    num_draws: int


class Signals(NamedTuple):
    """A batch as the estimators see it; every tensor is ``[*B, T, n]``.

    Attributes:
        value_target: the λ-return of Q.
        q: Q of the joint action taken.
        signal: what the score is multiplied with before a baseline is subtracted: one of the two.
        v: the state value V of the same critic, with the noise of its estimate.
        baselines: of ``"none"``, ``"v"``, ``"coma"`` and ``"ob"``.
        candidates: the candidate own actions.
        q_candidates: their Q, the others' actions held, ``[*B, T, n, K]``.
    """

    value_target: Tensor
    q: Tensor
    signal: Tensor
    v: PolicyValue
    baselines: dict[str, Tensor]
    candidates: Candidates
    q_candidates: Tensor

    def second_moment(self, name: str, signal: Tensor, weight: Tensor) -> Tensor:
        """``E[(X - b)² w]`` of each sample, ``[*B, T, n]``, for the baseline of that name.

        That of V is free of the noise in the estimate of V, by subtraction of its variance.
        """
        squared = (signal - self.baselines[name]).square()
        if name == "v":
            squared = squared - self.v.variance / self.v.num_draws
        return squared * weight

    def own_variance(self) -> Tensor:
        """Variance of Q over the agent's own action, with the others' held, ``[*B, T, n]``."""
        return candidate_variance(self.candidates.probabilities, self.q_candidates)


def candidate_variance(probabilities: Tensor, values: Tensor) -> Tensor:
    """Variance ``[*B, n]`` of Q over candidate own actions, ``[*B, n, K]`` each."""
    deviation = values - weighted_baseline(values, probabilities).unsqueeze(-1)
    return weighted_baseline(deviation.square(), probabilities)


def policy_value(
    advantage: JointAdvantage, tensordict: TensorDictBase, num_draws: int
) -> PolicyValue:
    """Mean and unbiased variance of the critic's Q over joint actions of the policy."""
    check_whole_number("num_draws", num_draws, least=2)
    draws = advantage.team.policy(tensordict).sample(torch.Size([num_draws]))
    team = advantage.team
    values = torch.stack([team.q(team.draw_others(tensordict), draw) for draw in draws]).squeeze(-1)
    return PolicyValue(values.mean(0), values.var(0), num_draws)


@contextmanager
def measurement(
    advantage: JointAdvantage, batch: TensorDictBase, num_draws: int
) -> Iterator[tuple[TensorDictBase, Signals, Blocks]]:
    """A block without gradients and with random numbers of its own.

    Args:
        advantage: an advantage of the joint action; its actor, critic, keys and options are used.
        batch: of trajectories, ``[*B, T]``; it is not changed.
        num_draws: joint actions of the policy that the state value averages over.

    Yields:
        The batch as ``advantage.read`` gives it, its signals, and blocks of it for intervals.
    """
    with torch.no_grad(), isolated_rng(seed=0):
        batch = advantage.read(batch)
        signals = _read_signals(advantage, batch, num_draws)
        yield batch, signals, trajectory_blocks(advantage, batch, signals.signal)


def _read_signals(advantage: JointAdvantage, batch: TensorDictBase, num_draws: int) -> Signals:
    team = advantage.team
    target, value = advantage.value_estimate(batch).squeeze(-1), team.q(batch).squeeze(-1)
    signal = target if advantage.signal == "lambda_return" else value
    candidates = team.candidates(batch)
    values = team.q_candidates(batch, candidates.actions)
    state_value = policy_value(advantage, batch, num_draws)
    baselines = {
        "none": torch.zeros_like(value),
        "v": state_value.mean,
        "coma": weighted_baseline(values, candidates.probabilities),
        "ob": weighted_baseline(values, candidates.optimal_weights),
    }
    return Signals(target, value, signal, state_value, baselines, candidates, values)


def trajectory_blocks(advantage: JointAdvantage, batch: TensorDictBase, like: Tensor) -> Blocks:
    """The batch in blocks of trajectories, for intervals of values with the dtype of ``like``.

    Of agents that take no part, and of padding, nothing enters.
    """
    time_dim, active = advantage._get_time_dim(None, batch), advantage.team.active(batch)
    return Blocks(batch.batch_size, time_dim, like, active)
