"""The folder of a run: its own regular files alone, and one run in it at a time."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torchrl_ob.experiments.errors import ExperimentError

__all__ = ["locked", "read_text", "require_own_files", "require_regular"]

LOCK, WANDB_ID, LOG = ".lock", "wandb_id", "train.log"
FILES = (
    "config.yaml",
    "run.json",
    "evaluation.json",
    "metrics.png",
    "nan_batch.pt",
    LOCK,
    WANDB_ID,
    LOG,
)
FOLDERS = ("metrics", "checkpoints")
REMEDY = "remove it, or give another hydra.run.dir"

_in_use: set[Path] = set()  # by this process, whose locks do not keep it from itself


def require_own_files(folder: Path) -> None:
    """Refuse a folder in which a run could write, or delete, outside it.

    Args:
        folder: of a run that is about to begin or to go on; it may come from somebody else.

    Raises:
        ExperimentError: where one of the files or folders that a run writes is a link, a pipe or a device, and
            for a link of any name, which a logger may write through.
    """
    for path in folder.iterdir():
        if path.name in FOLDERS:
            _require(path, "a folder")
            for inner in path.rglob("*"):  # which follows no links
                _require(inner, "a folder" if inner.is_dir() else "a file")
        elif path.name in FILES or path.is_symlink():
            _require(path, "a file")


def require_regular(path: Path, limit: int) -> None:
    """Refuse to read what is no regular file, or a larger one.

    Args:
        path: of the file.
        limit: in bytes.

    Raises:
        ExperimentError: for a link, a pipe, a device, a folder, nothing, and for more bytes.
    """
    try:
        found = path.lstat()
    except OSError as error:
        raise ExperimentError(f"{path} cannot be read ({error.strerror}).") from error
    kind = _kind(found.st_mode)
    if kind != "a file":
        raise ExperimentError(f"{path} cannot be read: it is {kind}, and not a file.")
    if found.st_size > limit:
        raise ExperimentError(
            f"{path} has {found.st_size:,} bytes, and at most {limit:,} are read."
        )


def read_text(path: Path, limit: int = 2**20) -> str:
    """The text of a regular file.

    Args:
        path: of the file.
        limit: in bytes.

    Raises:
        ExperimentError: for what :func:`require_regular` refuses, and where the bytes are no text.
    """
    require_regular(path, limit)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ExperimentError(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ExperimentError(f"{path} is not text.") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; the system lets go of it where the process dies.

    The processes that a run starts do not hold it.

    Args:
        folder: of the run.

    Raises:
        ExperimentError: where a run is in it already.
        OSError: where nothing can be written there.
    """
    key = folder.resolve()
    if key in _in_use:  # and no second descriptor: closing it would let go of the lock
        raise ExperimentError(_taken(folder, str(os.getpid())))
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(folder / LOCK, flags, 0o666)
    _in_use.add(key)
    try:
        try:
            # of the process and not of the open file: a forked worker does not inherit it
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            holder = os.read(descriptor, 20).decode(errors="replace").strip()
            raise ExperimentError(_taken(folder, holder)) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        _in_use.discard(key)
        os.close(descriptor)


def _taken(folder: Path, holder: str) -> str:
    return (
        f"another run, process {holder}, is at work in {folder}: wait until it has ended, stop it, or give "
        "another hydra.run.dir."
    )


def _require(path: Path, expected: str) -> None:
    kind = _kind(path.lstat().st_mode)
    if kind != expected:
        raise ExperimentError(f"{path} is {kind}, where a run writes {expected}: {REMEDY}.")


def _kind(mode: int) -> str:
    kinds = {
        "a file": stat.S_ISREG,
        "a folder": stat.S_ISDIR,
        "a link": stat.S_ISLNK,
        "a pipe": stat.S_ISFIFO,
    }
    return next((name for name, is_kind in kinds.items() if is_kind(mode)), "a device")
