"""What a user is told in one line when an experiment cannot run."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["ExperimentError", "first_line", "nearest", "show", "writing"]


class ExperimentError(Exception):
    """Something in the config, the run folder or the machine that the user can mend."""


def first_line(error: object) -> str:
    r"""What an error says first: those of torch and of Hydra go on for pages. Of one that says nothing, its kind and place.

    Example:
        >>> from torchrl_ob.experiments.errors import first_line
        >>> first_line(ValueError("too small\n  at ..."))
        'too small'
    """
    if not isinstance(error, BaseException) or str(error).strip():
        return str(error).strip().partition("\n")[0]
    frames = traceback.extract_tb(error.__traceback__)
    place = (
        f" in {os.path.basename(frames[-1].filename)}, line {frames[-1].lineno}: {frames[-1].line}"
        if frames
        else ""
    )
    return f"{type(error).__name__}{place}"


@contextmanager
def writing(what: str, remedy: str) -> Iterator[None]:
    """Tell in one line where something cannot be written.

    Args:
        what: is written.
        remedy: what the user can do.

    Raises:
        ExperimentError: for an ``OSError``, with the file where it is known.
    """
    try:
        yield
    except OSError as error:
        file = f": {error.filename}" if error.filename else ""
        raise ExperimentError(
            f"cannot write {what}{file} ({error.strerror or first_line(error)}): {remedy}."
        ) from error


def nearest(name: str, choices: Iterable[str]) -> str:
    """The names most like a mistyped one, in words.

    Example:
        >>> from torchrl_ob.experiments.errors import nearest
        >>> nearest("navigaton", ["balance", "navigation"])
        "did you mean 'navigation'?"
        >>> nearest("x", ["balance", "navigation"])
        'choose from balance, navigation.'
        >>> nearest("x", [])
        'it takes none.'
    """
    choices = sorted(set(choices))
    if near := difflib.get_close_matches(name, choices, n=3):
        return f"did you mean {' or '.join(map(repr, near))}?"
    if len(choices) > 100:
        return f"there are {len(choices)}, such as {choices[0]!r}."
    return f"choose from {', '.join(choices)}." if choices else "it takes none."


def show(text: object) -> None:
    """Print a text; what nobody reads any more, as after ``| head -1``, is dropped."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
