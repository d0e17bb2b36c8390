"""Wrong arguments of a constructor: told with the class that was called and the nearest name."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from numbers import Integral
from typing import Any

__all__ = ["check_arguments", "check_whole_number"]


def check_arguments(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse arguments that the constructor of a class, or one that it hands the others on to, does not take.

    Args:
        cls: the class that was called.
        args: positional arguments.
        kwargs: keyword arguments.

    Raises:
        TypeError: naming the class and the arguments.

    Example:
        >>> from torchrl_ob._checks.arguments import check_arguments
        >>> class Shape:
        ...     def __init__(self, *, width: int, height: int = 1) -> None: ...
        >>> check_arguments(Shape, (), {"widht": 3})
        Traceback (most recent call last):
        ...
        TypeError: Shape has no argument 'widht': did you mean 'width'? It takes width, height.
    """
    known: dict[str, inspect.Parameter] = {}
    for owner in cls.__mro__:
        if "__init__" not in owner.__dict__:
            continue
        parameters = list(inspect.signature(owner.__dict__["__init__"]).parameters.values())[1:]
        kinds = {x.kind for x in parameters}
        named = [x for x in parameters if x.kind not in (x.VAR_POSITIONAL, x.VAR_KEYWORD)]
        known = {x.name: x for x in named} | known
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    else:
        return
    takes = f"It takes {', '.join(known)}."
    unknown = [name for name in kwargs if name not in known]
    if unknown:
        near = get_close_matches(unknown[0], known, n=1, cutoff=0.5)
        hint = f": did you mean {near[0]!r}?" if near else "."
        raise TypeError(f"{cls.__name__} has no argument {unknown[0]!r}{hint} {takes}")
    places = [x.name for x in known.values() if x.kind is not x.KEYWORD_ONLY]
    if len(args) > len(places):
        most = f"at most {len(places)} arguments by position" if places else "arguments by name"
        raise TypeError(f"{cls.__name__} takes {most}, got {len(args)}. {takes}")
    given = {*kwargs, *places[: len(args)]}
    missing = [x.name for x in known.values() if x.default is x.empty and x.name not in given]
    if missing:
        raise TypeError(f"{cls.__name__} needs {', '.join(missing)}. {takes}")


def check_whole_number(name: str, value: Any, *, least: int | None = 1) -> None:
    """Refuse what is not a whole number, or less than ``least``.

    Raises:
        TypeError: for another type.
        ValueError: for a smaller number.

    Example:
        >>> from torchrl_ob._checks.arguments import check_whole_number
        >>> check_whole_number("chunk_size", 100.5)
        Traceback (most recent call last):
        ...
        TypeError: chunk_size must be a whole number, got 100.5.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    if least is not None and value < least:
        raise ValueError(f"{name} must be {least} or more, got {value}.")
