"""Collectors of an experiment, each made from a function that makes its environments."""

from __future__ import annotations

import atexit
import copy
import signal
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tensordict import TensorDict
from torch import nn
from torchrl.collectors import Collector, MultiSyncCollector
from torchrl.envs import EnvBase

from torchrl_ob.diagnostics.branching.simulator import (
    has_simulator,
    load_simulator_state,
    simulator_state,
)

__all__ = ["ResumableCollector", "WorkersCollector", "warn_of_new_episodes"]


class ResumableCollector(Collector):
    """TorchRL's single-process collector, which also saves where its episodes stand.

    TorchRL's own state has the policy and the counters; its episodes begin anew when it is loaded.
    Here the simulator and the last step are saved too, and the next batch is the one that would
    have come: of VMAS, and of environments with ``simulator_state`` and ``load_simulator_state``. Others
    begin their episodes anew, from other starts, with a warning.
    """

    _carrier: Any  # the last step, which TorchRL does not type

    def state_dict(self) -> OrderedDict[str, Any]:
        """TorchRL's state, with the simulator's and the last step."""
        state = super().state_dict()
        if has_simulator(self.env):
            state["simulator"] = simulator_state(self.env)
            state["carrier"] = self._carrier.state_dict()
        return state

    def load_state_dict(self, state_dict: OrderedDict[str, Any], **kwargs: Any) -> None:
        """Go on from there."""
        learned = copy.deepcopy(state_dict.get("env_state_dict"))  # which loading aliases
        super().load_state_dict(state_dict, **kwargs)
        if "simulator" not in state_dict:
            warn_of_new_episodes()
            # starts other than those that the run began with
            self.env.set_seed((torch.initial_seed() + self._frames) % 2**32)
            self.reset()
            return
        load_simulator_state(self.env, state_dict["simulator"])
        if learned:  # transforms have seen the steps that this took
            self.env.load_state_dict(learned)
        last_step = TensorDict({}).load_state_dict(state_dict["carrier"], strict=False)
        self._carrier = last_step.to(self.env.device)


class WorkersCollector(MultiSyncCollector):
    """TorchRL's synchronous collector of several processes, which steps a share of the environments in each.

    Batches are ``[num_envs, T]``, as one process gives them, and the same seed gives the same
    batches. The workers act on the newest weights. Where a run is resumed the episodes begin anew,
    from other starts. Where a worker is killed from outside, TorchRL's collector may wait for it: stop
    the run and resume it.

    Args:
        make_env: makes environments; called in each worker with its ``num_envs``.
        policy: acts in the workers, and is trained here.
        num_workers: number of processes.
        num_envs: number of environments of all of them together, a multiple of ``num_workers``.
        seed: that those of the workers follow from.
        **options: of TorchRL's collector, such as ``frames_per_batch``, of all workers together.
    """

    def __init__(
        self,
        make_env: Callable[..., EnvBase],
        policy: nn.Module,
        *,
        num_workers: int,
        num_envs: int,
        seed: int,
        **options: Any,
    ) -> None:
        # the workers would be waited for at exit before anything else closes them
        atexit.register(_shutdown, weakref.ref(self))
        self.seed = seed
        super().__init__(
            [partial(make_env, num_envs=num_envs // num_workers)] * num_workers,
            policy,
            cat_results=0,
            use_buffers=True,
            update_at_each_batch=True,
            num_threads=torch.get_num_threads(),  # TorchRL would take the workers' share away
            init_fn=_leave_signals_to_parent,
            **options,
        )
        self.set_seed(seed)

    def state_dict(self) -> OrderedDict[str, Any]:
        """How many frames and batches have been collected."""
        return OrderedDict(frames=self._frames, iter=self._iter)

    def load_state_dict(self, state_dict: OrderedDict[str, Any]) -> None:
        """Go on counting from there, in new episodes."""
        warn_of_new_episodes()
        self._frames, self._iter = state_dict["frames"], state_dict["iter"]
        self.set_seed(self.seed + self._frames)

    def shutdown(self, *arguments: Any, **options: Any) -> None:
        """Close the workers and what hands them weights, which TorchRL would do, and hang, at exit."""
        try:
            super().shutdown(*arguments, **options)
        finally:
            for scheme in (self._weight_sync_schemes or {}).values():
                scheme.shutdown()


def warn_of_new_episodes() -> None:
    """Say that a run which goes on is not the one that was interrupted."""
    warnings.warn(
        "the state of this environment is not in the checkpoint: episodes begin anew, and "
        "the run will differ from one that was not interrupted.",
        stacklevel=3,
    )


def _leave_signals_to_parent() -> None:
    """Ctrl-C reaches every process of the terminal; the run ends after the batch is whole."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _shutdown(collector: weakref.ref[WorkersCollector]) -> None:
    alive = collector()
    if alive is not None:
        alive.shutdown(raise_on_error=False)
