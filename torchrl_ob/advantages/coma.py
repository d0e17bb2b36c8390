"""COMA's baseline."""

from __future__ import annotations

from tensordict import TensorDictBase
from torch import Tensor

from torchrl_ob.advantages.base import JointAdvantage

__all__ = ["ComaAdvantage"]


class ComaAdvantage(JointAdvantage):
    r"""Advantage with COMA's counterfactual baseline, the expectation of Q over the agent's own action.

    .. math::
        X^i = G^i - E_{a^i \sim \pi^i}[Q^i(s, a^{-i}, a^i)]

    (Foerster et al., "Counterfactual Multi-Agent Policy Gradients", AAAI 2018, equation 4.)

    Arguments, options and keys are those of :class:`~torchrl_ob.ObAdvantage`, which has an example.
    """

    def baseline(self, tensordict: TensorDictBase) -> Tensor:
        r""":math:`E_{a^i}[Q] = \sum_k p_k Q_k` over candidate own actions, ``[*B, n, 1]``."""
        own = self.team.candidates(tensordict, "probabilities", acting=True)
        q = self.team.q_candidates(tensordict, own.actions)
        return (own.probabilities * q).sum(-1, keepdim=True)
