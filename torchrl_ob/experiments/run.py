"""A run: its folder, its resume, its end."""

from __future__ import annotations

import json
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from torchrl_ob.diagnostics.plots import plot_metrics
from torchrl_ob.experiments.build import Experiment, build, training_config
from torchrl_ob.experiments.checkpoints import resume
from torchrl_ob.experiments.config.check import check_config
from torchrl_ob.experiments.config.overrides import folder_name  # noqa: F401  # registers it for configs
from torchrl_ob.experiments.errors import ExperimentError, first_line, writing
from torchrl_ob.experiments.evaluation import describe
from torchrl_ob.experiments.folders import LOG, locked, require_own_files
from torchrl_ob.experiments.loggers import make_loggers
from torchrl_ob.experiments.loop import train
from torchrl_ob.experiments.ranks import any_rank, is_first, joined, rank, said_by_first
from torchrl_ob.experiments.train_log import log_file, say

__all__ = ["run"]

PACKAGES = ["torch", "tensordict", "torchrl", "torchrl-ob", "hydra-core"]
SIMULATORS = [
    "vmas",
    "jaxmarl",
    "jax",
    "gymnasium-robotics",
    "mujoco",
    "lbforaging",
    "smacv2",
    "pettingzoo",
    "mpe2",
]

REMEDY = "make room, or give another hydra.run.dir"


def run(config: DictConfig, folder: Path, choices: dict[str, Any] | None = None) -> Experiment:
    """Train as a config says, and evaluate at the end.

    Args:
        config: composed from ``configs/train.yaml``.
        folder: of the run. It gets ``config.yaml``, ``run.json`` (versions, git revision, choices of
            the groups), ``metrics/scalars``, ``metrics.png``, ``checkpoints`` and
            ``evaluation.json``.
        choices: which choice each group of the config was.

    Returns:
        The parts of the run.

    Raises:
        ExperimentError: in one line, for whatever the user can mend; another run in the folder, and links
            that lead out of it, are told before anything is written.
        SystemExit: with 130 where the user stopped the run; it is saved first.
    """
    check_config(config)
    with ExitStack() as while_running:
        while_running.enter_context(joined(config.rank_timeout))
        if is_first():
            with writing(f"to {folder}", REMEDY):
                folder.mkdir(parents=True, exist_ok=True)
                require_own_files(folder)
                while_running.enter_context(locked(folder))
                while_running.enter_context(log_file(folder / LOG))
        return _train(config, Path(said_by_first(str(folder))), choices or {})


def _train(config: DictConfig, folder: Path, choices: dict[str, Any]) -> Experiment:
    source = _source(config, folder) if is_first() else None
    experiment = build(config, folder)
    try:
        if is_first():
            _begin(experiment, source, choices)
        begun = said_by_first(experiment.source)
        if begun and not is_first():
            _follow(experiment, Path(begun))
        with _stop_on_signal() as stopped:
            train(experiment, stopped)
            if any_rank(stopped()):
                frame = experiment.progress.frames
                say(f"stopped and saved at frame {frame}; go on with resume=auto")
                raise SystemExit(130)
        if not is_first():
            return experiment
        estimates = experiment.evaluation.estimates()
    finally:
        experiment.close()
    numbers = {name: [x.item() for x in estimate] for name, estimate in estimates.items()}
    with writing(f"to {folder}", REMEDY):
        (folder / "evaluation.json").write_text(json.dumps(numbers, indent=2) + "\n")
        plot_metrics(folder / "metrics").savefig(folder / "metrics.png")
    say(describe(estimates))
    say(f"results are in {folder}")
    return experiment


def _begin(experiment: Experiment, source: Path | None, choices: dict[str, Any]) -> None:
    """Resume where there is something to resume, describe the run in its folder, and start its loggers."""
    config, folder, done = experiment.config, experiment.folder, ""
    if source is not None:
        done = resume(experiment, source, training_config(config))
        say(done or f"nothing to resume in {source}: starting afresh")
    if not done:  # a run killed before its first checkpoint leaves metrics
        shutil.rmtree(folder / "metrics" / "scalars", ignore_errors=True)
    with writing(f"to {folder}", REMEDY):
        _describe(config, folder, choices)  # not before a resume is known to fit
    assert experiment.log is not None  # of the first rank
    experiment.log.others = make_loggers(config, folder, choices, resumed=bool(done))
    say(f"results go to {folder}")


def _follow(experiment: Experiment, path: Path) -> None:
    """Load what the first rank has."""
    try:
        experiment.load(path)
    except Exception as error:  # whichever way it cannot be read
        raise ExperimentError(
            f"rank {rank()} cannot read {path} ({first_line(error)}): the run's folder must be on a file system of all "
            "machines."
        ) from error


def _source(config: DictConfig, folder: Path) -> Path | None:
    checkpoints = folder / "checkpoints"
    if config.resume is None:
        if any(checkpoints.glob("checkpoint-*")):
            raise ExperimentError(
                f"{folder} already holds a run: continue it with resume=auto, or give another "
                "hydra.run.dir (of a sweep, hydra.sweep.dir)."
            )
        return None
    if config.resume == "auto":
        return checkpoints
    path = Path(config.resume).resolve()
    if not path.exists():
        raise ExperimentError(f"resume={path} does not exist; give a checkpoint, or resume=auto.")
    return path / "checkpoints" if (path / "checkpoints").is_dir() else path


def _describe(config: DictConfig, folder: Path, choices: dict[str, Any]) -> None:
    """Write what the run is, with the versions of what decides its numbers."""
    OmegaConf.save(config, folder / "config.yaml", resolve=True)
    versions = {}
    for name in (*PACKAGES, *SIMULATORS):
        with suppress(PackageNotFoundError):  # a simulator that is not installed
            versions[name] = version(name)
    about = {
        "versions": versions,
        "python": platform.python_version(),
        "git": _git_revision(),
        "command": sys.orig_argv,
        "choices": choices,
    }
    (folder / "run.json").write_text(json.dumps(about, indent=2) + "\n")


def _git_revision() -> str | None:
    """Of the checkout that this file is in; an installed package has none."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty"]
    with suppress(FileNotFoundError):  # no git
        found = subprocess.run(command, capture_output=True, text=True, cwd=checkout)
        return found.stdout.strip() or None
    return None


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Ctrl-C, or a request to terminate, ends the run after the current batch; a second, at once.

    Python hands signals to the main thread alone: a run in another leaves them to whoever is there.

    Returns:
        Whether the run is to stop.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def stop(number: int, _: Any) -> None:
        if is_first():
            print("stopping after this batch; once more stops at once", file=sys.stderr)
        asked.set()
        signal.signal(number, previous[signal.Signals(number)])

    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, stop) for number in signals}
    try:
        yield asked.is_set
    finally:
        for number in signals:
            signal.signal(number, previous[number])
