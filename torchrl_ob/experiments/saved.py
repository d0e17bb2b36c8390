"""Reading a run's folder: its config, of which nothing foreign is called, and its trained actor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from torchrl.checkpoint import CheckpointRotation, GlobalRNGState

from torchrl_ob.diagnostics.bootstrap import Estimate
from torchrl_ob.experiments.building import build_evaluation
from torchrl_ob.experiments.checkpoints import read_checkpoint
from torchrl_ob.experiments.errors import ExperimentError, first_line
from torchrl_ob.experiments.evaluating import Evaluation

__all__ = ["evaluate_run", "newest_checkpoint", "read_config", "trained_evaluation"]

TRUSTED = ("torchrl_ob", "torchrl", "torch")


def read_config(folder: Path) -> DictConfig:
    """The resolved config of a run.

    Args:
        folder: of the run.

    Returns:
        The config.

    Raises:
        ExperimentError: where there is none, and where it names a target that is not defined in
            torchrl_ob, torchrl or torch: what a file says is not called.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ExperimentError(f"{folder} is not the folder of a run: it has no config.yaml.")
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    for target in _targets(OmegaConf.to_container(config, resolve=False)):
        if not _is_trusted(target):
            raise ExperimentError(
                f"{path} names {target!r}, and only what torchrl_ob, torchrl and torch define is "
                "called from a run's folder. Build what is your own in a script."
            )
    return config


def evaluate_run(folder: Path, episodes: int | None = None) -> dict[str, Estimate]:
    """Mean episode reward of a run's newest checkpoint, deterministic and stochastic.

    Args:
        folder: of the run.
        episodes: how many; as in training by default.

    Returns:
        Means with 95% bootstrap intervals.

    Raises:
        ExperimentError: where the folder has no run or no checkpoint.
    """
    return trained_evaluation(folder, episodes).estimates()


def trained_evaluation(folder: Path, episodes: int | None = None) -> Evaluation:
    """The evaluation of a run, with the actor of its newest checkpoint.

    The random numbers of torch, numpy and python are left as they were.

    Args:
        folder: of the run.
        episodes: how many; as in training by default.

    Returns:
        The evaluation; its ``policy`` is the trained actor.

    Raises:
        ExperimentError: where the folder has no run or no checkpoint.
    """
    config = read_config(folder)
    if episodes is not None:
        config.evaluation.num_envs = episodes
    latest = newest_checkpoint(folder)
    generators = GlobalRNGState()
    before = generators.state_dict()
    evaluation = build_evaluation(config)
    generators.load_state_dict(before)
    try:
        read_checkpoint(latest, actor=evaluation.policy)
    except Exception as error:  # whichever way it is broken, or another network's
        raise ExperimentError(
            f"{latest} does not fit {folder}/config.yaml ({first_line(error)})."
        ) from error
    return evaluation


def newest_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a run.

    Raises:
        ExperimentError: where there is none, or none can be read.
    """
    checkpoints = folder / "checkpoints"
    latest = CheckpointRotation(checkpoints, keep_last=1).latest()
    if latest is None:
        broken = ", ".join(str(path) for path in sorted(checkpoints.glob("checkpoint-*")))
        reason = f"{broken} cannot be read" if broken else "none was written yet"
        raise ExperimentError(f"{folder} has no checkpoint: {reason}.")
    return latest


def _targets(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for child in node.values():
            yield from _targets(child)
    elif isinstance(node, list):
        for child in node:
            yield from _targets(child)


def _is_trusted(target: Any) -> bool:
    """By its name, and by where what it names is defined: torch.os.system is not torch's."""
    if not isinstance(target, str) or target.split(".")[0] not in TRUSTED:
        return False
    try:
        found = get_object(target)
    except Exception:  # nothing of that name
        return False
    return str(getattr(found, "__module__", "")).split(".")[0] in TRUSTED
