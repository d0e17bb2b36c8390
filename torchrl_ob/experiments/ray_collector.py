"""Collection on a cluster: TorchRL's collector of Ray, which tells of lost workers and never waits without end."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import nn
from torchrl.collectors import Collector
from torchrl.collectors.distributed import RayCollector
from torchrl.envs import EnvBase

from torchrl_ob.experiments.collectors import warn_of_new_episodes
from torchrl_ob.experiments.errors import ExperimentError, first_line

__all__ = ["LostWorkersError", "RayWorkersCollector"]


class _SeededCollector(Collector):
    """TorchRL's collector of one process, whose seed is that of its actions and of the first starts too."""

    def set_seed(self, seed: int, static_seed: bool = False) -> int:
        """Seed the actions and the environments, and begin episodes anew."""
        torch.manual_seed(seed)
        following: int = super().set_seed(seed, static_seed)
        self.reset()
        return following


class LostWorkersError(ExperimentError):
    """A worker has ended, or does not answer; what was learned before can be saved."""


class RayWorkersCollector(RayCollector):
    """TorchRL's synchronous collector of Ray, with a share of the environments in each worker.

    Batches are ``[num_envs, T]``, as one process gives them, and the same seed gives the same batches. The workers get
    the newest weights before each batch. Where a run is resumed the episodes begin anew, from other starts.

    Args:
        make_env: makes environments; called in each worker with its ``num_envs`` and ``device``.
        policy: acts in the workers, and is trained here.
        num_workers: number of workers, each an actor of Ray.
        num_envs: number of environments of all of them together, a multiple of ``num_workers``.
        seed: that those of the workers follow from.
        address: of a cluster; ``auto`` for the one that this machine belongs to, ``local`` to start Ray here.
        timeout: seconds that are waited for workers to start, and for each batch.
        num_cpus: of each worker.
        num_gpus: of each worker; with 0 environments and policy are on the CPU.
        device: of the batches.
        **options: of TorchRL's collector, such as ``frames_per_batch``, of all workers together.

    Raises:
        ExperimentError: where Ray is missing, cannot be reached, or has no room for the workers.
        LostWorkersError: from the iteration, where a worker ends, or takes longer than ``timeout``.
    """

    def __init__(
        self,
        make_env: Callable[..., EnvBase],
        policy: nn.Module,
        *,
        num_workers: int,
        num_envs: int,
        seed: int,
        address: str = "local",
        timeout: float = 600.0,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> None:
        self.trained, self.target, self.seed, self.timeout = policy, device, seed, timeout
        self._ray = ExitStack()  # what is given back at the end
        _start_ray(self._ray, address, num_workers * num_cpus)
        place = "cuda" if num_gpus else "cpu"
        try:
            super().__init__(
                [partial(make_env, num_envs=num_envs // num_workers, device=place)] * num_workers,
                copy.deepcopy(policy).to("cpu"),
                device=place,
                sync=True,
                collector_class=_SeededCollector,
                remote_configs=_reserve(self._ray, num_workers, num_cpus, num_gpus, timeout),
                **options,
            )
            self.set_seed(seed)
            super().update_policy_weights_(policy)
        except BaseException:
            self._ray.close()
            raise

    def _sync_iterator(self) -> Iterator[TensorDictBase]:
        """The batches, each by the newest weights."""
        import ray

        while self.collected_frames < self.total_frames:
            with _told_of_losses():
                super().update_policy_weights_(self.trained)
                shares = [worker.next.remote() for worker in self.remote_collectors]
                late = ray.wait(shares, num_returns=len(shares), timeout=self.timeout)[1]
                if late:
                    raise LostWorkersError(
                        f"{len(late)} of {len(shares)} workers of Ray gave no batch in {self.timeout} seconds, "
                        "collector.timeout."
                    )
                batch = torch.cat(ray.get(shares)).to(self.target)
            self.collected_frames += batch.numel()
            yield batch

    def update_policy_weights_(self, *arguments: Any, **options: Any) -> None:
        """Nothing: the workers get the weights before each batch."""

    def state_dict(self) -> OrderedDict[str, Any]:
        """How many frames have been collected."""
        return OrderedDict(frames=self.collected_frames)

    def load_state_dict(self, state_dict: OrderedDict[str, Any]) -> None:
        """Go on counting from there, in new episodes."""
        warn_of_new_episodes()
        self.collected_frames = state_dict["frames"]
        with _told_of_losses():
            self.set_seed(self.seed + self.collected_frames)

    def shutdown(self, *arguments: Any, **options: Any) -> None:
        """End the workers, and Ray where it was started here."""
        try:
            super().shutdown(*arguments, **options)
        finally:
            self._ray.close()


@contextmanager
def _told_of_losses() -> Iterator[None]:
    from ray.exceptions import RayError

    try:
        yield
    except (RayError, RuntimeError) as error:  # the latter of gloo, which carries the weights
        name = type(error).__name__
        raise LostWorkersError(
            f"a worker of Ray has ended ({name}: {first_line(error)})"
        ) from error


def _start_ray(stack: ExitStack, address: str, num_cpus: float) -> None:
    """Start Ray on this machine, or join a cluster, until the stack is closed; a caller's own Ray is left alone."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ExperimentError(
            "collector=ray needs its package: pip install 'torchrl-ob[ray]'"
        ) from error
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"address": address, "log_to_driver": False}
    options |= {"logging_level": "warning", "configure_logging": False}
    if address == "local":  # has room for the workers however few cores there are
        options |= {"num_cpus": math.ceil(num_cpus), "include_dashboard": False}
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ExperimentError(
            f"collector.address={address}: Ray cannot be reached ({first_line(error)}). Start it with `ray start --head`, "
            "or take collector.address=local."
        ) from error
    stack.callback(ray.shutdown)


def _reserve(
    stack: ExitStack, num_workers: int, num_cpus: float, num_gpus: float, timeout: float
) -> dict[str, Any]:
    """Room for all workers at once, so that none is waited for without end."""
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    room = {"CPU": num_cpus, **({"GPU": num_gpus} if num_gpus else {})}
    group = placement_group([room] * num_workers)
    stack.callback(remove_placement_group, group)
    if not group.wait(timeout):
        raise ExperimentError(
            f"Ray has no room for {num_workers} workers of {room}, and was waited for {timeout} seconds: lower "
            "collector.num_workers, or collector.num_gpus, or give Ray more machines."
        )
    strategy = PlacementGroupSchedulingStrategy(group)
    return {"num_cpus": num_cpus, "num_gpus": num_gpus, "scheduling_strategy": strategy}
