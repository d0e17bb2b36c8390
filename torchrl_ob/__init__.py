"""The optimal baseline for multi-agent policy gradients, as TorchRL modules.

Kuba et al., "Settling the Variance of Multi-Agent Policy Gradients", NeurIPS 2021, arXiv:2108.08612.
"""

from torchrl_ob.advantages import ComaAdvantage, MapgAdvantage, ObAdvantage
from torchrl_ob.critics import JointQCritic
from torchrl_ob.dueling import DuelingCritic
from torchrl_ob.dueling_fit import DuelingFit
from torchrl_ob.groups import group_critics

__all__ = [
    "ComaAdvantage",
    "DuelingCritic",
    "DuelingFit",
    "JointQCritic",
    "MapgAdvantage",
    "ObAdvantage",
    "group_critics",
]
