"""Plots of the measurements. They need matplotlib, but no screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchrl_ob.diagnostics.intervals import Estimate
from torchrl_ob.diagnostics.measured.variance import GradientVariance
from torchrl_ob.diagnostics.measured.variance_terms import VarianceTerms
from torchrl_ob.diagnostics.scalars import read_scalars

__all__ = ["plot_live", "plot_metrics", "plot_ratios", "plot_terms", "plot_variance"]

GROUPS = ("eval", "train", "loss", "critic", "variance", "timer")
"""In which order :func:`plot_metrics` shows metrics."""

COLUMNS = 4
"""Panels in a row of :func:`plot_metrics`."""


def plot_variance(measured: GradientVariance) -> Any:
    """Bars of the variance under each baseline, for every agent, with their intervals.

    Args:
        measured: from :func:`~torchrl_ob.diagnostics.gradient_variance`, or the one in parameters.

    Returns:
        The figure; ``figure.savefig("variance.png")`` writes it.

    Example: see :mod:`torchrl_ob.diagnostics`.
    """
    figure, axes = _figure(5, 3)
    width = 0.8 / len(measured.variance)
    for k, (name, variance) in enumerate(measured.variance.items()):
        middle = [agent + (k + 0.5) * width - 0.4 for agent in range(len(variance.value))]
        axes.bar(middle, variance.value.tolist(), width, yerr=_errors(variance), label=name)
    axes.set(xlabel="agent", ylabel="variance of the gradient")
    axes.set_xticks(range(len(variance.value)))
    axes.legend()
    return figure


def plot_terms(terms: VarianceTerms, baseline: str = "ob") -> Any:
    """Stacked bars of the terms of each agent's variance.

    Args:
        terms: from :func:`~torchrl_ob.diagnostics.variance_terms`.
        baseline: the baseline: ``"none"``, ``"v"``, ``"coma"`` or ``"ob"``.

    Returns:
        The figure.
    """
    figure, axes = _figure(5, 3)
    parts = {
        "state": terms.state,
        "others' actions": terms.others,
        "own action": terms.own[baseline],
        "later": terms.later[baseline],
    }
    agents = range(len(terms.state.value))
    bottom = [0.0 for _ in agents]
    for name, part in parts.items():
        heights = part.value.clamp(min=0).tolist()  # an unbiased estimate of little may be below 0
        axes.bar(agents, heights, bottom=bottom, label=name)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    axes.set(xlabel="agent", ylabel="variance of the gradient", title=f"baseline: {baseline}")
    axes.set_xticks(agents)
    axes.legend()
    return figure


def plot_ratios(measured: Mapping[int, GradientVariance]) -> Any:
    """Variance of the team over OB's against the number of agents, with intervals.

    Args:
        measured: a measurement for each number of agents.

    Returns:
        The figure.
    """
    figure, axes = _figure(5, 3)
    sizes = sorted(measured)
    for name in measured[sizes[0]].ratio:
        ratios = [measured[n].ratio[name] for n in sizes]
        values = [ratio.value.item() for ratio in ratios]
        axes.plot(sizes, values, marker="o", label=name)
        low, high = ([getattr(r, end).item() for r in ratios] for end in ("low", "high"))
        axes.fill_between(sizes, low, high, alpha=0.2)
    axes.set(xlabel="number of agents", ylabel="variance over OB's")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, labels=[str(n) for n in sizes])
    axes.legend()
    return figure


def plot_live(folder: str | Path) -> Any:
    """Curves of :func:`~torchrl_ob.diagnostics.variance_metrics` over training, from a csv log.

    Args:
        folder: folder of an experiment of a TorchRL :class:`~torchrl.record.CSVLogger`, which for a run of
            ``torchrl-ob`` is its folder ``metrics``. The files ``scalars/variance/*_over_ob.csv`` and
            ``scalars/critic/*.csv`` below it are read, and those of every group of agents that was logged with a
            prefix.

    Returns:
        The figure, with a row for each group.

    Raises:
        FileNotFoundError: if there are none.
    """
    scalars = Path(folder) / "scalars"
    patterns = {"variance over OB's": "variance/*_over_ob.csv", "critic": "critic/*.csv"}
    scales = {"variance over OB's": "log", "critic": "linear"}
    groups = sorted({x.parents[1] for part in patterns.values() for x in scalars.rglob(part)})
    if not groups:
        raise FileNotFoundError(
            f"no variance or critic metrics in {scalars}. Give the folder of the experiment, "
            "log_dir/exp_name of the CSVLogger that variance_metrics were logged to."
        )
    figure, axes = _figure(9, 3 * len(groups), rows=len(groups), columns=2)
    panels = iter(axes.flat)
    for group in groups:
        names = group.relative_to(scalars).parts  # none where there is one group
        for title, pattern in patterns.items():
            panel = next(panels)
            for path in sorted(group.glob(pattern)):
                values = read_scalars(path)
                panel.plot([*values], [*values.values()], marker=".", label=path.stem)
                panel.legend()
            panel.set(title=": ".join([*names, title]), xlabel="frames", yscale=scales[title])
    return figure


def plot_metrics(metrics: Path) -> Any:
    r"""Every metric of a run over frames, a panel each: rewards of evaluations, then the groups in ``GROUPS``.

    A metric other than a reward that never changes, such as the length of episodes that a time limit ends, has none.

    Args:
        metrics: folder of TorchRL's csv logger, with one file a metric under ``scalars``.

    Returns:
        The figure.

    Example:
        >>> import tempfile, pathlib
        >>> from torchrl_ob.diagnostics.plots import plot_metrics
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("critic/q_spread", "train/entropy", "eval/reward", "eval/length"):
        ...     path = folder / "scalars" / f"{name}.csv"
        ...     path.parent.mkdir(parents=True, exist_ok=True)
        ...     _ = path.write_text(f"100,0.5\n200,{0.5 if 'length' in name else 0.7}\n")
        >>> panels = plot_metrics(folder).axes
        >>> panels[0].lines[0].get_ydata().tolist()
        [0.5, 0.7]
        >>> [panel.get_title() for panel in panels][:3]
        ['eval/reward', 'train/entropy', 'critic/q_spread']
    """
    scalars = metrics / "scalars"
    curves = {path: read_scalars(path) for path in scalars.rglob("*.csv")}
    shown = {
        path
        for path, x in curves.items()
        if "reward" in path.stem or len(x) == 1 or len({*x.values()}) > 1
    }
    paths = sorted(shown, key=lambda path: _place(path.relative_to(scalars)))
    rows = max(1, -(-len(paths) // COLUMNS))
    width, height = 4.2 * COLUMNS, 2.8 * rows
    # margins in inches: a layout that matplotlib finds takes as long as all the rest
    figure, panels = _figure(width, height, rows, COLUMNS, layout=None)
    left, bottom, right, top = 0.9 / width, 0.5 / height, 1 - 0.1 / width, 1 - 0.3 / height
    figure.subplots_adjust(left, bottom, right, top, wspace=0.35, hspace=0.45)
    panels = panels.flatten()
    for path, panel in zip(paths, panels, strict=False):
        panel.plot([*curves[path]], [*curves[path].values()], marker=".")
        unit = "seconds" if path.parent.name == "timer" else path.stem.replace("_", " ")
        panel.set_xlabel("frames", size="small")
        panel.set_ylabel(unit, size="small")
        panel.ticklabel_format(axis="y", scilimits=(-3, 4))  # short ones, beside the next panel
        panel.set_title(path.relative_to(scalars).with_suffix("").as_posix())
    for panel in panels[len(paths) :]:
        panel.axis("off")
    return figure


def _place(path: Path) -> tuple[bool, int, Path]:
    """Rewards of evaluations, then by group, of several groups of agents by what follows their names."""
    group = next((k for k, x in enumerate(GROUPS) if x in path.parts), len(GROUPS))
    return not (GROUPS[0] in path.parts and "reward" in path.stem), group, path


def _figure(
    width: float, height: float, rows: int = 1, columns: int = 1, layout: Any = "constrained"
) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "pictures need matplotlib: pip install 'torchrl-ob[plots]', or matplotlib itself."
        ) from error
    figure = Figure(figsize=(width, height), layout=layout)
    return figure, figure.subplots(rows, columns)


def _errors(estimate: Estimate) -> list[list[float]]:
    """Distances of the interval's ends below and above the value."""
    value, low, high = estimate
    return [(value - low).clamp(min=0).tolist(), (high - value).clamp(min=0).tolist()]
