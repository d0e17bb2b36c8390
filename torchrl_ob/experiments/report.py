"""Comparing algorithms over seeds and tasks: interquartile means with intervals, by rliable."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rliable import library, metrics, plot_utils

from torchrl_ob._rng import isolated_rng
from torchrl_ob.experiments.errors import writing
from torchrl_ob.experiments.evaluation import describe_metric
from torchrl_ob.experiments.results import (
    Result,
    Scores,
    describe_left_out,
    differences,
    read_results,
    score_matrices,
)

__all__ = ["write_report"]

RESAMPLES = 2000
OVER = " > "
COLUMNS = 2
"""Panels in a row of the figure."""
Intervals = tuple[dict[str, Any], dict[str, Any]]
"""Rliable's estimates by name, and the ends of their intervals."""


def write_report(
    runs: Sequence[Path],
    folder: Path,
    *,
    exploration: str = "deterministic",
    metric: str = "reward",
) -> str:
    """Compare runs.

    Interquartile means over seeds (and tasks, each scaled to its range of values in these runs),
    with 95% intervals by stratified resampling, and the probability that a run of one algorithm is better
    than one of another (Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
    Precipice", NeurIPS 2021). An algorithm of one seed has values and curves alone.

    Args:
        runs: folders of runs, or above runs.
        folder: gets ``report.md``, ``report.png`` and ``marl_eval.json`` (the format of
            instadeepai/marl-eval).
        exploration: ``"deterministic"`` or ``"stochastic"`` evaluation.
        metric: what of an evaluation is compared, as :func:`read_results` takes it. Of opponents the
            mean reward over all agents says little: take a group's, such as ``"reward_adversary"``.

    Returns:
        The report, in markdown.

    Raises:
        ExperimentError: where runs are missing, twice or evaluated differently, and where the report cannot
            be written.
    """
    results, left_out = read_results(runs, exploration, metric)
    scores, tasks, frames = score_matrices(results)
    by_area = _improvement(scores, lambda x: x.mean(-1))
    text = _markdown(results, scores, tasks, frames, by_area, exploration, metric)
    if left_out:
        text += f"\nLeft out: {describe_left_out(left_out)}.\n"
    figure = _figure(scores, tasks, frames, by_area, metric)
    data = json.dumps(_marl_eval(results, frames, metric), indent=1)
    with writing("the report", "give --output"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.md").write_text(text)
        (folder / "marl_eval.json").write_text(f"{data}\n")
        figure.savefig(folder / "report.png", dpi=120, bbox_inches="tight")
    return text


def _markdown(
    results: Sequence[Result],
    scores: Scores,
    tasks: Sequence[str],
    frames: Sequence[int],
    by_area: Intervals,
    exploration: str,
    metric: str,
) -> str:
    words = describe_metric(metric)
    single = [name for name, x in scores.items() if len(x) == 1]
    intervals = "interquartile mean over seeds with a 95% interval by stratified resampling"
    if single:
        of = "" if len(single) == len(scores) else f" of {', '.join(single)}"
        told = f"one seed each{of}: no intervals"
        intervals = told if not of else f"{intervals} ({told})"
    lines = [
        f"# {', '.join(scores)} on {', '.join(tasks)}",
        "",
        f"{words[0].upper()}{words[1:]}, {exploration} policy; {intervals}, {len(frames)} evaluations up to frame {frames[-1]:,}.",
        "",
        "| task | algorithm | seeds | at the end | mean over training |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, of_task in _with_aggregate(scores, tasks).items():
        end = _intervals({k: x[..., -1] for k, x in of_task.items()}, metrics.aggregate_iqm)
        area = _intervals({k: x.mean(-1) for k, x in of_task.items()}, metrics.aggregate_iqm)
        for algorithm, values in of_task.items():
            cells = (_cell(x, algorithm, interval=algorithm not in single) for x in (end, area))
            lines.append(f"| {name} | {algorithm} | {len(values)} | {' | '.join(cells)} |")
    if by_area[0]:
        lines += [
            "",
            "| probability that a run of X is better than one of Y | at the end | mean over training |",
            "| --- | --- | --- |",
        ]
        end = _improvement(scores, lambda x: x[..., -1])
        for pair in end[0]:
            cells = (_cell(x, pair, unknown=(0, 1)) for x in (end, by_area))
            lines.append(f"| {pair} | {' | '.join(cells)} |")
    longer = [str(result.folder) for result in results if max(result.values) > frames[-1]]
    if longer:
        lines += ["", f"Longer runs, cut to the frames that all have: {', '.join(longer)}."]
    also = differences(results, ("seed", "env.", "advantage.", "resume", "logger"))
    if also:
        lines += ["", f"Beyond the advantage the runs differ in: {', '.join(also)}."]
    return "\n".join([*lines, "", "![Learning curves](report.png)", ""])


def _figure(
    scores: Scores,
    tasks: Sequence[str],
    frames: Sequence[int],
    by_area: Intervals,
    metric: str,
) -> Figure:
    panels = _with_aggregate(scores, tasks)
    several = bool(by_area[0])
    rows = -(-(len(panels) + several) // COLUMNS)
    figure = Figure(figsize=(5.5 * COLUMNS, 4 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    sizes = {"labelsize": "medium", "ticklabelsize": "small"}
    for axis, (name, of_task) in zip(axes, panels.items(), strict=False):
        plot_utils.plot_sample_efficiency_curve(
            np.array(frames),
            *_intervals(of_task, _iqm_of_each),
            algorithms=list(scores),
            ax=axis,
            xlabel="frames",
            ylabel=f"{describe_metric(metric)}, interquartile mean",
            **sizes,
        )
        axis.set_title(name)
    axes[0].legend(frameon=False)
    if several:
        last = axes[len(panels)]
        plot_utils.plot_probability_of_improvement(
            *by_area, pair_separator=OVER, ax=last, xlabel="P(X > Y), mean over training", **sizes
        )
        last.axvline(0.5, color="grey", linestyle=":")
    for axis in axes[len(panels) + several :]:
        axis.axis("off")
    return figure


def _marl_eval(results: Sequence[Result], frames: Sequence[int], metric: str) -> dict[str, Any]:
    name = "return" if metric.startswith("reward") else metric  # marl-eval's word
    data: Any = defaultdict(lambda: defaultdict(lambda: defaultdict(dict)))
    for result in results:
        steps: dict[str, Any] = {
            f"step_{k}": {"step_count": frame, name: [result.values[frame]]}
            for k, frame in enumerate(frames)
        }
        steps["absolute_metrics"] = {name: [result.values[frames[-1]]]}
        data[result.environment][result.task][result.algorithm][f"seed_{result.seed}"] = steps
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
    span = np.where(high > low, high - low, 1)  # of a task on which nobody ever won
    return {name: (x - low) / span for name, x in scores.items()}


def _improvement(
    scores: Scores, reduce: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> Intervals:
    """Of those with two seeds or more."""
    reduced = {name: reduce(x) for name, x in scores.items() if len(x) > 1}
    pairs = {f"{x}{OVER}{y}": [reduced[x], reduced[y]] for x, y in combinations(reduced, 2)}
    return _intervals(pairs, metrics.probability_of_improvement)


def _intervals(scores: Mapping[str, Any], statistic: Callable[..., Any]) -> Intervals:
    with isolated_rng(seed=0):  # Rliable draws from numpy's own generator
        return library.get_interval_estimates(scores, statistic, reps=RESAMPLES)


def _iqm_of_each(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([metrics.aggregate_iqm(scores[..., k]) for k in range(scores.shape[-1])])


def _cell(
    estimates: Intervals,
    name: str,
    *,
    interval: bool = True,
    unknown: tuple[float, float] | None = None,
) -> str:
    """An estimate with its interval; one that is the whole range, ``unknown``, tells nothing."""
    value, (low, high) = estimates[0][name], np.ravel(estimates[1][name])
    if not interval:
        return f"{value:.3f}"
    remark = ", too few seeds to tell" if (low, high) == unknown else ""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]{remark}"
