"""The metrics of one run as a picture, a panel each."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from torchrl_ob.diagnostics.scalars import read_scalars

__all__ = ["plot_metrics"]

COLUMNS = 4


def plot_metrics(metrics: Path) -> Figure:
    r"""Every metric over frames, rewards first.

    Args:
        metrics: folder of TorchRL's csv logger, with one file a metric under ``scalars``.

    Returns:
        The figure.

    Example:
        >>> import tempfile, pathlib
        >>> from torchrl_ob.experiments.plots import plot_metrics
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> for name in ("critic/q_spread", "entropy", "eval/reward"):
        ...     path = folder / "scalars" / f"{name}.csv"
        ...     path.parent.mkdir(parents=True, exist_ok=True)
        ...     _ = path.write_text("100,0.5\n200,0.7\n")
        >>> panels = plot_metrics(folder).axes
        >>> panels[0].lines[0].get_ydata().tolist()
        [0.5, 0.7]
        >>> [panel.get_title() for panel in panels][:3]
        ['eval/reward', 'critic/q_spread', 'entropy']
    """
    scalars = metrics / "scalars"
    paths = sorted(scalars.rglob("*.csv"), key=lambda path: _place(path.relative_to(scalars)))
    rows = -(-len(paths) // COLUMNS)
    width, height = 4 * COLUMNS, 2.6 * rows
    figure = Figure(figsize=(width, height))
    # margins in inches: a layout that matplotlib finds takes as long as all the rest
    figure.subplots_adjust(0.7 / width, 0.3 / height, 1 - 0.1 / width, 1 - 0.3 / height, 0.25, 0.3)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for path, panel in zip(paths, panels, strict=False):
        values = read_scalars(path)
        panel.plot([*values], [*values.values()], marker=".")
        panel.ticklabel_format(axis="y", scilimits=(-3, 4))  # short ones, beside the next panel
        panel.set_title(path.relative_to(scalars).with_suffix("").as_posix())
    for panel in panels[len(paths) :]:
        panel.axis("off")
    return figure


def _place(path: Path) -> tuple[bool, bool, Path]:
    return path.parts[0] not in ("eval", "train"), len(path.parts) == 1, path
