"""No baseline."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl_ob.advantages.base import JointAdvantage

__all__ = ["MapgAdvantage"]


class MapgAdvantage(JointAdvantage):
    r"""No baseline: :math:`X^i = G^i`, the plain multi-agent policy gradient, for comparison.

    (arXiv:2108.08612, section 2.) Arguments, options and keys are those of :class:`~torchrl_ob.ObAdvantage`, which
    has an example. The baseline is written as zeros.
    """

    def baseline(self, tensordict: TensorDictBase) -> Tensor:
        """Zeros, ``[*B, n, 1]``."""
        action = tensordict.get(self.team.action_key)
        return torch.zeros((*self.team.agents(tensordict), 1), device=action.device)
