"""What the config holds: types and ranges, declared once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from torchrl_ob.experiments.config.values import Range

__all__ = ["Config", "Part"]

Count = Annotated[int, Range(1)]
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Rate = Annotated[float, Range(0, 100, above=True)]  # of learning
Seed = Annotated[int, Range(0, 2**32 - 1)]
Dimension = Annotated[int, Range(-3, 2)]  # of an advantage, [steps, agents, 1]


class Part:
    """A group of the config that builds something: ranges of options that its target may have.

    Types come from the target's signature; a range here goes before them.
    """

    given: ClassVar[tuple[str, ...]] = ()  # by the command, under these names
    may_be_given: ClassVar[tuple[str, ...]] = ()
    needed: ClassVar[tuple[str, ...]] = ()  # in the config whatever is built
    positional: ClassVar[int] = 0  # how many the command gives without a name
    partial: ClassVar[bool] = False
    by_command: ClassVar[tuple[str, ...]] = ()  # read by the command itself, and not by the target
    null: ClassVar[str] = ""  # the choice that null stands for; without one the group is needed


@dataclass
class DuelingFitSettings:
    """How critic=dueling is fitted."""

    lmbda: Share
    value_lr: Rate
    effect_lr: Rate
    value_epochs: Annotated[int, Range(0)]
    effect_epochs: Annotated[int, Range(0)]
    minibatch_size: Count
    compile: bool


@dataclass
class TrainerSettings:
    """Updates of the networks."""

    num_epochs: Count
    minibatch_size: Count
    clip_norm: Positive | None
    compile: bool
    target_tau: Annotated[float, Range(0, 1, above=True)]
    dueling_fit: DuelingFitSettings
    normalize_advantage: bool


@dataclass
class CheckpointSettings:
    """When a run is saved."""

    interval: Count
    keep: Count


@dataclass
class EvaluationSettings:
    """Episodes by which a policy is judged."""

    interval: Count
    num_envs: Count
    seed: Seed


@dataclass
class Env(Part):
    """The environment."""

    given = ("num_envs", "max_steps", "seed", "device")
    by_command = ("transforms",)
    needed = ("num_envs", "max_steps")

    num_envs: Count
    max_steps: Count
    agent_obsk: Annotated[int, Range(0)]
    group_map: str | Mapping[str, Any] | None
    scenario: str
    scenario_kwargs: Mapping[str, Any] | None
    transforms: list[Mapping[str, Any]] | None


@dataclass
class Policy(Part):
    """The actor."""

    given = ("group",)
    positional = 1

    depth: Annotated[int, Range(0)] | None
    num_cells: Count | list[Count]


@dataclass
class Critic(Part):
    """The critic."""

    given = ("group",)
    may_be_given = (
        "value_norm",
        "num_agents",
        "action_dim",
        "action_encoding",
        "nvec",
        "action_key",
    )
    positional = 1

    hidden_dim: Count
    depth: Annotated[int, Range(0)] | None
    num_cells: Count | list[Count]
    chunk_bytes: Count | None


@dataclass
class ValueNorm(Part):
    """The scale of the value targets."""

    null = "none"

    shape: Annotated[int, Range(1, 1)]
    beta: Annotated[float, Range(0, 1)]
    epsilon: Positive


@dataclass
class Loss(Part):
    """The loss."""

    may_be_given = ("actor", "critic", "actor_network", "critic_network", "value_norm")
    positional = 2

    clip_epsilon: Annotated[float, Range(0, 1, above=True)] | list[Annotated[float, Range(0, 1)]]
    entropy_coeff: NotNegative | Mapping[str, Any]
    critic_coeff: NotNegative | None
    loss_critic_type: Literal["l1", "l2", "smooth_l1"]
    normalize_advantage_exclude_dims: list[Dimension]
    samples_mc_entropy: Count
    clip_value: bool | Positive | None
    max_importance_ratio: Positive | None
    delay_actor: Literal[False]  # nothing would move its slow copy
    functional: Literal[True]
    separate_losses: bool
    reduction: Literal["mean"] | None
    gamma: None  # those of the advantage
    advantage_key: None
    value_target_key: None
    value_key: None


@dataclass
class Advantage(Part):
    """The advantage."""

    given = ("actor_network", "value_network")
    may_be_given = ("other_actors", "device")

    gamma: Share
    lmbda: Share
    num_points: Count | None
    chunk_size: Count | None
    time_dim: Annotated[int, Range(1, 1)] | None  # of a batch [environments, time]


@dataclass
class Optimizer(Part):
    """The optimizer."""

    positional = 1
    partial = True

    lr: Rate
    eps: Positive
    weight_decay: NotNegative
    momentum: Annotated[float, Range(0, 1)]
    maximize: Literal[False]  # it would climb the loss
    differentiable: Literal[False]


@dataclass
class Scheduler(Part):
    """The learning rate over the run."""

    given = ("total_iters",)
    positional = 1
    partial = True
    null = "constant"

    start_factor: Annotated[float, Range(0, 1, above=True)]
    end_factor: Share
    factor: Share


@dataclass
class Collector(Part):
    """What steps the environments."""

    given = ("total_frames", "device")
    needed = ("frames_per_batch",)
    positional = 2
    partial = True

    frames_per_batch: Count
    num_workers: Count
    num_envs: Count
    seed: Seed
    auto_register_policy_transforms: bool | None


@dataclass
class Logger(Part):
    """Where metrics go beside the csv files."""

    given = ("log_dir",)
    null = "none"


@dataclass
class Config:
    """The whole, as ``configs/train.yaml`` composes it."""

    seed: Seed
    device: str
    total_frames: Count
    trainer: TrainerSettings
    variance_interval: Count | None
    resume: Annotated[str, "auto, the path of a run or of a checkpoint"] | None
    checkpoint: CheckpointSettings
    progress_bar: bool
    evaluation: EvaluationSettings
    env: Env
    policy: Policy
    critic: Critic
    value_norm: ValueNorm
    loss: Loss
    advantage: Advantage
    optimizer: Optimizer
    scheduler: Scheduler
    collector: Collector
    logger: Logger
