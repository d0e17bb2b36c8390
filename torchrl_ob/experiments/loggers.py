"""Loggers of a run: TorchRL's csv, cut back to the checkpoint where a run is resumed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchrl.record.loggers import Logger
from torchrl.record.loggers.csv import CSVLogger

__all__ = ["RunLogger"]


class RunLogger(CSVLogger):
    """One csv file a metric under ``folder/scalars``, and the same numbers to another logger.

    Where the other logger fails, as an unreachable service does, it is left out with a warning and
    the run goes on.

    Args:
        folder: of the csv files.
        other: another TorchRL logger, or None.
    """

    def __init__(self, folder: Path, other: Logger | None = None) -> None:
        super().__init__(exp_name=folder.name, log_dir=str(folder.parent))
        self.other = other

    def log_scalar(self, name: str, value: float, step: int | None = None) -> None:
        """Write one number to both."""
        super().log_scalar(name, value, step)
        if self.other is None:
            return
        try:
            self.other.log_scalar(name, value, step)
        except Exception as error:  # a service's own: none stops a run
            warnings.warn(
                f"{type(self.other).__name__} failed ({error}); metrics go to {self.log_dir} alone.",
                stacklevel=2,
            )
            self.other = None

    def _load_checkpoint_state(self, state_dict: Mapping[str, Any]) -> None:
        """Rewrite the files to what they were: later lines are of steps that will be taken again."""
        super()._load_checkpoint_state(state_dict)
        for file in self.experiment.files.values():
            file.close()
        self.experiment.files.clear()
        for path in (Path(self.experiment.log_dir) / "scalars").rglob("*.csv"):
            path.unlink()
        history = dict(self.experiment.scalars)
        self.experiment.scalars.clear()
        for name, rows in history.items():
            for step, value in rows:
                self.experiment.add_scalar(name, value, step)
