"""Loggers of a run: TorchRL's csv, cut back to the checkpoint where a run is resumed, and those that its config adds."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torchrl.record.loggers import Logger
from torchrl.record.loggers.csv import CSVLogger
from torchrl.record.loggers.wandb import WandbLogger

from torchrl_ob.diagnostics.scalars import read_scalars
from torchrl_ob.experiments.config.instantiate import make
from torchrl_ob.experiments.config.modules import load_object
from torchrl_ob.experiments.config.options import read_options
from torchrl_ob.experiments.errors import ExperimentError, first_line, writing
from torchrl_ob.experiments.folders import WANDB_ID, read_text
from torchrl_ob.experiments.names import name_run

__all__ = ["RunLogger", "make_loggers", "make_wandb"]


def make_loggers(
    config: DictConfig, folder: Path, choices: Mapping[str, Any], *, resumed: bool
) -> list[Logger]:
    """The loggers that a config adds to the csv files; one whose service cannot be reached is left out with a warning.

    Each is called with ``log_dir``, and with what its signature has of ``name`` and ``group`` of the run, ``config``,
    resolved, and ``resumed``.

    Raises:
        ExperimentError: where the package of one is missing.
    """
    loggers: list[Logger] = []
    resolved: Any = OmegaConf.to_container(config, resolve=True)
    task, algorithm = name_run(resolved, choices)
    group = f"{algorithm} on {task}"
    offered = {
        "name": f"{group}, seed {config.seed}",
        "group": group,
        "config": resolved,
        "resumed": resumed,
    }
    for name, part in (config.get("logger") or {}).items():
        takes = read_options(load_object(part._target_, f"logger.{name}._target_")).types
        options = {key: value for key, value in offered.items() if key in takes}
        try:
            # the config is handed over as it is: nothing in it is built
            logger = make(OmegaConf.create({**part, "_partial_": True}))
            loggers.append(logger(log_dir=str(folder), **options))
        except ImportError as error:
            raise ExperimentError(
                f"logger={name} needs its package ({first_line(error)}): pip install {name}"
            ) from error
        except ExperimentError:
            raise
        except Exception as error:  # a service that cannot be reached
            warnings.warn(f"no logger {name} ({error}); the run goes on without it.", stacklevel=2)
    return loggers


def make_wandb(
    log_dir: str,
    *,
    name: str,
    group: str,
    config: dict[str, Any],
    resumed: bool,
    project: str,
    offline: bool = False,
    id: str | None = None,
    **options: Any,
) -> WandbLogger:
    """TorchRL's logger of wandb, in the run of wandb that the folder has begun.

    Args:
        log_dir: folder of the run. It keeps the id.
        name: of the run, cut to the 128 characters that wandb takes.
        group: of the runs that differ in their seed alone.
        config: of the run.
        resumed: whether the run goes on; one that begins afresh is another run of wandb too.
        project: of wandb.
        offline: whether all stays in the folder, for ``wandb sync``.
        id: of a run of wandb, in place of the folder's.
        **options: of ``wandb.init``.
    """
    path = Path(log_dir) / WANDB_ID
    known = read_text(path, 128).strip() if resumed and path.exists() else uuid.uuid4().hex[:8]
    path.write_text(f"{id or known}\n")
    named = {"exp_name": name[:128], "group": group[:128], "project": project, "id": id or known}
    options = {"config": config, "allow_val_change": True, **options}
    return WandbLogger(**named, log_dir=log_dir, offline=offline, **options)


class RunLogger(CSVLogger):
    """One csv file a metric under ``folder/scalars``, and the same numbers to other loggers.

    The files are all that is kept: a checkpoint reads them, and a long run takes no more memory than a
    short one. Another logger that fails, as where its service cannot be reached, is left out with a warning
    and the run goes on.

    Args:
        folder: of the csv files.
        others: other loggers of TorchRL.
    """

    def __init__(self, folder: Path, *others: Logger) -> None:
        super().__init__(exp_name=folder.name, log_dir=str(folder.parent))
        self.others = [*others]
        self.scalars = folder / "scalars"

    def log_scalar(self, name: str, value: float, step: int | None = None) -> None:
        """Write one number to its file.

        Raises:
            ExperimentError: where it cannot be written, as on a full disk.
            ValueError: without a step, and for a name that would leave the folder.
        """
        if step is None:
            raise ValueError(f"the metric {name!r} needs its step.")
        path = self._path(name)
        remedy = "make room, and continue with resume=auto"
        with writing(f"the metric {name!r} of frame {step} to {path}", remedy):
            self._append(path, f"{step},{float(value)}\n")

    def log_metrics(
        self, metrics: Any, step: int | None = None, *, keys_sep: str = "/"
    ) -> dict[str, Any]:
        """Write numbers to their files, and hand them to the other loggers."""
        numbers: dict[str, Any] = super().log_metrics(metrics, step, keys_sep=keys_sep)
        for other in [*self.others]:
            try:
                other.log_metrics(numbers, step)
            except Exception as error:  # a service's own: none stops a run
                self.others.remove(other)
                warnings.warn(
                    f"{type(other).__name__} failed ({error}); the run goes on without it.",
                    stacklevel=2,
                )
        return numbers

    def shutdown(self, timeout: float | None = None) -> None:
        """End the other loggers' runs too."""
        for other in self.others:
            with suppress(Exception):  # a service's own, at the end of a run
                other.shutdown(timeout)
        super().shutdown(timeout)

    @staticmethod
    def _append(path: Path, lines: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(lines)

    def _path(self, name: object) -> Path:
        """Of a metric's file, within the folder whatever a checkpoint says it is called."""
        path = Path(self.scalars, f"{name}.csv")
        inside = path.is_relative_to(self.scalars) and ".." not in path.parts
        if not (isinstance(name, str) and inside):
            raise ValueError(
                f"{name!r} cannot be the name of a metric: it is no path within a folder."
            )
        return path

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
