"""What a run's folder gives: its trained policy, and the evaluation of it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from torch import nn
from torchrl.envs import EnvBase

from torchrl_ob._rng import isolated_rng
from torchrl_ob.diagnostics.intervals import Estimate
from torchrl_ob.experiments.build import build_evaluation
from torchrl_ob.experiments.checkpoints import newest_checkpoint, read_checkpoint
from torchrl_ob.experiments.config.trust import read_config
from torchrl_ob.experiments.errors import ExperimentError, first_line
from torchrl_ob.experiments.evaluation import Evaluation
from torchrl_ob.experiments.imports import imports_outside

__all__ = ["TrainedRun", "evaluate_run", "load_run", "trained_evaluation"]


@dataclass(frozen=True)
class TrainedRun:
    """What a run has trained."""

    policy: nn.Module
    """Of all groups of agents; it acts on a tensordict of the environment."""
    env: EnvBase
    """The environments in which the run was evaluated."""
    config: DictConfig
    """What environment and policy are built from."""


def load_run(
    folder: Path | str,
    *,
    num_envs: int | None = None,
    trust: bool = False,
    config_dir: Path | str | None = None,
) -> TrainedRun:
    """The policy of a run's newest checkpoint, with its environment and its config.

    Args:
        folder: of the run.
        num_envs: how many environments; as in its evaluation by default.
        trust: whether code that the folder names, and that is not torchrl_ob's own, may be called.
        config_dir: a folder of your own configs: code that they name may be called.

    Returns:
        The trained run.

    Raises:
        ExperimentError: where the folder has no run or no checkpoint, and where it names foreign code.

    Example:
        .. code-block:: python

            run = load_run("runs/mine")
            batch = run.env.rollout(100, run.policy)
    """
    evaluation = trained_evaluation(folder, num_envs, trust=trust, config_dir=config_dir)
    config = read_config(Path(folder), trust=trust, config_dir=config_dir)
    return TrainedRun(evaluation.policy, evaluation.env, config)


def evaluate_run(
    folder: Path | str,
    episodes: int | None = None,
    *,
    trust: bool = False,
    config_dir: Path | str | None = None,
) -> dict[str, Estimate]:
    """Mean episode reward of a run's newest checkpoint, deterministic and stochastic.

    Args:
        folder: of the run.
        episodes: how many; as in training by default.
        trust: whether code that the folder names, and that is not torchrl_ob's own, may be called.
        config_dir: a folder of the user's own configs: code that they name may be called.

    Returns:
        Means with 95% intervals.

    Raises:
        ExperimentError: where the folder has no run or no checkpoint, and where it names foreign code.
    """
    return trained_evaluation(folder, episodes, trust=trust, config_dir=config_dir).estimates()


def trained_evaluation(
    folder: Path | str,
    episodes: int | None = None,
    *,
    trust: bool = False,
    config_dir: Path | str | None = None,
) -> Evaluation:
    """The evaluation of a run, with the actor of its newest checkpoint.

    The random numbers of torch, numpy and python are left as they were.

    Args:
        folder: of the run.
        episodes: how many; as in training by default.
        trust: whether code that the folder names, and that is not torchrl_ob's own, may be called.
        config_dir: a folder of the user's own configs: code that they name may be called.

    Returns:
        The evaluation; its ``policy`` is the trained actor.

    Raises:
        ExperimentError: where the folder has no run or no checkpoint, and where it names foreign code.
    """
    folder = Path(folder)
    config = read_config(folder, trust=trust, config_dir=config_dir)
    latest = newest_checkpoint(folder)
    try:
        with isolated_rng(), nullcontext() if trust or config_dir else imports_outside(folder):
            if episodes is not None:
                config.evaluation.num_envs = episodes
            evaluation = build_evaluation(config)
    except (ExperimentError, ModuleNotFoundError):
        raise
    except Exception as error:  # of a config that was written or damaged by hand
        raise ExperimentError(
            f"{folder}/config.yaml cannot be built: {type(error).__name__}: {first_line(error)}"
        ) from error
    try:
        components = {"transforms": evaluation.env} if config.env.get("transforms") else {}
        read_checkpoint(latest, actor=evaluation.policy, **components)
    except Exception as error:  # whichever way it is broken, or another network's
        raise ExperimentError(
            f"{latest} does not fit {folder}/config.yaml ({first_line(error)})."
        ) from error
    return evaluation
