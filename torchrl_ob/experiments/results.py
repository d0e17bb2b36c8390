"""What runs reached, read from their folders and named by task, algorithm and seed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from torchrl_ob.diagnostics.scalars import read_scalars
from torchrl_ob.experiments.errors import ExperimentError, nearest
from torchrl_ob.experiments.settings import NOT_TRAINING, leaves

__all__ = ["Result", "Scores", "differences", "read_results", "score_matrices"]

Scores = dict[str, NDArray[np.float64]]
"""For each algorithm, the values ``[seeds, tasks, evaluations]``."""

NOT_COMPARED = ("seed", "device", "env", *NOT_TRAINING)


@dataclass
class Result:
    """One run: what it was, and the mean over episodes of a metric at every evaluation."""

    folder: Path
    task: str
    algorithm: str
    seed: int
    values: dict[int, float]  # by frame
    settings: dict[str, Any]  # whatever may differ between runs, by key
    environment: str


def read_results(
    folders: Iterable[Path], exploration: str = "deterministic", metric: str = "reward"
) -> tuple[list[Result], list[Path]]:
    """The runs in some folders.

    A task is named by its scenario, or by its environment and map, and an algorithm by its advantage. Where runs of one name differ
    in more than their seed, what differs is added to the name.

    Args:
        folders: of runs, or above runs, such as that of a sweep.
        exploration: ``"deterministic"`` or ``"stochastic"`` evaluation.
        metric: what of an evaluation is read: ``"reward"``, one group's such as
            ``"reward_adversary"``, or ``"win_rate"``.

    Returns:
        One result a run, and the runs that failed before their first evaluation, with the folders that have none.

    Raises:
        ExperimentError: where a folder does not exist, no run has an evaluation, two runs are the same,
            runs were evaluated on different episodes, or one has no such metric.
    """
    found = {folder: _runs(folder) for folder in folders}
    runs = [run for within in found.values() for run in within]
    never = [folder for folder, within in found.items() if not within]  # refused before they began
    never += [run for run in runs if not _evaluations(run, exploration)]
    results = [_read(run, exploration, metric) for run in runs if run not in never]
    if not results:
        raise ExperimentError(f"no run was evaluated yet: {', '.join(map(str, never))}.")
    for name in ("task", "algorithm"):
        _tell_apart(results, name)
    seen: dict[tuple[str, str, int], Path] = {}
    for result in results:
        identity = (result.task, result.algorithm, result.seed)
        if identity in seen:
            raise ExperimentError(
                f"{seen[identity]} and {result.folder} are the same run: {' '.join(map(str, identity))}. "
                "Leave one out."
            )
        seen[identity] = result.folder
    differ = [
        key for key in differences(results) if key in ("evaluation.seed", "evaluation.num_envs")
    ]
    if differ:
        raise ExperimentError(
            f"the runs were evaluated on different episodes: {', '.join(differ)} differs between them. "
            "Report them apart."
        )
    return sorted(results, key=lambda x: (x.task, x.algorithm, x.seed)), never


def score_matrices(results: Sequence[Result]) -> tuple[Scores, list[str], list[int]]:
    """Values as rliable takes them.

    Args:
        results: of runs; those that went on longer are cut to the frames that all have.

    Returns:
        The scores, the names of the tasks, and the frames of the evaluations.

    Raises:
        ExperimentError: where an algorithm has fewer than two seeds, or not the same number on every
            task, and where the runs have no evaluation at the same frame.
    """
    tasks = sorted({result.task for result in results})
    frames = sorted(set.intersection(*(set(result.values) for result in results)))
    if not frames:
        raise ExperimentError(
            "the runs have no evaluation at the same frame: give them the same evaluation.interval."
        )
    scores: Scores = {}
    for algorithm in sorted({result.algorithm for result in results}):
        mine = [result for result in results if result.algorithm == algorithm]
        seeds = Counter(result.task for result in mine)
        if len({seeds[task] for task in tasks}) > 1 or seeds[tasks[0]] < 2:
            counts = ", ".join(f"{seeds[task]} on {task}" for task in tasks)
            raise ExperimentError(
                f"{algorithm} has runs of {counts}: an interval needs two seeds or more, as many on "
                "every task. Train what is missing, or report fewer runs."
            )
        scores[algorithm] = np.array(
            [
                [
                    [result.values[frame] for frame in frames]
                    for result in mine
                    if result.task == task
                ]
                for task in tasks
            ]
        ).swapaxes(0, 1)
    return scores, tasks, frames


def differences(results: Sequence[Result], leave_out: Collection[str] = ()) -> list[str]:
    """The settings that are not the same in all runs.

    Args:
        results: of runs.
        leave_out: beginnings of keys that are not looked at.

    Returns:
        Their keys in the config; of a group whose ``_target_`` differs, its name alone.
    """
    differ = [
        key
        for key in sorted({key for result in results for key in result.settings})
        if not key.startswith(tuple(leave_out))
        and len({json.dumps(result.settings.get(key)) for result in results}) > 1
    ]
    others = {key.removesuffix("._target_") for key in differ if key.endswith("._target_")}
    return sorted(others.union(key for key in differ if key.split(".")[0] not in others))


def _runs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ExperimentError(f"there is no folder {folder}.")
    return sorted(path.parent for path in folder.rglob("run.json"))


def _evaluations(folder: Path, exploration: str) -> dict[str, Path]:
    """The files of a run's evaluations, by metric."""
    paths = (folder / "metrics" / "scalars" / "eval").glob(f"{exploration}_*.csv")
    return {path.stem.removeprefix(f"{exploration}_"): path for path in paths}


def _read(folder: Path, exploration: str, metric: str) -> Result:
    paths = _evaluations(folder, exploration)
    if metric not in paths:
        raise ExperimentError(f"{folder} has no evaluation of {metric!r}: {nearest(metric, paths)}")
    choices = json.loads((folder / "run.json").read_text())["choices"]
    config: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    env = config["env"]
    names = [choices["env"], *(env[key] for key in ("map_name", "task") if key in env)]
    return Result(
        folder=folder,
        task=env.get("scenario", " ".join(names)),
        algorithm=choices["advantage"],
        seed=config["seed"],
        values=read_scalars(paths[metric]),
        settings=leaves(config),
        environment=choices["env"],
    )


def _tell_apart(results: Sequence[Result], name: str) -> None:
    """Add to names what differs between the runs that share one."""
    by_name = defaultdict(list)
    for result in results:
        by_name[getattr(result, name)].append(result)
    for shared, runs in by_name.items():
        if name == "task":
            keys = [key for key in differences(runs) if key.startswith("env.")]
        else:
            keys = differences(runs, NOT_COMPARED)
        for run in runs:
            words = [f"{key}={run.settings.get(key)}" for key in keys]
            setattr(run, name, " ".join([shared, *words]))
