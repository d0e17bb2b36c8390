"""A collector whose checkpoints hold the environment, so that a resumed run goes on mid-episode."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import Any

from tensordict import TensorDict
from torchrl.collectors import Collector

from torchrl_ob.experiments.simulator_state import (
    has_simulator,
    load_simulator_state,
    simulator_state,
)

__all__ = ["ResumableCollector"]


class ResumableCollector(Collector):
    """TorchRL's single-process collector, which also saves where its VMAS episodes stand.

    TorchRL's own state has the policy and the counters; its episodes begin anew when it is loaded.
    Here the simulator and the last step are saved too, and the next batch is the one that would
    have come. Other simulators begin their episodes anew, with a warning.
    """

    def state_dict(self) -> OrderedDict[str, Any]:
        """TorchRL's state, with the simulator's and the last step."""
        state = super().state_dict()
        if has_simulator(self.env):
            state["simulator"] = simulator_state(self.env)
            state["carrier"] = self._carrier.state_dict()
        return state

    def load_state_dict(self, state_dict: OrderedDict[str, Any], **kwargs: Any) -> None:
        """Go on from there."""
        super().load_state_dict(state_dict, **kwargs)
        if "simulator" not in state_dict:
            warnings.warn(
                "the state of this environment is not in the checkpoint: episodes begin anew, and "
                "the run will differ from one that was not interrupted.",
                stacklevel=2,
            )
            return
        load_simulator_state(self.env, state_dict["simulator"])
        last_step = TensorDict({}).load_state_dict(state_dict["carrier"], strict=False)
        self._carrier = last_step.to(self.env.device)
