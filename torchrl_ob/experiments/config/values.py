"""Whether a value of a config is of a type and in a range, and what is expected of it in words."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from torchrl_ob.experiments.errors import ExperimentError

__all__ = ["Range", "check_value"]

LARGEST = 1e9
"""Of a number that says nothing else of its range."""


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``; without ``low`` itself where ``above``."""

    low: float = -LARGEST
    high: float = LARGEST
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        if self.low == self.high:
            return _plain(self.low)
        above = f"above {_plain(self.low)}" if self.above else f", {_plain(self.low)} or more"
        low = "" if self.low == -LARGEST else above
        if self.high == LARGEST:
            return low
        if not low:
            return f"of at most {_plain(self.high)}"
        if self.above:
            return f"{low} and at most {_plain(self.high)}"
        return f"from {_plain(self.low)} to {_plain(self.high)}"


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def check_value(key: str, value: Any, hint: Any) -> None:
    """Refuse a value that is not of a type.

    Args:
        key: of the config, for the message.
        value: as it stands in the config, resolved.
        hint: a type: of ``bool``, ``int``, ``float``, ``str``, ``None``, literals, lists, mappings and unions of them,
            numbers ``Annotated`` with a :class:`Range`. Another class is not what a config can hold, and says nothing
            beside one of these; alone it allows everything.

    Raises:
        ExperimentError: in one line.

    Example:
        >>> from typing import Annotated
        >>> from torchrl_ob.experiments.config.values import Range, check_value
        >>> check_value("trainer.clip_norm", -1, Annotated[float, Range(0, above=True)] | None)
        Traceback (most recent call last):
        torchrl_ob.experiments.errors.ExperimentError: trainer.clip_norm must be a number above 0, or null for none, got -1.
    """
    if isinstance(value, Mapping) and "_target_" in value:
        return  # an object, which its own part checks
    known = [(type_, words) for type_, words in _alternatives(hint) if words]
    if not known or any(_is(value, type_) for type_, _ in known):
        return
    words = list(dict.fromkeys(words for _, words in known if words != "null"))
    nullable = ", or null for none" if len(words) < len(known) and words else ""
    raise ExperimentError(
        f"{key} must be {' or '.join(words) or 'null'}{nullable}, got {'null' if value is None else repr(value)}."
    )


def _alternatives(hint: Any) -> Iterator[tuple[Any, str]]:
    """The members of a union with their words; no words for what a config does not hold."""
    if get_origin(hint) in (typing.Union, types.UnionType):
        for member in get_args(hint):
            yield from _alternatives(member)
    else:
        yield hint, _words(hint)


def _words(hint: Any) -> str:
    plain, bounds = _bounds(hint)
    if plain in (int, float):
        kind = "a whole number" if plain is int else "a number"
        return f"{kind} {bounds}".strip().replace(" ,", ",")
    if plain is bool:
        return "true or false"
    if plain is str:
        return next(iter(getattr(hint, "__metadata__", ())), "a text")
    if plain in (None, type(None)):
        return "null"
    if get_origin(plain) is Literal:
        return "one of " + ", ".join(map(_as_written, get_args(plain)))
    if _is_list(plain):
        inner = " or ".join(
            dict.fromkeys(words for x in _members(plain) for _, words in _alternatives(x) if words)
        )
        return f"a list of {inner}" if inner else "a list"
    if _origin(plain) in (dict, Mapping):
        return "keys with values, {key: value}"
    return ""


def _as_written(choice: Any) -> str:
    return str(choice).lower() if isinstance(choice, bool | None) else str(choice)


def _is(value: Any, hint: Any) -> bool:
    plain, bounds = _bounds(hint)
    if plain is float:
        return type(value) in (int, float) and math.isfinite(value) and value in bounds
    if plain is int:
        return type(value) is int and value in bounds
    if plain in (None, type(None)):
        return value is None
    if get_origin(plain) is Literal:
        return any(value == x and type(value) is type(x) for x in get_args(plain))
    if _is_list(plain):
        if isinstance(value, str) or not isinstance(value, Sequence):
            return False
        members = [pair for x in _members(plain) for pair in _alternatives(x)]
        return all(
            not members or any(_is(x, type_) for type_, words in members if words) for x in value
        )
    if _origin(plain) in (dict, Mapping):
        return isinstance(value, Mapping)
    return type(value) is plain


def _bounds(hint: Any) -> tuple[Any, Range]:
    if get_origin(hint) is not Annotated:
        return hint, Range()
    plain, *notes = get_args(hint)
    return plain, next((x for x in notes if isinstance(x, Range)), Range())


def _origin(hint: Any) -> Any:
    return get_origin(hint) or hint


def _is_list(hint: Any) -> bool:
    return _origin(hint) in (list, tuple, Sequence)


def _members(hint: Any) -> list[Any]:
    return [x for x in get_args(hint) if x is not ...]
