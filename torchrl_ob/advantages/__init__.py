"""The advantages: the optimal baseline, COMA's baseline, and no baseline; and the base class for custom ones."""

from torchrl_ob.advantages.base import JointAdvantage
from torchrl_ob.advantages.coma import ComaAdvantage
from torchrl_ob.advantages.mapg import MapgAdvantage
from torchrl_ob.advantages.ob import ObAdvantage
from torchrl_ob.advantages.streams import StreamAdvantage

__all__ = [
    "ComaAdvantage",
    "JointAdvantage",
    "MapgAdvantage",
    "ObAdvantage",
    "StreamAdvantage",
]
