"""The rules between settings: which parts fit one another, and which sizes divide which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig
from tensordict import unravel_key
from torchrl.objectives import A2CLoss, ReinforceLoss

from torchrl_ob.advantages.base import JointAdvantage
from torchrl_ob.advantages.streams import StreamAdvantage
from torchrl_ob.critics.joint import JointQCritic
from torchrl_ob.critics.recurrent import RecurrentCritic
from torchrl_ob.experiments.config.modules import load_object
from torchrl_ob.experiments.config.options import read_options
from torchrl_ob.experiments.config.settings import leaves
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.ranks import count_ranks
from torchrl_ob.experiments.recurrence import has_memory

__all__ = ["check_learner", "check_rules"]

DIVIDES = (
    ("ranks", "env.num_envs"),
    ("ranks", "trainer.minibatch_size"),
    ("collector.num_workers", "env.num_envs"),
    ("env.num_envs", "collector.frames_per_batch"),
    ("collector.frames_per_batch", "total_frames"),
    ("collector.frames_per_batch", "checkpoint.interval"),
    ("collector.frames_per_batch", "evaluation.interval"),
)
"""Sizes of which the second is a multiple of the first."""


def check_rules(config: Mapping[str, Any]) -> None:
    """Refuse what does not fit together, of a config whose values are of their types.

    Raises:
        ExperimentError: in one line, with the remedy.
    """
    for problem in (*_sizes(config), *_loss(config["loss"]), *_targets(config)):
        raise ExperimentError(problem)


def check_learner(config: DictConfig, group: str, critic: Any, loss: Any) -> None:
    """Refuse parts of a group that do not fit one another, before the advantage is made of them.

    Your own parts may say what their class does not: the target of an advantage, with ``of_joint_action``, whether its
    critic reads the actions, a loss, with ``one_step``, whether a batch is good for one step alone.

    Args:
        config: that they were built from.
        group: name of the agents' group.
        critic: its ``in_keys`` tell whether it reads the group's action.
        loss: of the actor and the critic.

    Raises:
        ExperimentError: in one line, with the remedy.
    """
    for problem in _learner(config, group, critic, loss):
        raise ExperimentError(problem)


def _learner(config: DictConfig, group: str, critic: Any, loss: Any) -> Iterator[str]:
    advantage = load_object(config.advantage._target_, "advantage._target_")
    advantage = getattr(advantage, "__self__", advantage)  # the class of a class method
    # nothing is known of another function, which makes what it likes
    known = issubclass(advantage, JointAdvantage) if isinstance(advantage, type) else None
    joint = getattr(advantage, "of_joint_action", known)
    name = advantage.__name__
    reads_action = (group, "action") in map(unravel_key, critic.in_keys)
    if getattr(loss, "delay_value", False) and joint is False:
        yield (
            "a loss with a target critic, such as loss=reinforce, needs an advantage of the joint action: take "
            "advantage=coma, or loss.delay_value=false."
        )
    if reads_action and joint is False:
        yield f"{name} needs V(s), and the critic reads the action: {_state_values(config, critic)}."
    if joint and not reads_action:
        same = "pooled_gru" if isinstance(critic, RecurrentCritic) else "pooled or critic=concat"
        yield f"{name} needs Q(s, a), and the critic is a state value: take critic={same}."
    trainer, frames = config.trainer, config.collector.frames_per_batch
    if trainer.sequence_length is None and any(
        has_memory(x) for x in (critic, loss.actor_network) if x is not None
    ):
        yield (
            "a policy or a critic that remembers is trained on sequences: take trainer.sequence_length=10, or another length that "
            f"divides {frames // config.env.num_envs} steps."
        )
    whole = trainer.num_epochs == 1 and trainer.minibatch_size == frames
    if getattr(loss, "one_step", isinstance(loss, A2CLoss | ReinforceLoss)) and not whole:
        yield (
            f"{type(loss).__name__} has no ratio of policies and takes one step a batch: take trainer.num_epochs=1 "
            f"trainer.minibatch_size={frames}."
        )


def _state_values(config: DictConfig, critic: Any) -> str:
    """What to take for V(s) in place of a Q(s, a)."""
    same = config.critic.get("backbone")
    if isinstance(critic, RecurrentCritic):
        return "take critic=pooled_value_gru"
    if isinstance(critic, JointQCritic) and same in ("pooled", "additive"):
        return f"take critic=state_value, or critic={same}_value for the network that this one has"
    return "take critic=state_value"


def _sizes(config: Mapping[str, Any]) -> Iterator[str]:
    sizes = {"collector.num_workers": 1, "ranks": count_ranks(), **leaves(config)}
    envs, frames = sizes["env.num_envs"], sizes["collector.frames_per_batch"]
    for small, large in DIVIDES:
        if sizes[large] % sizes[small]:
            yield f"{large}={sizes[large]} must be a multiple of {small}={sizes[small]}."
    collector_envs, size = sizes.get("collector.num_envs", envs), sizes["trainer.minibatch_size"]
    if collector_envs != envs:
        yield f"collector.num_envs={collector_envs} must be env.num_envs={envs}: change env.num_envs alone."
    if (length := config["trainer"]["sequence_length"]) is not None:
        for name, steps in (
            ("collector.frames_per_batch / env.num_envs", frames // envs),
            ("trainer.minibatch_size" + " / ranks" * (count_ranks() > 1), size // count_ranks()),
        ):
            if steps % length:
                yield f"{name}={steps} must be a multiple of trainer.sequence_length={length}."
        if any(x >= 0 for x in config["loss"].get("normalize_advantage_exclude_dims") or ()):
            yield (
                "loss.normalize_advantage_exclude_dims counts from the last dimension where trainer.sequence_length is set: take "
                "[-2] for each agent apart."
            )
    workers = sizes["collector.num_workers"] * count_ranks()
    if count_ranks() > 1 and envs % workers:
        yield f"env.num_envs={envs} must be a multiple of the {workers} workers of all ranks."
    if size > frames:
        yield f"trainer.minibatch_size={size} is larger than collector.frames_per_batch={frames}: lower it."


def _loss(loss: Mapping[str, Any]) -> Iterator[str]:
    epsilon, excluded = loss.get("clip_epsilon"), loss.get("normalize_advantage_exclude_dims", ())
    if isinstance(epsilon, list) and len(epsilon) != 2:
        yield f"loss.clip_epsilon must be a number or a list of two, [low, high], got {epsilon}."
    if loss.get("critic_coeff") == 0:
        yield (
            "loss.critic_coeff=0 leaves the critic as it was made, since nothing but the loss fits it: take "
            "loss.critic_coeff=1.0."
        )
    if loss.get("entropy_coeff") == {}:
        yield "loss.entropy_coeff must be a number, 0 for no bonus, or one for each action, got {}."
    if len({x % 3 for x in excluded}) != len(excluded) or len(excluded) == 3:
        yield (
            f"loss.normalize_advantage_exclude_dims={excluded} must leave one dimension of an advantage [steps, agents, 1], "
            "and name none twice: take [-2] for each agent apart, or []."
        )


def _targets(config: Mapping[str, Any]) -> Iterator[str]:
    """What depends on the class that is built; an advantage's points would be refused at the first batch."""
    loss = load_object(config["loss"]["_target_"], "loss._target_")
    if config.get("value_norm") and "value_norm" not in read_options(loss).types:
        yield "a value norm is updated by MAPPOLoss and IPPOLoss alone: take loss=mappo or loss=ippo."
    if config.get("value_norm") and config["trainer"]["compile"]:
        yield (
            "trainer.compile=true cannot compile a value norm, which changes while the loss is computed: take "
            "value_norm=none."
        )
    options = config["advantage"]
    advantage = load_object(options["_target_"], "advantage._target_")
    splits = getattr(advantage, "__self__", advantage) is StreamAdvantage
    if splits and config["env"].get("shared_reward") is False:
        yield (
            "advantage=ob_streams splits one reward of the team, and env.shared_reward=false leaves each agent its own: take "
            "env.shared_reward=true, or advantage=ob."
        )
    if splits and config["critic"].get("backbone") == "additive":
        yield (
            "advantage=ob_streams pays each agent its own share, and critic=additive has one value for the team: take "
            "critic=pooled."
        )
    points = options.get("num_points")
    ours = isinstance(advantage, type) and issubclass(advantage, JointAdvantage)
    if ours and options.get("rule", "gauss") == "gauss" and points not in (None, 2, 3):
        yield (
            f"advantage.num_points={points} is not of the Gauss rule, which has 2 or 3 points in each dimension: take one of "
            "them, null, or advantage.rule=monte_carlo."
        )
