"""What a run's folder gives: its trained actor, and the evaluation of it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from torchrl_ob._rng import isolated_rng
from torchrl_ob.diagnostics.intervals import Estimate
from torchrl_ob.experiments.build import build_evaluation
from torchrl_ob.experiments.checkpoints import newest_checkpoint, read_checkpoint
from torchrl_ob.experiments.config.trust import read_config
from torchrl_ob.experiments.errors import ExperimentError, first_line
from torchrl_ob.experiments.evaluation import Evaluation
from torchrl_ob.experiments.imports import imports_outside

__all__ = ["evaluate_run", "trained_evaluation"]


def evaluate_run(
    folder: Path, episodes: int | None = None, *, trust: bool = False
) -> dict[str, Estimate]:
    """Mean episode reward of a run's newest checkpoint, deterministic and stochastic.

    Args:
        folder: of the run.
        episodes: how many; as in training by default.
        trust: whether code that the folder names, and that is not torchrl_ob's own, may be called.

    Returns:
        Means with 95% intervals.

    Raises:
        ExperimentError: where the folder has no run or no checkpoint, and where it names foreign code.
    """
    return trained_evaluation(folder, episodes, trust=trust).estimates()


def trained_evaluation(
    folder: Path, episodes: int | None = None, *, trust: bool = False
) -> Evaluation:
    """The evaluation of a run, with the actor of its newest checkpoint.

    The random numbers of torch, numpy and python are left as they were.

    Args:
        folder: of the run.
        episodes: how many; as in training by default.
        trust: whether code that the folder names, and that is not torchrl_ob's own, may be called.

    Returns:
        The evaluation; its ``policy`` is the trained actor.

    Raises:
        ExperimentError: where the folder has no run or no checkpoint, and where it names foreign code.
    """
    config, latest = read_config(folder, trust=trust), newest_checkpoint(folder)
    try:
        with isolated_rng(), nullcontext() if trust else imports_outside(folder):
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
        read_checkpoint(latest, actor=evaluation.policy)
    except Exception as error:  # whichever way it is broken, or another network's
        raise ExperimentError(
            f"{latest} does not fit {folder}/config.yaml ({first_line(error)})."
        ) from error
    return evaluation
