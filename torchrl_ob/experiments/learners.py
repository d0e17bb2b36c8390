"""What learns for each group of agents: an actor, a critic, a loss and an advantage."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import nn
from torchrl.envs import EnvBase
from torchrl.objectives import LossModule, SoftUpdate

from torchrl_ob.advantages.base import JointAdvantage
from torchrl_ob.critics.groups import join_critics
from torchrl_ob.critics.history import find_head
from torchrl_ob.critics.joint import JointQCritic
from torchrl_ob.critics.reward_streams import RewardStreams
from torchrl_ob.experiments.config.instantiate import make
from torchrl_ob.experiments.config.modules import load_object
from torchrl_ob.experiments.config.options import read_options
from torchrl_ob.experiments.config.rules import check_learner
from torchrl_ob.experiments.envs.teams import find_active_key, find_reward_key
from torchrl_ob.experiments.errors import ExperimentError, first_line
from torchrl_ob.experiments.ranks import count_ranks, mean_tensor, standardize
from torchrl_ob.experiments.train_log import note
from torchrl_ob.experiments.update import mean_over_active, update_keys

__all__ = ["Learner", "all_losses", "make_learners"]

COUNT = "active_count_"
"""With a group's name, where a minibatch of one of several ranks has how many agents take part in the mean over ranks."""


@dataclass
class Learner:
    """What learns for one group."""

    group: str
    actor: nn.Module
    critic: nn.Module
    loss: LossModule
    advantage: Any
    active_key: NestedKey | None  # which agents take part; None where all always do
    updater: SoftUpdate | None = None  # of the critic's slow copy, where the loss has one
    streams: RewardStreams | None = None  # which the advantage fits to each batch
    normalizes: bool = False  # itself, over all ranks, in place of the loss

    def __post_init__(self) -> None:
        """Have the loss keep agents apart where not all take part."""
        if self.active_key is not None:
            # not by the loss's own mask: it would leave the critic without the dead agents' returns
            self.loss.reduction, self.loss.loss_mask_key = "none", None
        if count_ranks() > 1 and getattr(self.loss, "normalize_advantage", False):
            self.loss.normalize_advantage, self.normalizes = False, True

    @property
    def of_joint_action(self) -> bool:
        """Whether the advantage is one of the joint action, whose variance can be measured."""
        return isinstance(self.advantage, JointAdvantage)

    @property
    def keys(self) -> list[NestedKey]:
        """What an update reads of a step."""
        return update_keys(self.loss) + ([] if self.active_key is None else [self.active_key])

    def estimate(self, batch: TensorDictBase) -> None:
        """Add the group's advantage to a batch.

        Raises:
            ExperimentError: in one line, where the advantage refuses the batch; ``train.log`` has the traceback.
        """
        target = self.updater and {"target_params": self.loss.target_critic_network_params}
        try:
            self.advantage(batch, **(target or {}))
        except (RuntimeError, ValueError) as error:
            note("".join(traceback.format_exception(error)))
            raise ExperimentError(
                f"{type(self.advantage).__name__}: {first_line(error)} (the traceback is in train.log)"
            ) from error

    def join(self, minibatch: TensorDictBase) -> None:
        """Write to a rank's minibatch what the loss must know of the others': of several ranks, before the losses.

        The mean over ranks of their losses is then the loss of all minibatches together.
        """
        active = None if self.active_key is None else minibatch.get(self.active_key)
        if self.normalizes:
            key = self.loss.tensor_keys.advantage
            apart = self.loss.normalize_advantage_exclude_dims
            minibatch.set(key, standardize(minibatch.get(key), active, apart))
        if active is not None and count_ranks() > 1:
            count = mean_tensor(active.sum().to(torch.float))
            minibatch.set(COUNT + self.group, count.expand(minibatch.batch_size))

    def losses(self, minibatch: TensorDictBase) -> TensorDictBase:
        """The terms of the loss.

        Agents that take no part enter neither the objective nor the entropy, but are valued by the critic,
        whose returns go on.
        """
        if self.active_key is None:
            return self.loss(minibatch)
        active = minibatch.get(self.active_key)
        # where TorchRL's losses look for what to leave out of a normalization
        seen = minibatch.copy().set("shifted_valid", active.unsqueeze(-1))
        return mean_over_active(self.loss(seen), active, minibatch.get(COUNT + self.group, None))

    def follow(self) -> None:
        """Move the critic's slow copy, after a step of the optimizer."""
        if self.updater is not None:
            self.updater.step()


def all_losses(learners: Sequence[Learner], minibatch: TensorDictBase) -> TensorDictBase:
    """The terms of all losses; of several groups such as ``loss_objective_adversary``."""
    if len(learners) == 1:
        return learners[0].losses(minibatch)
    return TensorDict(
        {
            f"{name}_{learner.group}": term
            for learner in learners
            for name, term in learner.losses(minibatch).items()
        }
    )


def make_learners(
    config: DictConfig, env: EnvBase, actors: Mapping[str, nn.Module], device: Any
) -> list[Learner]:
    """The learners of all groups, whose critics of the joint action are one over all groups.

    Args:
        config: composed from ``configs/train.yaml``.
        env: the environment.
        actors: of each group.
        device: of the networks.

    Returns:
        A learner for each group.

    Raises:
        ExperimentError: where parts do not fit.
    """
    several = len(actors) > 1
    norms: dict[str, dict[str, Any]] = {group: {} for group in actors}
    if config.get("value_norm"):
        norms = {group: {"value_norm": make(config.value_norm)} for group in actors}
    of_critic = read_options(load_object(config.critic._target_, "critic._target_")).types
    of_advantage = read_options(load_object(config.advantage._target_, "advantage._target_")).types
    critics = {}
    for group, norm in norms.items():
        taken = norm if "value_norm" in of_critic else {}
        critics[group] = make(config.critic, env, group=group, **taken).to(device)
    if several and all(isinstance(find_head(x), JointQCritic) for x in critics.values()):
        try:
            critics = join_critics(critics)
        except ValueError as error:
            raise ExperimentError(
                f"there are {len(actors)} groups of agents, {', '.join(actors)}, and this critic takes one: "
                "take critic=pooled."
            ) from error
    learners = []
    for group, actor in actors.items():
        critic, others = critics[group], [x for other, x in actors.items() if other != group]
        loss = make(config.loss, actor, critic, **norms[group]).to(device)
        check_learner(config, group, critic, loss)
        options: dict[str, Any] = {"other_actors": others} if several else {}
        if "env" in of_advantage:
            options |= {"env": env, "group": group}
        advantage = make(config.advantage, actor_network=actor, value_network=critic, **options)
        loss.make_value_estimator(advantage)  # before set_keys, which hands the advantage its keys
        keys = {name: (group, name) for name in ("advantage", "value_target") if several}
        keys |= {"reward": find_reward_key(env, group), "action": (group, "action")}
        loss.set_keys(value=critic.out_keys[0], **keys)
        learner = Learner(group, actor, critic, loss, advantage, find_active_key(env, group))
        if getattr(loss, "delay_value", False):  # has a slow copy of the critic
            learner.updater = SoftUpdate(loss, tau=config.trainer.target_tau)
        learner.streams = getattr(advantage, "streams", None)
        learners.append(learner)
    return learners
