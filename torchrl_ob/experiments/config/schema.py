"""What the config holds: types and ranges, declared once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

__all__ = ["CONFIG", "Part"]

LARGEST = 1e9
Count = Annotated[int, Field(ge=1, le=LARGEST)]
NotNegativeCount = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[float, Field(gt=0, le=LARGEST)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=100)]  # of learning
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Dimension = Annotated[int, Field(ge=-3, le=2)]  # of an advantage, [steps, agents, 1]


@dataclass(frozen=True)
class Part:
    """A group of the config that builds something.

    Types come from the signature of its target; ``ranges`` go before them, of the options that the target has.
    """

    ranges: Mapping[str, Any] = field(default_factory=dict)
    given: tuple[str, ...] = ()  # by the command, under these names
    may_be_given: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()  # in the config whatever is built
    positional: int = 0  # how many the command gives without a name
    partial: bool = False
    by_command: Mapping[str, Any] = field(default_factory=dict)  # read by it, and not by the target
    null: str = ""  # the choice that null stands for; without one the group is needed
    several: bool = False  # or none, each under a name of its own


NETWORK = {
    "hidden_dim": Count,
    "depth": NotNegativeCount | None,
    "memory_size": Count,
    "num_layers": Count,
    "num_cells": Count | list[Count],
    "chunk_bytes": Count | None,
}

CONFIG: dict[str, Any] = {
    "seed": Seed,
    "device": str,
    "total_frames": Count,
    "trainer": {
        "num_epochs": Count,
        "minibatch_size": Count,
        "sequence_length": Count | None,
        "clip_norm": Positive | None,
        "compile": bool,
        "target_tau": PositiveShare,
        "normalize_advantage": bool,
    },
    "variance_interval": Count | None,
    "resume": Literal["auto"] | str | None,
    "checkpoint": {"interval": Count, "keep": Count},
    "progress_bar": bool,
    "rank_timeout": Positive,
    "evaluation": {"interval": Count, "num_envs": Count, "seed": Seed},
    "env": Part(
        {
            "num_envs": Count,
            "max_steps": Count,
            "agent_obsk": NotNegativeCount,
            "scenario": str,
        },
        given=("num_envs", "max_steps", "seed", "device"),
        needed=("num_envs", "max_steps"),
        by_command={"transforms": list[dict[str, Any]] | None, "shared_reward": bool},
    ),
    "policy": Part(NETWORK, given=("group",), positional=1),
    "critic": Part(
        NETWORK,
        given=("group",),
        may_be_given=(
            "value_norm",
            "num_agents",
            "action_dim",
            "action_encoding",
            "nvec",
            "action_key",
        ),
        positional=1,
    ),
    "value_norm": Part({"shape": Literal[1], "beta": Share, "epsilon": Positive}, null="none"),
    "loss": Part(
        {
            "clip_epsilon": PositiveShare | list[Share],
            "entropy_coeff": NotNegative | dict[str, Any],
            "critic_coeff": NotNegative,
            "loss_critic_type": Literal["l1", "l2", "smooth_l1"],
            "normalize_advantage_exclude_dims": list[Dimension],
            "samples_mc_entropy": Count,
            "clip_value": bool | Positive | None,
            "max_importance_ratio": Positive | None,
            "delay_actor": Literal[False],  # nothing would move its slow copy
            "functional": Literal[True],
            "reduction": Literal["mean"] | None,
            "gamma": None,  # those of the advantage
            "advantage_key": None,
            "value_target_key": None,
            "value_key": None,
        },
        may_be_given=("actor", "critic", "actor_network", "critic_network", "value_norm"),
        positional=2,
    ),
    "advantage": Part(
        {
            "gamma": Share,
            "lmbda": Share,
            "num_points": Count | None,
            "chunk_size": Count | None,
            "time_dim": Literal[1] | None,  # of a batch [environments, time]
            "share": Share,
            "hidden_dim": Count,
        },
        given=("actor_network", "value_network"),
        may_be_given=("other_actors", "device", "env", "group"),
    ),
    "optimizer": Part(
        {
            "lr": Rate,
            "eps": Positive,
            "weight_decay": NotNegative,
            "momentum": Share,
            "maximize": Literal[False],  # it would climb the loss
            "differentiable": Literal[False],
        },
        positional=1,
        partial=True,
    ),
    "scheduler": Part(
        {"start_factor": PositiveShare, "end_factor": Share, "factor": Share},
        given=("total_iters",),
        positional=1,
        partial=True,
        null="constant",
    ),
    "collector": Part(
        {
            "frames_per_batch": Count,
            "num_workers": Count,
            "num_envs": Count,
            "seed": Seed,
            "timeout": Positive,
            "num_cpus": Positive,
            "num_gpus": NotNegative,
        },
        given=("total_frames", "device"),
        needed=("frames_per_batch",),
        positional=2,
        partial=True,
    ),
    "logger": Part(
        given=("log_dir",), may_be_given=("name", "group", "config", "resumed"), several=True
    ),
}
