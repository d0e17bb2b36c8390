"""Comparing algorithms over seeds and tasks: interquartile means with intervals, by rliable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rliable import library, metrics, plot_utils

from torchrl_ob.experiments.results import (
    Result,
    Scores,
    differences,
    read_results,
    score_matrices,
)

__all__ = ["write_report"]

RESAMPLES = 2000
OVER = " > "
Intervals = tuple[dict[str, Any], dict[str, Any]]
"""Rliable's estimates by name, and the ends of their intervals."""


def write_report(runs: Sequence[Path], folder: Path, *, exploration: str = "deterministic") -> str:
    """Compare runs.

    Interquartile means over seeds (and tasks, each scaled to its range of rewards in these runs),
    with 95% stratified bootstrap intervals, and the probability that a run of one algorithm is better
    than one of another (Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
    Precipice", NeurIPS 2021).

    Args:
        runs: folders of runs, or above runs.
        folder: gets ``report.md``, ``report.png`` and ``marl_eval.json`` (the format of
            instadeepai/marl-eval).
        exploration: ``"deterministic"`` or ``"stochastic"`` evaluation.

    Returns:
        The report, in markdown.

    Raises:
        ExperimentError: where runs are missing, twice or evaluated differently.
    """
    results, never = read_results(runs, exploration)
    scores, tasks, frames = score_matrices(results)
    by_area = _improvement(scores, _mean)
    text = _markdown(results, scores, tasks, frames, by_area, exploration)
    if never:
        text += f"\nLeft out, never evaluated: {', '.join(map(str, never))}.\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(text)
    (folder / "marl_eval.json").write_text(json.dumps(_marl_eval(results, frames), indent=1) + "\n")
    _figure(scores, tasks, frames, by_area).savefig(
        folder / "report.png", dpi=120, bbox_inches="tight"
    )
    return text


def _markdown(
    results: Sequence[Result],
    scores: Scores,
    tasks: Sequence[str],
    frames: Sequence[int],
    by_area: Intervals,
    exploration: str,
) -> str:
    lines = [
        f"# {', '.join(scores)} on {', '.join(tasks)}",
        "",
        f"Mean episode reward, {exploration} policy; interquartile mean over seeds with 95% stratified "
        f"bootstrap interval, {len(frames)} evaluations up to frame {frames[-1]:,}.",
        "",
        "| task | algorithm | seeds | at the end | mean over training |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, of_task in _with_aggregate(scores, tasks).items():
        end = _intervals({k: x[..., -1] for k, x in of_task.items()}, metrics.aggregate_iqm)
        area = _intervals({k: x.mean(-1) for k, x in of_task.items()}, metrics.aggregate_iqm)
        for algorithm, x in of_task.items():
            cells = (_cell(end, algorithm), _cell(area, algorithm))
            lines.append(f"| {name} | {algorithm} | {len(x)} | {' | '.join(cells)} |")
    if len(scores) > 1:
        lines += [
            "",
            "| probability that a run of X is better than one of Y | at the end | mean over training |",
            "| --- | --- | --- |",
        ]
        end = _improvement(scores, lambda x: x[..., -1])
        lines += [f"| {pair} | {_cell(end, pair)} | {_cell(by_area, pair)} |" for pair in end[0]]
    longer = [str(result.folder) for result in results if max(result.rewards) > frames[-1]]
    if longer:
        lines += ["", f"Longer runs, cut to the frames that all have: {', '.join(longer)}."]
    also = differences(results, ("seed", "env.", "advantage.", "resume", "logger"))
    if also:
        lines += ["", f"Beyond the advantage the runs differ in: {', '.join(also)}."]
    return "\n".join([*lines, "", "![Learning curves](report.png)", ""])


def _figure(
    scores: Scores, tasks: Sequence[str], frames: Sequence[int], by_area: Intervals
) -> Figure:
    panels = _with_aggregate(scores, tasks)
    figure = Figure(figsize=(5 * (len(panels) + (len(scores) > 1)), 3.6), layout="constrained")
    axes = figure.subplots(1, len(panels) + (len(scores) > 1), squeeze=False)[0]
    for axis, (name, of_task) in zip(axes, panels.items(), strict=False):
        plot_utils.plot_sample_efficiency_curve(
            np.array(frames),
            *_intervals(of_task, _iqm_of_each),
            algorithms=list(scores),
            ax=axis,
            xlabel="frames",
            ylabel="reward, interquartile mean",
            labelsize="medium",
            ticklabelsize="small",
        )
        axis.set_title(name)
    axes[0].legend(frameon=False)
    if len(scores) > 1:
        plot_utils.plot_probability_of_improvement(
            *by_area,
            pair_separator=OVER,
            ax=axes[-1],
            xlabel="P(X > Y), mean over training",
        )
        axes[-1].axvline(0.5, color="grey", linestyle=":")
    return figure


def _marl_eval(results: Sequence[Result], frames: Sequence[int]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for result in results:
        rewards = [result.rewards[frame] for frame in frames]
        steps: dict[str, Any] = {
            f"step_{k}": {"step_count": frame, "return": [reward]}
            for k, (frame, reward) in enumerate(zip(frames, rewards, strict=True))
        }
        steps["absolute_metrics"] = {"return": [rewards[-1]]}
        environment = data.setdefault(result.environment, {})
        algorithms = environment.setdefault(result.task, {})
        algorithms.setdefault(result.algorithm, {})[f"seed_{result.seed}"] = steps
    return data


def _with_aggregate(scores: Scores, tasks: Sequence[str]) -> dict[str, Scores]:
    """Every task's own scores, and of several tasks all, each scaled to its range over all runs."""
    panels = {task: {name: x[:, [k]] for name, x in scores.items()} for k, task in enumerate(tasks)}
    if len(tasks) > 1:
        panels["all tasks, scaled"] = _scaled(scores)
    return panels


def _scaled(scores: Scores) -> Scores:
    low = np.min([x.min((0, 2)) for x in scores.values()], axis=0)[:, None]
    high = np.max([x.max((0, 2)) for x in scores.values()], axis=0)[:, None]
    return {name: (x - low) / (high - low) for name, x in scores.items()}


def _improvement(
    scores: Scores, reduce: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> Intervals:
    pairs = {
        f"{x}{OVER}{y}": [reduce(scores[x]), reduce(scores[y])] for x, y in combinations(scores, 2)
    }
    return _intervals(pairs, metrics.probability_of_improvement)


def _intervals(scores: Mapping[str, Any], statistic: Callable[..., Any]) -> Intervals:
    with _seeded():
        return library.get_interval_estimates(scores, statistic, reps=RESAMPLES)


@contextmanager
def _seeded() -> Iterator[None]:
    """Rliable draws from numpy's own generator: the same report each time, and no trace left."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _iqm_of_each(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([metrics.aggregate_iqm(scores[..., k]) for k in range(scores.shape[-1])])


def _mean(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return scores.mean(-1)


def _cell(estimates: Intervals, name: str) -> str:
    value, (low, high) = estimates[0][name], np.ravel(estimates[1][name])
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
