"""The options of a part of the config: what its target takes, and whether a value is of its type."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Unpack, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn

from torchrl_ob.experiments.errors import ExperimentError

__all__ = ["Options", "check_value", "read_options"]

STRICT = ConfigDict(strict=True, allow_inf_nan=False)
WORDS = {
    "bool_type": "true or false",
    "dict_type": "keys with values, {key: value}",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "none_required": "null",
    "string_type": "a text",
}
"""What pydantic expects, in the words of a YAML file."""


@dataclass(frozen=True)
class Options:
    """What can be given by name: a type for each, those without a default, and whether any other goes."""

    types: dict[str, Any]  # Any where nothing is known of it
    required: tuple[str, ...]
    open: bool


def read_options(target: Any) -> Options:
    """The options of a class, a function or a class's method.

    ``**kwargs`` of a class are those of its parents, and of a class method those of the class.

    Args:
        target: what the config names.

    Example:
        >>> from torchrl.objectives import ClipPPOLoss
        >>> from torchrl_ob.experiments.config.options import read_options
        >>> options = read_options(ClipPPOLoss)
        >>> "clip_epsilon" in options.types, "entropy_coeff" in options.types, options.open
        (True, True, False)
    """
    found: dict[str, Any] = {}
    required: list[str] = []
    rest = True
    for depth, function in enumerate(_functions(target)):
        rest = False
        for parameter in _parameters(function):
            hint = _evaluate(parameter.annotation, function)
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = get_origin(hint) is not Unpack
                found |= {} if rest else get_type_hints(get_args(hint)[0])
            elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.name not in found:
                found[parameter.name] = hint
                if parameter.default is parameter.empty and depth == 0:  # the rest may be handed on
                    required.append(parameter.name)
        if not rest:
            break
    is_class = inspect.isclass(getattr(target, "__self__", target))
    return Options(found, tuple(required), rest and not is_class)


def _functions(target: Any) -> Iterator[Any]:
    """The function that is called, and those that it may hand further arguments on to."""
    kind = target
    if inspect.ismethod(target):
        yield target.__func__
        kind = target.__self__
    elif not inspect.isclass(target):
        yield target
    if inspect.isclass(kind):
        for parent in kind.__mro__:
            if parent not in (nn.Module, object) and "__init__" in parent.__dict__:
                yield parent.__dict__["__init__"]


def _parameters(function: Any) -> list[inspect.Parameter]:
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # of compiled code
        return []
    return found[1:] if found and found[0].name in ("self", "cls") else found


def _evaluate(annotation: Any, function: Any) -> Any:
    """A type; not by ``get_type_hints``, which gives up on all where one is a name for type checkers alone."""
    if not isinstance(annotation, str):
        return Any if annotation is inspect.Parameter.empty else annotation
    module = sys.modules.get(inspect.unwrap(function).__module__)
    try:
        return eval(annotation, vars(module) if module else {})
    except Exception:
        return Any


def check_value(key: str, value: Any, hint: Any) -> None:
    """Refuse a value that is not of a type.

    Args:
        key: of the config, for the message.
        value: as it stands in the config, resolved.
        hint: a type as pydantic takes it, strictly. A class that a config cannot hold says nothing beside one that it
            can; alone it allows everything.

    Raises:
        ExperimentError: in one line.

    Example:
        >>> from typing import Annotated
        >>> from pydantic import Field
        >>> from torchrl_ob.experiments.config.options import check_value
        >>> check_value("trainer.clip_norm", -1, Annotated[float, Field(gt=0)] | None)
        Traceback (most recent call last):
        torchrl_ob.experiments.errors.ExperimentError: trainer.clip_norm must be greater than 0, or null for none, got -1.
    """
    plain = _plain(hint)
    if plain is None or (isinstance(value, Mapping) and "_target_" in value):
        return  # an object is checked by its own part
    try:
        _adapter(plain).validate_python(value)
    except ValidationError as error:
        words = list(dict.fromkeys(map(_words, error.errors())))
        null = ", or null for none" if type(None) in get_args(plain) else ""
        found = "null" if value is None else repr(value)
        raise ExperimentError(f"{key} must be {' or '.join(words)}{null}, got {found}.") from error


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=STRICT)


def _words(error: Any) -> str:
    words = WORDS.get(error["type"], error["msg"].removeprefix("Input should be "))
    return f"a list, each {words}" if any(isinstance(x, int) for x in error["loc"]) else words


def _plain(hint: Any) -> Any:
    """What of a type a config can hold; nothing where that is unknown."""
    origin = get_origin(hint) or hint
    if origin in (Annotated, Literal, bool, int, float, str, type(None)):
        return hint
    if origin in (typing.Union, types.UnionType):
        members = [x for x in map(_plain, get_args(hint)) if x is not None]
        return typing.Union[tuple(members)] if members else None  # noqa: UP007
    if origin in (list, tuple, Sequence):
        member = _plain(typing.Union[tuple(x for x in get_args(hint) if x is not ...) or Any])  # noqa: UP007
        return types.GenericAlias(list, (Any if member is None else member,))
    return dict[Any, Any] if origin in (dict, Mapping) else None
