"""From a config to TorchRL's trainer: the same seed gives the same starts and the same actor."""

from __future__ import annotations

import random
import warnings
from collections import defaultdict, deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tensordict.nn import TensorDictSequential
from torch import nn
from torchrl.collectors import BaseCollector
from torchrl.trainers import LRSchedulerHook, TargetNetUpdaterHook, Trainer
from torchrl.trainers.algorithms.ppo import PPOTrainer

from torchrl_ob.advantages.base import JointAdvantage
from torchrl_ob.advantages.dueling_fit import DuelingFit
from torchrl_ob.critics.dueling import DuelingCritic
from torchrl_ob.diagnostics.live import VarianceLogger
from torchrl_ob.experiments.checkpoints import make_checkpoint, make_rotation
from torchrl_ob.experiments.config.instantiate import call, make, make_optional
from torchrl_ob.experiments.config.settings import NOT_TRAINING
from torchrl_ob.experiments.envs.contract import check_env
from torchrl_ob.experiments.envs.teams import groups_of
from torchrl_ob.experiments.errors import ExperimentError, first_line
from torchrl_ob.experiments.evaluation import Evaluation
from torchrl_ob.experiments.hooks import EpisodeReward, FiniteLoss, Minibatches, Progress
from torchrl_ob.experiments.learners import Learner, estimate_all, joint_loss, make_learners
from torchrl_ob.experiments.loggers import RunLogger
from torchrl_ob.experiments.update import Stepper, update_keys

__all__ = ["Experiment", "build", "build_evaluation", "training_config"]


@dataclass
class Experiment:
    """What a config was built into."""

    trainer: Trainer
    actor: nn.Module  # of several groups, theirs in turn
    critic: nn.Module
    learners: list[Learner]
    evaluation: Evaluation

    @property
    def advantage(self) -> Any:
        """The advantage of the first group, of which there may be no other."""
        return self.learners[0].advantage


def training_config(config: DictConfig) -> dict[str, Any]:
    """What of a config decides the numbers of a run, resolved, without where and how it is kept."""
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    return {key: value for key, value in resolved.items() if key not in NOT_TRAINING}


def build(config: DictConfig, folder: Path) -> Experiment:
    """Environment, networks, loss, advantage, collector and trainer.

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
    device, frames = _device(config.device), config.collector.frames_per_batch
    # the environments of evaluation first: all of VMAS's share one random state
    evaluation = build_evaluation(config)
    probe, groups = evaluation.env, evaluation.groups
    actor: Any = evaluation.policy
    actors = {groups[0]: actor} if len(groups) == 1 else dict(zip(groups, actor, strict=True))
    learners = make_learners(config, probe, actors, device)
    loss, critics = joint_loss(learners, actor), {x.group: x.critic for x in learners}
    critic = learners[0].critic if len(learners) == 1 else nn.ModuleDict(critics)
    optimizer = call(config.optimizer, loss.parameters())
    collector = call(
        config.collector,
        partial(make, config.env, seed=config.seed, device=str(device)),
        actor,
        total_frames=config.total_frames,
        device=device,
    )
    log = RunLogger(folder / "metrics", _other_logger(config, folder))
    with warnings.catch_warnings():  # of TorchRL's trainer about itself
        warnings.filterwarnings("ignore", "PPOTrainer is an experimental")
        warnings.filterwarnings("ignore", "The '.*' hook stage will be replaced")
        trainer = PPOTrainer(
            collector=collector,
            total_frames=config.total_frames,
            frame_skip=1,
            optim_steps_per_batch=None,
            loss_module=loss,
            logger=log,
            progress_bar=False,
            save_trainer_interval=config.checkpoint.interval - 1,  # saves past it
            log_interval=0,
            checkpoint=make_checkpoint(actor=actor, critic=critic),
            checkpoint_rotation=make_rotation(folder / "checkpoints", config.checkpoint.keep),
            checkpoint_metadata=lambda _: {"config": training_config(config)},
            num_epochs=config.trainer.num_epochs,
            add_gae=False,
            weight_update_map=_weights_of_workers(collector),
            enable_logging=False,
            **{f"{name}_key": key for name, key in learners[0].keys.items()},
        )
        trainer._log_dict = defaultdict(
            partial(deque, maxlen=1)
        )  # TorchRL keeps all that was logged
        FiniteLoss({"actor": actor, "critic": critic}, folder / "nan_batch.pt").register(trainer)
    options, active_key = config.trainer, learners[0].active_key if len(learners) == 1 else None
    stepper = Stepper(
        loss,
        optimizer,
        clip_norm=options.clip_norm,
        active_key=active_key,
        compile=options.compile,
    )
    trainer.optimization_stepper = stepper  # TorchRL's PPOTrainer takes none
    stepper.register(trainer)
    trainer.register_op("post_optim_complete_log", stepper.means)
    for learner in learners:
        if learner.updater is not None:
            trainer.register_op("post_optim", TargetNetUpdaterHook(learner.updater))
    keys_of_update = [key for learner in learners for key in update_keys(learner.loss)]
    if active_key is None:
        keys_of_update += [x.active_key for x in learners if x.active_key is not None]
    Minibatches(
        partial(estimate_all, learners), keys_of_update, options.minibatch_size, active_key
    ).register(trainer)
    EpisodeReward(evaluation.reward_keys).register(trainer)
    for learner in learners:
        if config.variance_interval and isinstance(learner.advantage, JointAdvantage):
            prefix = f"{learner.group}/" if len(learners) > 1 else ""
            VarianceLogger(
                learner.advantage, interval=config.variance_interval, prefix=prefix
            ).register(trainer)
        if isinstance(learner.critic, DuelingCritic):
            DuelingFit(learner.advantage, **config.trainer.dueling_fit).register(trainer)
    if config.get("scheduler"):
        schedule = call(config.scheduler, optimizer, total_iters=config.total_frames // frames)
        LRSchedulerHook(schedule).register(trainer)
    evaluation.register(trainer)
    if config.progress_bar:
        Progress(trainer).register()
    _seed(config.seed)
    return Experiment(trainer, actor, critic, learners, evaluation)


def build_evaluation(config: DictConfig) -> Evaluation:
    """The evaluation, with environments of its own and the actor of the config's seed.

    Args:
        config: composed from ``configs/train.yaml``.

    Returns:
        The evaluation; its ``policy`` is the actor.
    """
    device, options = _device(config.device), config.evaluation
    env = make(config.env, num_envs=options.num_envs, seed=options.seed, device=str(device))
    check_env(env, options.num_envs, config.env._target_)
    _seed(config.seed)
    actors = [make(config.policy, env, group=group).to(device) for group in groups_of(env)]
    actor = actors[0] if len(actors) == 1 else TensorDictSequential(*actors)
    steps = config.env.max_steps
    return Evaluation(env, actor, max_steps=steps, interval=options.interval, seed=options.seed)


def _other_logger(config: DictConfig, folder: Path) -> Any:
    try:
        return make_optional(config.get("logger"), log_dir=str(folder))
    except ModuleNotFoundError as error:
        package = config.logger._target_.split(".")[-2]
        raise ExperimentError(
            f"logger={package} needs its package: pip install {package}"
        ) from error
    except Exception as error:  # a service that cannot be reached
        warnings.warn(
            f"no {config.logger._target_} ({error}); metrics go to {folder} alone.", stacklevel=2
        )
        return None


def _weights_of_workers(collector: BaseCollector) -> dict[str, str] | None:
    """Where the trainer finds the weights that worker processes await; there may be none."""
    return dict.fromkeys(collector._weight_sync_schemes or (), "loss_module.actor_network") or None


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
