"""From a config to the parts of a run: the same seed gives the same starts and the same actor."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tensordict.nn import TensorDictSequential
from tensordict.utils import NestedKey
from torch import nn
from torchrl.checkpoint import Checkpoint, GlobalRNGState
from torchrl.collectors import BaseCollector

from torchrl_ob.experiments.checkpoints import make_checkpoint, save_checkpoint
from torchrl_ob.experiments.config.instantiate import call, make
from torchrl_ob.experiments.config.settings import NOT_TRAINING
from torchrl_ob.experiments.envs.contract import check_env
from torchrl_ob.experiments.envs.teams import find_group_names
from torchrl_ob.experiments.envs.transforms import make_env
from torchrl_ob.experiments.errors import ExperimentError, first_line
from torchrl_ob.experiments.evaluation import Evaluation
from torchrl_ob.experiments.learners import all_losses, make_learners
from torchrl_ob.experiments.loggers import RunLogger
from torchrl_ob.experiments.ranks import (
    OfEachRank,
    copy_weights,
    count_ranks,
    is_first,
    share_config,
    to_own_device,
)
from torchrl_ob.experiments.recurrence import (
    acting_policy,
    keep_states,
    make_tracked_env,
    primers,
)
from torchrl_ob.experiments.update import make_differentiate

__all__ = ["Experiment", "Progress", "build", "build_evaluation", "training_config"]

COMPONENTS = ("actor", "critic", "loss", "optimizer", "scheduler", "log", "progress")
"""The parts of a run that a checkpoint keeps, where there are any."""


@dataclass
class Progress:
    """How far a run has come."""

    frames: int = 0
    batches: int = 0
    optim_steps: int = 0

    def state_dict(self) -> dict[str, int]:
        """The counts."""
        return dict(vars(self))

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Go on counting from there."""
        vars(self).update(state_dict)


class Experiment:
    """What a config is built into.

    Args:
        config: composed from ``configs/train.yaml``.
        folder: of the run, for metrics and checkpoints.

    Attributes:
        actor: of all groups, one after the other where there are several.
        critic: of the group, or of each by its name.
        acting: what collects, the actor and the memories of critics.
        learners: one for each group.
        loss: the losses of all learners.
        differentiate: writes the gradient of a minibatch to the parameters, and tells its losses.
        scheduler: of the learning rate; ``None`` where it is constant.
        own: the config of this rank's share.
        log: ``None`` on other ranks than the first.
        source: the checkpoint that was loaded.
    """

    def __init__(self, config: DictConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.own, self.source = share_config(config), ""
        device = _device(config.device)
        # the environments of evaluation first: all of VMAS's share one random state
        self.evaluation = build_evaluation(config)
        groups, self.actor = self.evaluation.groups, self.evaluation.policy
        several: Any = self.actor if len(groups) > 1 else [self.actor]
        actors = dict(zip(groups, several, strict=True))
        self.learners = make_learners(config, self.evaluation.env, actors, device)
        self._require_one_fit()
        critics = {x.group: x.critic for x in self.learners}
        self.critic = nn.ModuleDict(critics) if len(critics) > 1 else self.learners[0].critic
        self.loss = nn.ModuleList([x.loss for x in self.learners])
        copy_weights(self.loss)
        losses, options = partial(all_losses, self.learners), config.trainer
        self.differentiate = make_differentiate(
            losses, self.loss.parameters(), options.clip_norm, compile=options.compile
        )
        self.optimizer = call(config.optimizer, self.loss.parameters())
        self.acting = acting_policy(self.actor, critics.values())
        states, own = primers(self.acting), self.own
        envs = partial(make_tracked_env, own.env, states, seed=own.seed, device=str(device))
        total = {"total_frames": config.total_frames, "device": device}
        self.collector: BaseCollector = call(own.collector, envs, self.acting, **total)
        self.scheduler = None
        if config.get("scheduler"):
            batches = config.total_frames // config.collector.frames_per_batch
            self.scheduler = call(config.scheduler, self.optimizer, total_iters=batches)
        self.log = RunLogger(folder / "metrics") if is_first() else None
        self.progress = Progress()
        self.checkpoint = self._make_checkpoint()

    def _make_checkpoint(self) -> Checkpoint:
        """Of all that a resume needs; beside the networks what transforms have learned of their inputs."""
        parts = {name: getattr(self, name) for name in COMPONENTS}
        parts |= {f"streams_{k}": learner.streams for k, learner in enumerate(self.learners)}
        if self.config.env.get("transforms"):
            parts["transforms"] = self.evaluation.env
            shared = self.collector._weight_sync_schemes or count_ranks() > 1
            if shared and self.evaluation.env.state_dict():
                self.close()
                raise ExperimentError(
                    "env.transforms has one with a state, which each worker would learn apart: take collector=single, "
                    "in one process."
                )
        # the random numbers last, after all that draws some
        own = {"collector": self.collector, "rng": GlobalRNGState()}
        if count_ranks() > 1:
            own = {"ranks": OfEachRank(**own)}
        parts |= own
        return make_checkpoint(**{name: part for name, part in parts.items() if part is not None})

    def _require_one_fit(self) -> None:
        """Refuse, of several ranks, what learns from a batch beside the loss: each would learn its own."""
        apart = ["value_norm"] if self.config.get("value_norm") else []
        apart += [type(x.streams).__name__ for x in self.learners if x.streams is not None]
        if apart and count_ranks() > 1:
            raise ExperimentError(
                f"{', '.join(apart)} learns from a rank's batch apart from the loss, and ranks would differ: take one "
                "process, with collector=multi_sync."
            )

    @property
    def advantage(self) -> Any:
        """The advantage of the first group, of which there may be no other."""
        return self.learners[0].advantage

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Actor and critic by name."""
        return {"actor": self.actor, "critic": self.critic}

    @property
    def keys(self) -> list[NestedKey]:
        """What an update reads of a step."""
        return [key for learner in self.learners for key in learner.keys]

    def copy_transforms(self) -> None:
        """Evaluate with what transforms have learned in training, such as the mean of observations."""
        env = getattr(self.collector, "env", None)
        if self.config.env.get("transforms") and env is not None:
            self.evaluation.env.load_state_dict(copy.deepcopy(env.state_dict()))

    def save(self) -> None:
        """Write a checkpoint."""
        self.copy_transforms()  # those of the evaluation have seen its episodes too
        if not is_first():
            self.checkpoint.components["ranks"].state_dict()  # sent to the first, which writes
            return
        metadata = {"config": training_config(self.config), **vars(self.progress)}
        save_checkpoint(
            self.checkpoint,
            self.folder / "checkpoints",
            step=self.progress.frames,
            keep=self.config.checkpoint.keep,
            metadata=metadata,
        )

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        self.checkpoint.load(path, map_location=to_own_device if count_ranks() > 1 else None)
        self.source = str(path)
        self.send_weights()

    def send_weights(self) -> None:
        """Hand the weights of the policy to the processes that collect, where there are any."""
        if self.collector._weight_sync_schemes:
            self.collector.update_policy_weights_(self.acting)

    def close(self) -> None:
        """End the processes, where there are any, and the runs of loggers."""
        if self.log is not None:
            self.log.shutdown()
        self.collector.shutdown()
        self.evaluation.env.close(raise_if_closed=False)


def training_config(config: DictConfig) -> dict[str, Any]:
    """What of a config decides the numbers of a run, resolved, without where and how it is kept."""
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    ranks = {"ranks": count_ranks()} if count_ranks() > 1 else {}
    return ranks | {key: value for key, value in resolved.items() if key not in NOT_TRAINING}


def build(config: DictConfig, folder: Path) -> Experiment:
    """Environment, networks, loss, advantage, collector and optimizer.

    The actor is made first, from the seed; the generators are seeded anew when all is made. So
    neither its weights nor the first batch depend on the critic or the advantage.

    Args:
        config: composed from ``configs/train.yaml``.
        folder: of the run, for metrics and checkpoints.

    Returns:
        The parts that a run needs.

    Raises:
        ExperimentError: where parts do not fit.
    """
    parts = Experiment(config, folder)
    _seed(parts.own.seed)
    return parts


def build_evaluation(config: DictConfig) -> Evaluation:
    """The evaluation, with environments of its own and the actor of the config's seed.

    Args:
        config: composed from ``configs/train.yaml``.

    Returns:
        The evaluation; its ``policy`` is the actor.
    """
    device, options = _device(config.device), config.evaluation
    env = make_env(config.env, num_envs=options.num_envs, seed=options.seed, device=str(device))
    check_env(env, options.num_envs, config.env._target_)
    _seed(config.seed)
    actors = [make(config.policy, env, group=group).to(device) for group in find_group_names(env)]
    actor = actors[0] if len(actors) == 1 else TensorDictSequential(*actors)
    env = keep_states(env, primers(actor))
    steps = config.env.max_steps
    return Evaluation(env, actor, max_steps=steps, interval=options.interval, seed=options.seed)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except Exception as error:  # no such device, in the words of its backend
        raise ExperimentError(f"device={name} cannot be used here: {first_line(error)}.") from error


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
