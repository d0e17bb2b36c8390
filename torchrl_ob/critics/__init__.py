"""Critics of the joint action."""

from torchrl_ob.critics.backbones import Backbone, Sizes
from torchrl_ob.critics.groups import group_critics
from torchrl_ob.critics.joint import JointQCritic
from torchrl_ob.critics.recurrent import RecurrentCritic
from torchrl_ob.critics.reward_streams import RewardStreams
from torchrl_ob.critics.state_value import StateValue

__all__ = [
    "Backbone",
    "JointQCritic",
    "RecurrentCritic",
    "RewardStreams",
    "Sizes",
    "StateValue",
    "group_critics",
]
