"""What a run tells its user: on the console, and with the time in ``train.log``."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torchrl_ob.experiments.errors import first_line, show
from torchrl_ob.experiments.ranks import is_first

__all__ = ["log_file", "note", "say"]

_LOG = logging.Logger("torchrl_ob.run")  # its own: what is said is printed already
_LOG.addHandler(logging.NullHandler())


def say(text: str) -> None:
    """Print a text, and note it, of all ranks on the first."""
    if is_first():
        show(text)
        note(text)


def note(text: str) -> None:
    """Write a text to the log file alone."""
    _LOG.info(text)


class _QuietHandler(logging.FileHandler):
    """Of a file to which nothing may be written later on: Python's would print a traceback each time."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave the line out."""


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append to a file what this thread says and notes meanwhile, what it warns of, and the error that it ends with.

    Args:
        path: of the file. Where it cannot be written later on, as on a full disk, what fails is left out.

    Raises:
        OSError: where it cannot be opened.
    """
    handler = _QuietHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(lambda record: record.thread == thread)
    thread, show = threading.get_ident(), warnings.showwarning

    def show_and_note(message: Warning | str, *place: Any, **options: Any) -> None:
        _LOG.warning(first_line(message))
        show(message, *place, **options)

    _LOG.addHandler(handler)
    warnings.showwarning = show_and_note
    try:
        yield
    except Exception as error:
        _LOG.error("%s: %s", type(error).__name__, first_line(error))
        raise
    finally:
        warnings.showwarning = show
        _LOG.removeHandler(handler)
        with suppress(OSError):
            handler.close()
