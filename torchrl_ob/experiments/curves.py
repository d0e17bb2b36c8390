"""The metrics of one run as a picture, a panel each."""

from __future__ import annotations

import csv
from pathlib import Path

from matplotlib.figure import Figure

__all__ = ["plot_metrics"]

COLUMNS = 4


def plot_metrics(metrics: Path) -> Figure:
    r"""Every metric over frames.

    Args:
        metrics: folder of TorchRL's csv logger, with one file a metric under ``scalars``.

    Returns:
        The figure.

    Example:
        >>> import tempfile, pathlib
        >>> from torchrl_ob.experiments.curves import plot_metrics
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> (folder / "scalars").mkdir()
        >>> _ = (folder / "scalars" / "reward.csv").write_text("100,0.5\n200,0.7\n")
        >>> plot_metrics(folder).axes[0].lines[0].get_ydata().tolist()
        [0.5, 0.7]
    """
    scalars = metrics / "scalars"
    paths = sorted(scalars.rglob("*.csv"), key=lambda path: (path.parent == scalars, path))
    rows = -(-len(paths) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for path, panel in zip(paths, panels, strict=False):
        with path.open(newline="") as file:
            points = [(int(frame), float(value)) for frame, value in csv.reader(file)]
        panel.plot(*zip(*points, strict=True), marker=".")
        panel.set_title(path.relative_to(scalars).with_suffix("").as_posix())
    for panel in panels[len(paths) :]:
        panel.axis("off")
    return figure
