"""Imports that a run's folder cannot answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["imports_outside"]

SAFE_PATH = "PYTHONSAFEPATH"


@contextmanager
def imports_outside(folder: Path) -> Iterator[None]:
    """Import nothing from a run's folder, nor from the working directory, as ``python -m`` would.

    The folder in which torchrl_ob is stays, so that a checkout may be the working directory.

    Args:
        folder: of the run.
    """
    before, flag = sys.path[:], os.environ.get(SAFE_PATH)
    house = Path(__file__).resolve().parents[2]
    sys.path[:] = [entry for entry in before if not _is_within(entry, folder, house)]
    os.environ[SAFE_PATH] = "1"  # for processes that are started meanwhile
    try:
        yield
    finally:
        sys.path[:] = before
        os.environ.pop(SAFE_PATH)
        if flag is not None:
            os.environ[SAFE_PATH] = flag


def _is_within(entry: str, folder: Path, house: Path) -> bool:
    path, folder = Path(entry).resolve(), folder.resolve()
    return path != house and (path == Path.cwd() or path == folder or folder in path.parents)
