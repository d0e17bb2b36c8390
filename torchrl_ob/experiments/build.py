"""From a config to the parts of a run: the same seed gives the same starts and the same actor."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tensordict.nn import TensorDictSequential
from tensordict.utils import NestedKey
from torch import nn
from torchrl.checkpoint import Checkpoint, CheckpointRotation
from torchrl.collectors import BaseCollector

from torchrl_ob.experiments.checkpoints import make_checkpoint, make_rotation
from torchrl_ob.experiments.config.instantiate import call, make
from torchrl_ob.experiments.config.settings import NOT_TRAINING
from torchrl_ob.experiments.envs.contract import check_env
from torchrl_ob.experiments.envs.teams import find_group_names
from torchrl_ob.experiments.envs.transforms import make_env
from torchrl_ob.experiments.errors import ExperimentError, first_line
from torchrl_ob.experiments.evaluation import Evaluation
from torchrl_ob.experiments.learners import Learner, all_losses, make_learners
from torchrl_ob.experiments.loggers import RunLogger
from torchrl_ob.experiments.update import Objective, make_objective

__all__ = ["Experiment", "Progress", "build", "build_evaluation", "training_config"]


@dataclass
class Progress:
    """How far a run has come."""

    frames: int = 0
    batches: int = 0
    optim_steps: int = 0

    def state_dict(self) -> dict[str, int]:
        """The counts."""
        return asdict(self)

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Go on counting from there."""
        for name, count in state_dict.items():
            setattr(self, name, count)


@dataclass
class Experiment:
    """What a config was built into."""

    config: DictConfig
    folder: Path
    actor: nn.Module  # one after the other, where there are several groups
    critic: nn.Module
    learners: list[Learner]
    loss: nn.Module  # the losses of all learners
    objective: Objective
    optimizer: torch.optim.Optimizer
    scheduler: Any  # of the learning rate; None where it is constant
    collector: BaseCollector
    evaluation: Evaluation
    log: RunLogger
    checkpoint: Checkpoint
    rotation: CheckpointRotation
    progress: Progress = field(default_factory=Progress)

    @property
    def advantage(self) -> Any:
        """The advantage of the first group, of which there may be no other."""
        return self.learners[0].advantage

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Actor and critic by name."""
        return {"actor": self.actor, "critic": self.critic}

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer moves."""
        return [x for group in self.optimizer.param_groups for x in group["params"]]

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
        metadata = {"config": training_config(self.config), **asdict(self.progress)}
        self.rotation.save(self.checkpoint, step=self.progress.frames, metadata=metadata)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        self.checkpoint.load(path, map_location=None)
        self.send_weights()

    def send_weights(self) -> None:
        """Hand the actor's weights to the processes that collect, where there are any."""
        if self.collector._weight_sync_schemes:
            self.collector.update_policy_weights_(self.actor)

    def close(self) -> None:
        """End the processes, where there are any, and the runs of loggers."""
        self.log.shutdown()
        self.collector.shutdown()
        self.evaluation.env.close(raise_if_closed=False)


def training_config(config: DictConfig) -> dict[str, Any]:
    """What of a config decides the numbers of a run, resolved, without where and how it is kept."""
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    return {key: value for key, value in resolved.items() if key not in NOT_TRAINING}


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
    device = _device(config.device)
    # the environments of evaluation first: all of VMAS's share one random state
    evaluation = build_evaluation(config)
    groups = evaluation.groups
    actor: Any = evaluation.policy
    actors = {groups[0]: actor} if len(groups) == 1 else dict(zip(groups, actor, strict=True))
    learners = make_learners(config, evaluation.env, actors, device)
    one = len(learners) == 1
    loss = nn.ModuleList([x.loss for x in learners])
    critic = learners[0].critic if one else nn.ModuleDict({x.group: x.critic for x in learners})
    optimizer = call(config.optimizer, loss.parameters())
    collector = call(
        config.collector,
        partial(make_env, config.env, seed=config.seed, device=str(device)),
        actor,
        total_frames=config.total_frames,
        device=device,
    )
    if (
        config.env.get("transforms")
        and collector._weight_sync_schemes
        and evaluation.env.state_dict()
    ):
        collector.shutdown()
        raise ExperimentError(
            "env.transforms has one with a state, which each worker would learn apart: take collector=single."
        )
    scheduler = None
    if config.get("scheduler"):
        batches = config.total_frames // config.collector.frames_per_batch
        scheduler = call(config.scheduler, optimizer, total_iters=batches)
    log, progress = RunLogger(folder / "metrics"), Progress()
    components = {
        "actor": actor,
        "critic": critic,
        "loss": loss,
        "optimizer": optimizer,
        "scheduler": scheduler,
        "collector": collector,
        "log": log,
        "progress": progress,
        # what transforms have learned of their inputs
        "transforms": evaluation.env if config.env.get("transforms") else None,
        **{f"fit_{k}": learner.fit for k, learner in enumerate(learners)},
    }
    parts = Experiment(
        config=config,
        folder=folder,
        actor=actor,
        critic=critic,
        learners=learners,
        loss=loss,
        objective=make_objective(
            partial(all_losses, learners), loss.parameters(), compile=config.trainer.compile
        ),
        optimizer=optimizer,
        scheduler=scheduler,
        collector=collector,
        evaluation=evaluation,
        log=log,
        checkpoint=make_checkpoint(
            **{name: part for name, part in components.items() if part is not None}
        ),
        rotation=make_rotation(folder / "checkpoints", config.checkpoint.keep),
        progress=progress,
    )
    _seed(config.seed)
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
    steps = config.env.max_steps
    return Evaluation(env, actor, max_steps=steps, interval=options.interval, seed=options.seed)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except Exception as error:  # no such device, in the words of its backend
        raise ExperimentError(
            f"device={name} cannot be used here ({first_line(error)})."
        ) from error


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
