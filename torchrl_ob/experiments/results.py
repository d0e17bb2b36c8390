"""What runs reached, read from their folders and named by task, algorithm and seed."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
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
EPISODES = ("evaluation.num_envs", "evaluation.seed")  # decide on which episodes a run is evaluated
NEVER = "never evaluated"


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
    results: list[Result] = []
    left_out: dict[Path, str] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ExperimentError(f"there is no folder {folder}.")
        runs = sorted(path.parent for path in folder.rglob("run.json"))
        for run in runs or [folder]:
            scalars = run / "metrics" / "scalars" / "eval"
            paths = {x.stem.partition("_")[2]: x for x in scalars.glob(f"{exploration}_*.csv")}
            if not (runs and paths):
                left_out[run] = NEVER
                continue
            if metric not in paths:
                raise ExperimentError(
                    f"{run} has no evaluation of {metric!r}: {nearest(metric, paths)}"
                )
            try:
                results.append(_read(run, paths[metric]))
            except ExperimentError as error:  # a run whose files are damaged, among others
                left_out[run] = first_line(error).replace(f"{run}/", "").rstrip(".")
    if not results:
        raise ExperimentError(f"no run can be compared: {describe_left_out(left_out)}.")
    _tell_apart(results, "task")
    _tell_apart(results, "algorithm")
    results.sort(key=attrgetter("task", "algorithm", "seed"))
    for identity, same in groupby(results, attrgetter("task", "algorithm", "seed")):
        first, *others = (str(result.folder) for result in same)
        if others:
            raise ExperimentError(
                f"{first} and {others[0]} are the same run: {' '.join(map(str, identity))}. Leave one out."
            )
    differ = [key for key in differences(results) if key in EPISODES]
    if differ:
        raise ExperimentError(
            f"the runs were evaluated on different episodes: {', '.join(differ)} differs between them. "
            "Report them apart."
        )
    return results, left_out


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
        ExperimentError: where an algorithm has not the same number of seeds on every task, and where the runs have no evaluation at the same frame.
    """
    columns = {(x.algorithm, x.task, x.seed): pd.Series(x.values) for x in results}
    table = pd.concat(columns, axis="columns", join="inner").sort_index().sort_index(axis="columns")
    tasks = sorted({result.task for result in results})
    if table.empty:
        raise ExperimentError(
            "the runs have no evaluation at the same frame: give them the same evaluation.interval."
        )
    scores: Scores = {}
    for algorithm in sorted({result.algorithm for result in results}):
        mine = table[algorithm]
        seeds = mine.columns.get_level_values(0).value_counts().reindex(tasks, fill_value=0)
        if seeds.nunique() > 1:
            counts = ", ".join(f"{count} on {task}" for task, count in seeds.items())
            raise ExperimentError(
                f"{algorithm} has runs of {counts}: it needs as many seeds on every task. Train what is missing, or report "
                "fewer runs."
            )
        values = mine.to_numpy().reshape(
            len(table), len(tasks), -1
        )  # columns are by task, then seed
        scores[algorithm] = values.transpose(2, 1, 0)
    return scores, tasks, table.index.tolist()


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


def _read(folder: Path, scalars: Path) -> Result:
    choices, config = _choices(folder / "run.json"), load_config(folder / "config.yaml")
    seed = config.get("seed")
    if not isinstance(config.get("env"), dict) or type(seed) is not int:
        raise ExperimentError(f"{folder}/config.yaml has no env, or no seed")
    require_regular(scalars, LARGEST)
    try:
        values = read_scalars(scalars)
    except (ValueError, csv.Error) as error:  # a line cut short, an empty cell
        raise ExperimentError(
            f"{scalars.name} has a line that is no number: {first_line(error)}"
        ) from error
    if not values:
        raise ExperimentError(f"{scalars.name} is empty")
    task, algorithm = name_run(config, choices)
    return Result(folder, task, algorithm, seed, values, leaves(config), choices["env"])


def _choices(path: Path) -> dict[str, str]:
    """Which environment and which advantage a run took."""
    text = read_text(path)
    try:
        choices = json.loads(text)["choices"]
        return {name: "" + choices[name] for name in ("env", "advantage")}
    except (ValueError, RecursionError) as error:
        raise ExperimentError(f"{path} is cut short, or no JSON") from error
    except (KeyError, TypeError) as error:
        raise ExperimentError(f"{path} does not tell the choices of env and advantage") from error


def _tell_apart(results: Sequence[Result], name: str) -> None:
    """Add to the names of tasks, or of algorithms, what differs between the runs that share one."""
    named = attrgetter(name)
    for shared, same in groupby(sorted(results, key=named), named):
        runs = [*same]
        keys = differences(runs, () if name == "task" else NOT_COMPARED)
        if name == "task":
            keys = [key for key in keys if key.startswith("env.")]
        for run in runs:
            words = [f"{key}={run.settings.get(key)}" for key in keys]
            setattr(run, name, " ".join([shared, *words]))
