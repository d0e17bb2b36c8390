"""What happens around the updates of TorchRL's trainer: minibatches, metrics, evaluation, guards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import nn
from torchrl.trainers import Trainer
from tqdm import tqdm

from torchrl_ob.experiments.envs.teams import BATTLE_WON, agent_rewards, episode_key
from torchrl_ob.experiments.errors import ExperimentError, first_line

__all__ = ["EpisodeReward", "FiniteLoss", "Minibatches", "Progress"]


class Minibatches:
    """The advantage of a batch, once, while time is a dimension; then minibatches of its steps.

    TorchRL's trainer computes the advantage again in each epoch. The steps are shuffled once an
    epoch and cut, without a replay buffer that gathers each minibatch apart.

    Args:
        advantage: of the batch, ``[*B, T]``.
        keys: what an update reads of a step.
        size: of a minibatch.
        active_key: where it is said which agents take part, ``[*B, T, n]``: the advantages of these alone
            are normalised.
    """

    def __init__(
        self,
        advantage: Callable[[TensorDictBase], Any],
        keys: Sequence[NestedKey],
        size: int,
        active_key: NestedKey | None = None,
    ) -> None:
        self.advantage, self.keys, self.size = advantage, keys, size
        self.active_key = active_key
        self.minibatches: Iterator[TensorDictBase] | None = None

    def prepare(self, batch: TensorDictBase) -> TensorDictBase:
        """Add the advantage to the batch."""
        self.advantage(batch)
        return batch

    def draw(self, batch: TensorDictBase) -> TensorDictBase:
        """The next minibatch; ``StopIteration`` ends the epoch."""
        if self.minibatches is None:
            steps = batch.select(*self.keys, strict=False)
            if self.active_key is not None:
                active = batch.get(self.active_key)
                # the second is where TorchRL's losses look for what to leave out of a normalisation
                steps.set(self.active_key, active).set("shifted_valid", active.unsqueeze(-1))
            steps = steps.reshape(-1)
            order = torch.randperm(len(steps), device=steps.device)
            self.minibatches = iter(steps[order].split(self.size))
        try:
            return next(self.minibatches)
        except StopIteration:
            self.minibatches = None
            raise

    def register(self, trainer: Trainer) -> None:
        """Add the hook to a trainer that has no buffer and no estimator of its own."""
        trainer.register_op("batch_process", self.prepare)
        trainer.register_op("process_optim_batch", self.draw)


class EpisodeReward:
    """Logs the mean reward of the steps of a batch and of the episodes that end in it, and battles won.

    Args:
        reward_keys: where the rewards of each group of agents are. Of several groups the means over all
            agents are logged, and those of each under its name, such as ``train/reward_adversary``.
    """

    def __init__(self, reward_keys: Mapping[str, NestedKey]) -> None:
        self.keys = {"": list(dict.fromkeys(reward_keys.values()))}
        if len(reward_keys) > 1:
            self.keys |= {f"_{group}": [key] for group, key in reward_keys.items()}

    def __call__(self, batch: TensorDictBase) -> dict[str, float]:
        """Means over agents; no episode, no number."""
        following, metrics = batch["next"], {}
        ends = following["done"].squeeze(-1)
        for name, keys in self.keys.items():
            metrics[f"train/reward{name}"] = agent_rewards(following, keys).mean().item()
            returns = agent_rewards(following, map(episode_key, keys))[ends].mean(1)
            if len(returns):
                metrics[f"train/episode_reward{name}"] = returns.mean().item()
        won = following.get(BATTLE_WON, None)
        if won is not None and ends.any():
            metrics["train/win_rate"] = won.flatten()[ends.flatten()].float().mean().item()
        return metrics

    def register(self, trainer: Trainer) -> None:
        """Add the hook to a trainer."""
        trainer.register_op("pre_steps_log", self)


class Progress:
    """A bar with the reward, frames per second and the time left."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.bar: tqdm | None = None

    def start(self) -> None:
        """From the frame where the run stands, which is not 0 where it was resumed."""
        frames = self.trainer.collected_frames
        self.bar = tqdm(
            total=self.trainer.total_frames, initial=frames, unit=" frames", unit_scale=True
        )

    def update(self, _: TensorDictBase) -> None:
        """To the frame where the run stands."""
        assert self.bar is not None
        rewards = self.trainer._log_dict.get("train/episode_reward")
        if rewards:
            self.bar.set_postfix(reward=f"{rewards[-1]:.2f}", refresh=False)
        self.bar.update(self.trainer.collected_frames - self.bar.n)

    def stop(self) -> None:
        """Leave the bar on the screen."""
        if self.bar is not None:
            self.bar.close()

    def register(self) -> None:
        """Add the hook to the trainer."""
        self.trainer.register_op("setup", self.start)
        self.trainer.register_op("post_steps_log", self.update)
        self.trainer.register_op("shutdown", self.stop)


class FiniteLoss:
    """Stops the run where a loss is not a finite number, before a parameter is touched.

    Args:
        networks: whose parameters are looked at for the cause.
        path: where the minibatch is saved, for ``torch.load(path, weights_only=True)``.
    """

    def __init__(self, networks: dict[str, nn.Module], path: Path) -> None:
        self.networks, self.path = networks, path

    def __call__(self, minibatch: TensorDictBase, losses: TensorDictBase) -> None:
        """Check every loss.

        Raises:
            ExperimentError: with the cause: the batch, the parameters, or else the loss.
        """
        terms = {name: term for name, term in losses.items() if name.startswith("loss")}
        if sum(terms.values()).isfinite():
            return
        broken = [name for name, term in terms.items() if not term.isfinite().all()]
        entries = minibatch.detach().flatten_keys(".").to_dict()
        try:
            torch.save(entries, self.path)
            where = f"is in {self.path}"
        except (OSError, RuntimeError) as error:  # of a full disk torch says the one or the other
            where = f"could not be saved to {self.path} ({first_line(error)})"
        raise ExperimentError(
            f"{', '.join(broken)} is not finite: {self.cause(entries)} The minibatch {where}."
        )

    def cause(self, entries: dict[str, torch.Tensor]) -> str:
        """Where numbers that are not finite are met first."""
        for name, network in self.networks.items():
            if not all(x.isfinite().all() for x in network.parameters()):
                return (
                    f"parameters of the {name} are not. Lower optimizer.lr or trainer.clip_norm, and "
                    "resume from the last checkpoint."
                )
        keys = [k for k, x in entries.items() if x.is_floating_point() and not x.isfinite().all()]
        if keys:
            return f"so are {', '.join(map(repr, keys))} of the batch, from the environment or the critic."
        return (
            "batch and parameters are finite, so the loss overflows: lower optimizer.lr, whose last steps may have been too "
            "large, the coefficients of the loss, or the scale of the reward."
        )

    def register(self, trainer: Trainer) -> None:
        """Add the hook to a trainer, between the loss and its gradient."""
        trainer.register_op("process_loss", self)
