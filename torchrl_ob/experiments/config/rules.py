"""The rules between settings: which parts fit one another, and which sizes divide which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig
from tensordict import unravel_key
from torchrl.objectives import A2CLoss, ReinforceLoss

from torchrl_ob.advantages.base import JointAdvantage
from torchrl_ob.critics.dueling import DuelingCritic
from torchrl_ob.experiments.config.modules import load_object
from torchrl_ob.experiments.config.signatures import read_options
from torchrl_ob.experiments.errors import ExperimentError

__all__ = ["check_learner", "check_rules"]


def check_rules(config: Mapping[str, Any]) -> None:
    """Refuse what does not fit together, of a config whose values are of their types.

    Raises:
        ExperimentError: in one line, with the remedy.
    """
    _check_sizes(config)
    _check_loss(config["loss"])
    _check_value_norm(config)
    _check_num_points(config["advantage"])


def check_learner(config: DictConfig, group: str, critic: Any, loss: Any) -> None:
    """Refuse parts of a group that do not fit one another, before the advantage is made of them.

    Parts of one's own may say what their class does not: the target of an advantage, with ``of_joint_action``, whether its
    critic reads the actions, a loss, with ``one_step``, whether a batch is good for one step alone.

    Args:
        config: that they were built from.
        group: name of the agents' group.
        critic: its ``in_keys`` tell whether it reads the group's action.
        loss: of the actor and the critic.

    Raises:
        ExperimentError: in one line, with the remedy.
    """
    advantage = load_object(config.advantage._target_, "advantage._target_")
    is_class = isinstance(advantage, type)
    # nothing is known of another function, which makes what it likes
    joint = getattr(
        advantage, "of_joint_action", issubclass(advantage, JointAdvantage) if is_class else None
    )
    name = config.advantage._target_.rsplit(".")[-1]
    reads_action = (group, "action") in map(unravel_key, critic.in_keys)
    if getattr(loss, "delay_value", False) and joint is False:
        raise ExperimentError(
            "a loss with a target critic, such as loss=reinforce, needs an advantage of the joint action: "
            "take advantage=coma, or loss.delay_value=false."
        )
    if reads_action and joint is False:
        raise ExperimentError(
            f"{name} needs V(s), and the critic reads the action: take critic=state_value."
        )
    if joint and not reads_action:
        raise ExperimentError(
            f"{name} needs Q(s, a), and the critic is a state "
            "value: take critic=pooled or critic=concat."
        )
    if isinstance(critic, DuelingCritic) and config["loss"].get("critic_coeff"):
        raise ExperimentError(
            "critic=dueling is fitted apart from the loss: take experiment=dueling, or "
            "loss.critic_coeff=0.0 beside it."
        )
    trainer, frames = config["trainer"], config["collector"]["frames_per_batch"]
    whole = trainer["num_epochs"] == 1 and trainer["minibatch_size"] == frames
    if getattr(loss, "one_step", isinstance(loss, A2CLoss | ReinforceLoss)) and not whole:
        raise ExperimentError(
            f"{type(loss).__name__} has no ratio of policies and takes one step a batch: "
            f"take trainer.num_epochs=1 trainer.minibatch_size={frames}."
        )


def _check_sizes(config: Mapping[str, Any]) -> None:
    collector, trainer, envs = config["collector"], config["trainer"], config["env"]["num_envs"]
    frames, key = collector["frames_per_batch"], "collector.frames_per_batch"
    _divides("collector.num_workers", collector.get("num_workers", 1), "env.num_envs", envs)
    _divides("env.num_envs", envs, key, frames)
    _divides(key, frames, "total_frames", config["total_frames"])
    _divides(key, frames, "checkpoint.interval", config["checkpoint"]["interval"])
    _divides(key, frames, "evaluation.interval", config["evaluation"]["interval"])
    if collector.get("num_envs", envs) != envs:
        raise ExperimentError(
            f"collector.num_envs={collector['num_envs']} must be env.num_envs={envs}: change env.num_envs alone."
        )
    size = trainer["minibatch_size"]
    if size > frames:
        raise ExperimentError(
            f"trainer.minibatch_size={size} is larger than {key}={frames}: lower it."
        )


def _divides(small_name: str, small: int, large_name: str, large: int) -> None:
    if large % small:
        raise ExperimentError(
            f"{large_name}={large} must be a multiple of {small_name}={small}, both positive."
        )


def _check_loss(loss: Mapping[str, Any]) -> None:
    epsilon, entropy = loss.get("clip_epsilon"), loss.get("entropy_coeff")
    if isinstance(epsilon, list) and len(epsilon) != 2:
        raise ExperimentError(
            f"loss.clip_epsilon must be a number or a list of two, [low, high], got {epsilon}."
        )
    if entropy == {}:
        raise ExperimentError(
            "loss.entropy_coeff must be a number, 0 for no bonus, or one for each action, got {}."
        )
    excluded = loss.get("normalize_advantage_exclude_dims", ())
    if len({x % 3 for x in excluded}) in (len(excluded), 0) and len(excluded) < 3:
        return
    raise ExperimentError(
        f"loss.normalize_advantage_exclude_dims={excluded} must leave one dimension of an advantage [steps, agents, 1], "
        "and name none twice: take [-2] for each agent apart, or []."
    )


def _check_value_norm(config: Mapping[str, Any]) -> None:
    if not config.get("value_norm"):
        return
    loss = load_object(config["loss"]["_target_"], "loss._target_")
    if "value_norm" not in read_options(loss).types:
        raise ExperimentError(
            "a value norm is updated by MAPPOLoss and IPPOLoss alone: take loss=mappo or loss=ippo."
        )
    if config["trainer"]["compile"]:
        raise ExperimentError(
            "trainer.compile=true cannot compile a value norm, which changes while the loss is "
            "computed: take value_norm=none."
        )


def _check_num_points(advantage: Mapping[str, Any]) -> None:
    """The Gauss rule refuses it too, but at the first batch."""
    target, found = (
        load_object(advantage["_target_"], "advantage._target_"),
        advantage.get("num_points"),
    )
    ours = isinstance(target, type) and issubclass(target, JointAdvantage)
    if ours and advantage.get("rule", "gauss") == "gauss" and found not in (None, 2, 3):
        raise ExperimentError(
            f"advantage.num_points={found} is not of the Gauss rule, which has 2 or 3 points in each dimension: take one of "
            "them, null, or advantage.rule=monte_carlo."
        )
