"""The options that a target of the config takes, from its signature."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

__all__ = ["Options", "read_options"]


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
        >>> from torchrl_ob.experiments.config.signatures import read_options
        >>> options = read_options(ClipPPOLoss)
        >>> "clip_epsilon" in options.types, "entropy_coeff" in options.types, options.open
        (True, True, False)
    """
    types: dict[str, Any] = {}
    required: list[str] = []
    rest = True
    for depth, function in enumerate(_functions(target)):
        rest = False
        for parameter in _parameters(function):
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = True
            elif parameter.kind is not parameter.VAR_POSITIONAL and parameter.name not in types:
                types[parameter.name] = _type(parameter.annotation, function)
                if parameter.default is parameter.empty and depth == 0:  # the rest may be handed on
                    required.append(parameter.name)
        if not rest:
            break
    is_class = inspect.isclass(getattr(target, "__self__", target))
    return Options(types, tuple(required), rest and not is_class)


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
    bound = found and found[0].name in ("self", "cls")
    return found[1:] if bound else found


def _type(annotation: Any, function: Any) -> Any:
    if not isinstance(annotation, str):
        return Any if annotation is inspect.Parameter.empty else annotation
    module = sys.modules.get(inspect.unwrap(function).__module__)
    try:
        return eval(annotation, vars(module) if module else {})  # as typing.get_type_hints does
    except Exception:  # a name for type checkers alone
        return Any
