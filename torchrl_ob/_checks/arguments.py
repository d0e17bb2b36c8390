"""Wrong arguments of a constructor: told with the class that was called and the nearest name."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from numbers import Integral
from typing import Any, get_args


class NamedArguments:
    """Base of classes whose wrong arguments are refused by the name of the class and the nearest argument.

    Example:
        >>> from torchrl_ob._checks.arguments import NamedArguments
        >>> class Shape(NamedArguments):
        ...     def __init__(self, *, width: int, height: int = 1) -> None: ...
        >>> Shape(widht=3)
        Traceback (most recent call last):
        ...
        TypeError: Shape has no argument 'widht': did you mean 'width'? It takes width, height.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Refuse arguments that no constructor takes; a copy is made without any."""
        if args or kwargs:
            _check_arguments(cls, args, kwargs)
        return super().__new__(cls)


def _check_arguments(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse arguments that the constructor of a class, or one that it hands the others on to, does not take."""
    known: dict[str, inspect.Parameter] = {}
    for owner in cls.__mro__:
        if "__init__" not in owner.__dict__:
            continue
        parameters = list(inspect.signature(owner.__dict__["__init__"]).parameters.values())[1:]
        named = [x for x in parameters if x.kind not in (x.VAR_POSITIONAL, x.VAR_KEYWORD)]
        known = {x.name: x for x in named} | known
        if not any(x.kind is x.VAR_KEYWORD for x in parameters):
            break
    takes = f"It takes {', '.join(known)}."
    for name in (x for x in kwargs if x not in known):
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f": did you mean {near[0]!r}?" if near else "."
        raise TypeError(f"{cls.__name__} has no argument {name!r}{hint} {takes}")
    places = [x.name for x in known.values() if x.kind is not x.KEYWORD_ONLY]
    if len(args) > len(places):
        most = f"at most {len(places)} arguments by position" if places else "arguments by name"
        raise TypeError(f"{cls.__name__} takes {most}, got {len(args)}. {takes}")
    given = {*kwargs, *places[: len(args)]}
    missing = [x.name for x in known.values() if x.default is x.empty and x.name not in given]
    if missing:
        raise TypeError(f"{cls.__name__} needs {', '.join(missing)}. {takes}")


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Refuse what is none of the names of a ``Literal``.

    Raises:
        ValueError: naming the choices.
    """
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {get_args(choices)}, got {value!r}.")


def check_whole_number(
    name: str, value: Any, *, least: int | None = 1, or_none: bool = False
) -> None:
    """Refuse what is not a whole number, or less than ``least``; with ``or_none`` nothing will do too.

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
    if value is None and or_none:
        return
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    if least is not None and value < least:
        raise ValueError(f"{name} must be {least} or more, got {value}.")
