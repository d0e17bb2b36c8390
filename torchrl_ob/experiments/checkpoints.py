"""Checkpoints of a run: whole or absent, loaded without executing anything, in reach of a resume."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torchrl.checkpoint import (
    Checkpoint,
    StateDictCheckpointAdapter,
)

from torchrl_ob.experiments.config.settings import leaves
from torchrl_ob.experiments.errors import ExperimentError, first_line
from torchrl_ob.experiments.folders import require_regular

__all__ = [
    "WeightsOnlyAdapter",
    "make_checkpoint",
    "newest_checkpoint",
    "read_checkpoint",
    "resume",
    "save_checkpoint",
]

NAME = re.compile(r"checkpoint-\d+\.torchrl")
MANIFEST, LARGEST_MANIFEST = "manifest.json", 2**22
LARGEST = 2**35  # 32 GiB


class Resumable(Protocol):
    """The parts of a run."""

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""


class WeightsOnlyAdapter(StateDictCheckpointAdapter):
    """State dicts as ``torch.save`` writes them, read with ``weights_only=True`` and in no other way."""

    def __init__(self) -> None:
        super().__init__(payload_format="torch")

    def load(self, component: Any, path: Path, *, map_location: Any, **_: Any) -> None:
        """Read the state and hand it to the component."""
        _require_archive(path / self.state_torch)
        state = torch.load(path / self.state_torch, weights_only=True, map_location=map_location)
        component.load_state_dict(state)


def make_checkpoint(**components: Any) -> Checkpoint:
    """A checkpoint in one file, each component as :class:`WeightsOnlyAdapter` keeps it."""
    checkpoint = Checkpoint(format="archive", **components)
    return checkpoint.register_adapter(object, WeightsOnlyAdapter())


def newest_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a run.

    Raises:
        ExperimentError: where there is none, or none can be read.
    """
    problems = []
    for path, problem in _found(folder / "checkpoints"):
        if not problem:
            return path
        problems.append(f"{path} cannot be read ({problem})")
    raise ExperimentError(
        f"{folder} has no checkpoint: {'; '.join(problems) or 'none was written yet'}."
    )


def read_checkpoint(path: Path, **components: Any) -> None:
    """Put some components alone in the state of a checkpoint, such as ``actor=actor``."""
    make_checkpoint(**components).load(path, map_location="cpu")


def save_checkpoint(
    checkpoint: Checkpoint, folder: Path, *, step: int, keep: int, metadata: dict[str, Any]
) -> None:
    """Write a checkpoint, whole or not at all, and then remove the oldest beyond the newest ``keep``.

    Args:
        checkpoint: of the parts of the run.
        folder: of checkpoints. What a killed run left half-written there is removed.
        step: frame of the run.
        keep: how many are left.
        metadata: kept beside the parts.

    Raises:
        ExperimentError: where it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(".checkpoint-*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        checkpoint.save(folder / f"checkpoint-{step:012d}.torchrl", metadata=metadata)
    except (OSError, RuntimeError) as error:
        latest = next((path for path, problem in _found(folder) if not problem), None)
        kept = f"{latest} is whole" if latest else "there is none before it"
        free = shutil.disk_usage(folder.parent).free // 2**20  # torch.save does not tell
        raise ExperimentError(
            f"cannot write the checkpoint of frame {step} to {folder} ({first_line(error)}; {free} MiB free on the disk); "
            f"{kept}. Make room or another hydra.run.dir, and continue with resume=auto."
        ) from error
    for path in [path for path, problem in _found(folder) if not problem][keep:]:
        path.unlink()


def resume(parts: Resumable, source: Path, config: Mapping[str, Any]) -> str:
    """Put the parts of a run in the state of the newest checkpoint that can be read.

    Args:
        parts: built from ``config``.
        source: a folder of checkpoints, or one checkpoint.
        config: what the checkpoint must have been made with.

    Returns:
        What was done, in words; empty where the folder has no checkpoint.

    Raises:
        ExperimentError: for a checkpoint of another config, and where none can be read.
    """
    problems = []
    for path, problem in _found(source):
        try:
            if problem:
                raise ValueError(problem)
            _require_same(Checkpoint.manifest(path)["metadata"].get("config", {}), config, path)
            parts.load(path)
        except ExperimentError:
            raise
        except Exception as error:  # whichever way a file is broken
            problems.append(f"{path} cannot be read ({error})")
        else:
            return "; ".join([*problems, f"resumed from {path}"])
    if problems:
        raise ExperimentError("; ".join(problems) + ": no checkpoint is left to resume from.")
    return ""


def _found(source: Path) -> Iterator[tuple[Path, str]]:
    """The checkpoints of a folder, newest first, or the one of that path, and why each cannot be read, or nothing."""
    paths = [source] if source.is_file() else sorted(source.glob("checkpoint-*"), reverse=True)
    return ((path, _problem(path)) for path in paths if path == source or NAME.fullmatch(path.name))


def _problem(path: Path) -> str:
    """Why a file is no checkpoint that can be read in bounded memory; empty where it is one."""
    try:
        _require_archive(path)
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(MANIFEST).file_size > LARGEST_MANIFEST:
                return f"its {MANIFEST} is larger than any that a run writes"
            manifest = json.loads(archive.read(MANIFEST))
        metadata = manifest.get("metadata") if isinstance(manifest, dict) else None
        if not isinstance(metadata, dict):
            return f"its {MANIFEST} is not that of a checkpoint"
    except Exception as error:  # whichever way a file is broken
        return first_line(error).rstrip(".")
    return ""


def _require_archive(path: Path) -> None:
    """A regular file that takes no more room unpacked than packed, as torch and TorchRL write theirs."""
    require_regular(path, LARGEST)
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise ExperimentError(f"{path} is packed, and would take more room than its file")


def _require_same(saved: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> None:
    before, now = leaves(saved), leaves(config)
    differ = sorted(key for key in before | now if before.get(key) != now.get(key))
    if differ == ["total_frames"] and before["total_frames"] < now["total_frames"]:
        if not config.get("scheduler"):
            return
        raise ExperimentError(
            f"{path} is of total_frames={before['total_frames']}, over which its learning rate is scheduled, and here are "
            f"{now['total_frames']}: a run can be made longer where its learning rate is constant, scheduler=constant from "
            "the start. Start afresh in another hydra.run.dir."
        )
    if differ:
        words = (f"{key}={before.get(key)!r} there and {now.get(key)!r} here" for key in differ[:5])
        raise ExperimentError(
            f"{path} is of another config: {'; '.join(words)}. Use the same overrides, or start "
            "afresh in another hydra.run.dir."
        )
