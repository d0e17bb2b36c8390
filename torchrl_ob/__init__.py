"""The optimal baseline for multi-agent policy gradients, as TorchRL modules.

Kuba et al., "Settling the Variance of Multi-Agent Policy Gradients", NeurIPS 2021, arXiv:2108.08612.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchrl_ob.advantages.dueling_fit import DuelingFit
    from torchrl_ob.advantages.ob import ComaAdvantage, MapgAdvantage, ObAdvantage
    from torchrl_ob.critics.dueling import DuelingCritic
    from torchrl_ob.critics.groups import group_critics
    from torchrl_ob.critics.joint import JointQCritic

__all__ = [
    "ComaAdvantage",
    "DuelingCritic",
    "DuelingFit",
    "JointQCritic",
    "MapgAdvantage",
    "ObAdvantage",
    "group_critics",
]

_HOMES = {
    "ComaAdvantage": "advantages.ob",
    "DuelingCritic": "critics.dueling",
    "DuelingFit": "advantages.dueling_fit",
    "JointQCritic": "critics.joint",
    "MapgAdvantage": "advantages.ob",
    "ObAdvantage": "advantages.ob",
    "group_critics": "critics.groups",
}

if not TYPE_CHECKING:  # where any name would be taken

    def __getattr__(name: str) -> Any:
        """Public names and modules, imported when they are asked for: the command starts without torch."""
        if name in _HOMES:
            return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        try:
            return import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
