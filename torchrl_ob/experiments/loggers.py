"""Loggers of a run: TorchRL's csv, cut back to the checkpoint where a run is resumed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from omegaconf import DictConfig
from torchrl.record.loggers import Logger
from torchrl.record.loggers.csv import CSVLogger

from torchrl_ob.diagnostics.scalars import read_scalars
from torchrl_ob.experiments.config.instantiate import make_optional
from torchrl_ob.experiments.errors import ExperimentError

__all__ = ["RunLogger", "make_logger"]


def make_logger(config: DictConfig, folder: Path) -> RunLogger:
    """The logger of a run, with the one that its config adds.

    Raises:
        ExperimentError: where that one's package is missing.
    """
    try:
        other = make_optional(config.get("logger"), log_dir=str(folder))
    except ModuleNotFoundError as error:
        package = config.logger._target_.split(".")[-2]
        raise ExperimentError(
            f"logger={package} needs its package: pip install {package}"
        ) from error
    except Exception as error:  # a service that cannot be reached
        warnings.warn(
            f"no {config.logger._target_} ({error}); metrics go to {folder} alone.", stacklevel=2
        )
        other = None
    return RunLogger(folder / "metrics", other)


class RunLogger(CSVLogger):
    """One csv file a metric under ``folder/scalars``, and the same numbers to another logger.

    The files are all that is kept: a checkpoint reads them, and a long run takes no more memory than a
    short one. Where the other logger fails, as an unreachable service does, it is left out with a warning
    and the run goes on.

    Args:
        folder: of the csv files.
        other: another TorchRL logger, or None.
    """

    def __init__(self, folder: Path, other: Logger | None = None) -> None:
        super().__init__(exp_name=folder.name, log_dir=str(folder.parent))
        self.other = other
        self.scalars = folder / "scalars"

    def log_scalar(self, name: str, value: float, step: int | None = None) -> None:
        """Write one number to both.

        Raises:
            ExperimentError: where it cannot be written, as on a full disk.
            ValueError: without a step, and for a name that would leave the folder.
        """
        if step is None:
            raise ValueError(f"the metric {name!r} needs its step.")
        path, line = self._path(name), f"{step},{float(value)}\n"
        try:
            self._append(path, line)
        except OSError as error:
            raise ExperimentError(
                f"cannot write the metric {name!r} of frame {step} to {path} ({error.strerror}). Make room, "
                "and continue with resume=auto."
            ) from error
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

    @staticmethod
    def _append(path: Path, lines: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(lines)

    def _path(self, name: object) -> Path:
        """Of a metric's file, within the folder whatever a checkpoint says it is called."""
        if (
            not isinstance(name, str)
            or PurePath(name).is_absolute()
            or ".." in PurePath(name).parts
        ):
            raise ValueError(
                f"{name!r} cannot be the name of a metric: it is no path within a folder."
            )
        return self.scalars / f"{name}.csv"

    def _checkpoint_state(self) -> dict[str, Any]:
        state = super()._checkpoint_state()
        state["scalars"] = {
            path.relative_to(self.scalars).as_posix().removesuffix(".csv"): [
                *read_scalars(path).items()
            ]
            for path in sorted(self.scalars.rglob("*.csv"))
        }
        return state

    def _load_checkpoint_state(self, state_dict: Mapping[str, Any]) -> None:
        """Rewrite the files to what they were: later lines are of steps that will be taken again."""
        history = {
            self._path(name): "".join(f"{int(step)},{float(value)}\n" for step, value in rows)
            for name, rows in state_dict.get("scalars", {}).items()
        }
        super()._load_checkpoint_state({**state_dict, "scalars": {}})
        for path in self.scalars.rglob("*.csv"):
            path.unlink()
        for path, lines in history.items():
            self._append(path, lines)
