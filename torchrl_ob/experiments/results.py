"""What runs reached, read from their folders and named by task, algorithm and seed."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchrl_ob.diagnostics.scalars import read_scalars
from torchrl_ob.experiments.config.settings import NOT_TRAINING, leaves
from torchrl_ob.experiments.config.trust import load_config
from torchrl_ob.experiments.errors import ExperimentError, first_line, nearest
from torchrl_ob.experiments.folders import read_text, require_regular
from torchrl_ob.experiments.names import name_run

__all__ = [
    "Result",
    "Scores",
    "describe_left_out",
    "differences",
    "read_results",
    "score_matrices",
]

Scores = dict[str, NDArray[np.float64]]
"""For each algorithm, the values ``[seeds, tasks, evaluations]``."""

LARGEST = 2**26  # a csv of three million evaluations
NOT_COMPARED = ("seed", "device", "env", *NOT_TRAINING)


NEVER = "never evaluated"


class _Damaged(Exception):
    """A run whose files cannot be read, among others that can."""


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
) -> tuple[list[Result], dict[Path, str]]:
    """The runs in some folders.

    A task is named by its scenario, or by its environment and map, and an algorithm by its advantage. Where runs of one name differ
    in more than their seed, what differs is added to the name.

    Args:
        folders: of runs, or above runs, such as that of a sweep.
        exploration: ``"deterministic"`` or ``"stochastic"`` evaluation.
        metric: what of an evaluation is read: ``"reward"``, one group's such as
            ``"reward_adversary"``, or ``"win_rate"``.

    Returns:
        One result a run, and what was left out and why: runs that failed before their first evaluation,
        runs whose files are damaged, and folders that have none.

    Raises:
        ExperimentError: where a folder does not exist, no run has an evaluation, two runs are the same,
            runs were evaluated on different episodes, or one has no such metric.
    """
    found = {folder: _runs(folder) for folder in folders}
    runs = [run for within in found.values() for run in within]
    left_out = {folder: NEVER for folder, within in found.items() if not within}
    left_out |= {run: NEVER for run in runs if not _evaluations(run, exploration)}
    results = []
    for run in runs:
        if run not in left_out:
            try:
                results.append(_read(run, exploration, metric))
            except _Damaged as error:
                left_out[run] = first_line(error).rstrip(".")
    if not results:
        raise ExperimentError(f"no run can be compared: {describe_left_out(left_out)}.")
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
    return sorted(results, key=lambda x: (x.task, x.algorithm, x.seed)), left_out


def describe_left_out(left_out: Mapping[Path, str]) -> str:
    """Runs that were left out, each with the reason.

    Example:
        >>> from pathlib import Path
        >>> from torchrl_ob.experiments.results import describe_left_out
        >>> describe_left_out({Path("runs/3"): "never evaluated"})
        'runs/3 (never evaluated)'
    """
    return ", ".join(f"{path} ({reason})" for path, reason in left_out.items())


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
    try:
        choices = _choices(folder / "run.json")
        config = load_config(folder / "config.yaml")
        seed = config.get("seed")
        if not isinstance(config.get("env"), dict) or type(seed) is not int:
            raise _Damaged("config.yaml has no env, or no seed")
        task, algorithm = name_run(config, choices)
        return Result(
            folder=folder,
            task=task,
            algorithm=algorithm,
            seed=seed,
            values=_values(paths[metric]),
            settings=leaves(config),
            environment=choices["env"],
        )
    except ExperimentError as error:
        raise _Damaged(str(error).replace(f"{folder}/", "")) from error


def _choices(path: Path) -> dict[str, str]:
    """Which environment and which advantage a run took."""
    text = read_text(path)
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Damaged(f"{path.name} is cut short, or no JSON") from error
    choices = about.get("choices") if isinstance(about, dict) else None
    needed = ("env", "advantage")
    if not isinstance(choices, dict) or not all(isinstance(choices.get(x), str) for x in needed):
        raise _Damaged(f"{path.name} does not tell the choices of {' and '.join(needed)}")
    return choices


def _values(path: Path) -> dict[int, float]:
    require_regular(path, LARGEST)
    try:
        values = read_scalars(path)
    except (ValueError, csv.Error) as error:  # a line cut short, an empty cell
        raise _Damaged(f"{path.name} has a line that is no number: {first_line(error)}") from error
    if not values:
        raise _Damaged(f"{path.name} is empty")
    return values


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
