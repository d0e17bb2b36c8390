"""What learns for each group of agents: an actor, a critic, a loss and an advantage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import nn
from torchrl.envs import EnvBase
from torchrl.objectives import LossModule, SoftUpdate

from torchrl_ob.critics.groups import join_critics
from torchrl_ob.critics.joint import JointQCritic
from torchrl_ob.experiments.config.instantiate import make, make_optional
from torchrl_ob.experiments.envs.teams import active_key_of, reward_key_of
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.group_losses import GroupLosses

__all__ = ["Learner", "estimate_all", "joint_loss", "make_learners"]


@dataclass
class Learner:
    """What learns for one group."""

    group: str
    actor: nn.Module
    critic: nn.Module
    loss: LossModule
    advantage: Any
    keys: dict[str, NestedKey]  # of the reward and the action
    active_key: NestedKey | None
    updater: SoftUpdate | None  # of the critic's slow copy, where the loss has one

    def estimate(self, batch: TensorDictBase) -> None:
        """Add the group's advantage to a batch."""
        if self.updater is None:
            self.advantage(batch)
        else:
            self.advantage(batch, target_params=self.loss.target_critic_network_params)


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
    norms = {group: make_optional(config.get("value_norm")) for group in actors}
    normed = {group: {} if norm is None else {"value_norm": norm} for group, norm in norms.items()}
    reads_norm = config.critic._target_.endswith("Critic.from_env")
    critics = {
        group: make(config.critic, env, group=group, **(normed[group] if reads_norm else {})).to(
            device
        )
        for group in actors
    }
    several = len(actors) > 1
    if several and all(isinstance(critic, JointQCritic) for critic in critics.values()):
        try:
            critics = join_critics(critics)
        except ValueError as error:
            raise ExperimentError(
                f"there are {len(actors)} groups of agents, {', '.join(actors)}, and this critic takes one: "
                "take critic=pooled."
            ) from error
    learners = []
    for group, actor in actors.items():
        critic, options = critics[group], {}
        loss = make(config.loss, actor, critic, **normed[group]).to(device)
        delayed = getattr(loss, "delay_value", False)  # has a slow copy of the critic
        updater = SoftUpdate(loss, tau=config.trainer.target_tau) if delayed else None
        if several:
            options["other_actors"] = [actors[other] for other in actors if other != group]
        advantage = make(config.advantage, actor_network=actor, value_network=critic, **options)
        loss.make_value_estimator(advantage)  # before set_keys, which hands the advantage its keys
        keys = {"reward": reward_key_of(env, group), "action": (group, "action")}
        written = ("advantage", "value_target") if several else ()
        loss.set_keys(value=critic.out_keys[0], **keys, **{name: (group, name) for name in written})
        active_key = active_key_of(env, group)
        learners.append(Learner(group, actor, critic, loss, advantage, keys, active_key, updater))
    return learners


def joint_loss(learners: Sequence[Learner], policy: nn.Module) -> nn.Module:
    """The loss of all groups: TorchRL's own where there is one."""
    if len(learners) == 1:
        return learners[0].loss
    losses = {x.group: x.loss for x in learners}
    return GroupLosses(losses, {x.group: x.active_key for x in learners}, policy)


def estimate_all(learners: Sequence[Learner], batch: TensorDictBase) -> None:
    """Add the advantages of all groups to a batch."""
    for learner in learners:
        learner.estimate(batch)
