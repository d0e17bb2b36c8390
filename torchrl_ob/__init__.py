"""The optimal baseline for multi-agent policy gradients, as TorchRL modules.

Kuba et al., "Settling the Variance of Multi-Agent Policy Gradients", NeurIPS 2021, arXiv:2108.08612.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what _HOMES says, for type checkers
    from torchrl_ob._factored_categorical import FactoredCategorical as FactoredCategorical
    from torchrl_ob.advantages import ComaAdvantage as ComaAdvantage
    from torchrl_ob.advantages import JointAdvantage as JointAdvantage
    from torchrl_ob.advantages import MapgAdvantage as MapgAdvantage
    from torchrl_ob.advantages import ObAdvantage as ObAdvantage
    from torchrl_ob.advantages import StreamAdvantage as StreamAdvantage
    from torchrl_ob.critics import JointQCritic as JointQCritic
    from torchrl_ob.critics import RecurrentCritic as RecurrentCritic
    from torchrl_ob.critics import RewardStreams as RewardStreams
    from torchrl_ob.critics import StateValue as StateValue
    from torchrl_ob.critics import group_critics as group_critics
    from torchrl_ob.expectations import Candidates as Candidates
    from torchrl_ob.expectations import register_candidates as register_candidates
    from torchrl_ob.policies import policy_from_env as policy_from_env
    from torchrl_ob.recurrent import MultiAgentGRU as MultiAgentGRU
    from torchrl_ob.recurrent import MultiAgentLSTM as MultiAgentLSTM
    from torchrl_ob.team import Team as Team

_HOMES = {
    "advantages": "ComaAdvantage JointAdvantage MapgAdvantage ObAdvantage StreamAdvantage",
    "critics": "JointQCritic RecurrentCritic RewardStreams StateValue group_critics",
    "_factored_categorical": "FactoredCategorical",
    "expectations": "Candidates register_candidates",
    "policies": "policy_from_env",
    "recurrent": "MultiAgentGRU MultiAgentLSTM",
    "team": "Team",
}
_MODULE_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_MODULE_OF)

if not TYPE_CHECKING:  # where any name would be taken

    def __getattr__(name: str) -> Any:
        """Public names and modules, imported when they are asked for: the command starts without torch."""
        if name == "__version__":
            return import_module("importlib.metadata").version(__name__)
        if name in _MODULE_OF:
            return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        try:
            return import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
