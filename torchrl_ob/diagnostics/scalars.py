"""Reading what TorchRL's csv logger wrote."""

from __future__ import annotations

import csv
from pathlib import Path

__all__ = ["read_scalars"]


def read_scalars(path: Path) -> dict[int, float]:
    r"""A metric by frame.

    Args:
        path: of its file, ``scalars/NAME.csv`` in the folder of the experiment.

    Returns:
        The values in the order in which they were logged.

    Example:
        >>> import pathlib, tempfile
        >>> from torchrl_ob.diagnostics.scalars import read_scalars
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "entropy.csv"
        >>> _ = path.write_text("100,0.5\n200,0.7\n")
        >>> read_scalars(path)
        {100: 0.5, 200: 0.7}
    """
    with path.open(newline="") as file:
        return {int(frame): float(value) for frame, value in csv.reader(file)}
