"""Networks of the joint critic: their interface, and those of the package.

Each computes ``tail(context_i + own_i(a))`` for every agent and each of K own actions, or a sum of such terms;
``context``, which does not depend on the agent's own action, is computed once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from torchrl_ob.critics.backbones.additive import AdditiveBackbone
from torchrl_ob.critics.backbones.concat import ConcatBackbone
from torchrl_ob.critics.backbones.layers import AgentLinear
from torchrl_ob.critics.backbones.pooled import PooledBackbone
from torchrl_ob.critics.backbones.protocol import Backbone, GroupBackbone, Others, Sizes, own_values

__all__ = [
    "AdditiveBackbone",
    "AgentLinear",
    "Backbone",
    "ConcatBackbone",
    "GroupBackbone",
    "Others",
    "PooledBackbone",
    "Sizes",
    "find_backbone",
    "own_values",
]

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "pooled": PooledBackbone,
    "concat": ConcatBackbone,
    "additive": AdditiveBackbone,
}


def find_backbone(backbone: str | Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The function that makes a backbone: by its name, or a custom one.

    Raises:
        ValueError: for another name.
        TypeError: for a module in place of what makes it.
    """
    if isinstance(backbone, str) and backbone in BACKBONES:
        return BACKBONES[backbone]
    if not callable(backbone):
        raise ValueError(
            f"backbone must be one of {sorted(BACKBONES)}, or a function of sizes that makes a module, got {backbone!r}."
        )
    if isinstance(backbone, nn.Module):
        raise TypeError(
            f"backbone must make a module, and is a {type(backbone).__name__} itself: give its class, or a function of sizes."
        )
    return backbone
