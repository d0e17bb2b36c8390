"""What can be told of a config before anything is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from torchrl_ob.experiments.config.modules import load_object
from torchrl_ob.experiments.config.rules import check_rules
from torchrl_ob.experiments.config.schema import Config, Part
from torchrl_ob.experiments.config.signatures import read_options
from torchrl_ob.experiments.config.values import check_value
from torchrl_ob.experiments.errors import ExperimentError, first_line, nearest

__all__ = ["check_config"]

CONVERSIONS = ("none", "partial", "object", "all")


def check_config(config: DictConfig) -> None:
    """Check that all is there, of its type and in its range, and that the parts fit one another.

    Args:
        config: composed from ``configs/train.yaml``.

    Raises:
        ExperimentError: in one line, with the remedy.
    """
    for name, hint in _hints(Config).items():
        found = config.get(name)  # others are interpolations of what is in these
        if _is_settings(hint) and not isinstance(found, DictConfig):
            raise ExperimentError(_without(name, found))
    try:
        resolved: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise ExperimentError(f"{key}{first_line(error)}.") from error
    _check_settings(resolved, Config, "")
    check_rules(resolved)


def _check_settings(found: Mapping[str, Any], schema: type, prefix: str) -> None:
    hints = _hints(schema)
    _refuse_unknown(found, hints, prefix)
    for name, hint in hints.items():
        key = prefix + name
        if _is_part(hint):
            _check_part(key, found.get(name), hint)
        elif _is_settings(hint):
            if not isinstance(found.get(name), Mapping):
                raise ExperimentError(_without(key, found.get(name)))
            _check_settings(found[name], hint, f"{key}.")
        elif name not in found:
            raise ExperimentError(f"{key} is missing: do not take it away.")
        else:
            check_value(key, found[name], hint)


def _check_part(name: str, part: Any, schema: type[Part]) -> None:
    if schema.null and (part is None or part == {}):
        return
    if not isinstance(part, Mapping):
        remedy = f"; null stands for {name}={schema.null}" if schema.null else ""
        raise ExperimentError(f"{_without(name, part)[:-1]}{remedy}.")
    if "_target_" not in part:
        raise ExperimentError(f"{name} has no _target_, the name of what is built: {_choose(name)}")
    target, key = part["_target_"], f"{name}._target_"
    check_value(key, target, str)
    built = load_object(target, key)
    if not callable(built):
        raise ExperimentError(
            f"{key}={target} is a {type(built).__name__}, and must be a class or a function."
        )
    options = read_options(built)
    hints = {
        **options.types,
        **{k: v for k, v in _hints(schema).items() if k in options.types or options.open},
    }
    for option in schema.by_command:
        if option in part:
            check_value(f"{name}.{option}", part[option], _hints(schema)[option])
    own = {
        option: value
        for option, value in part.items()
        if not option.startswith("_") and option not in schema.by_command
    }
    by_command = {*schema.given, *schema.may_be_given} - set(schema.needed)
    by_position = list(options.types)[: schema.positional]
    for option in own:
        if option in by_command or option in by_position:
            raise ExperimentError(f"{name}.{option} is given by the command: leave it out.")
    if not options.open:
        lacks = [x for x in schema.given if x not in options.types]
        if lacks:
            raise ExperimentError(
                f"{key}={target} is called with {', '.join(schema.given)} by name, and does not take {', '.join(lacks)}: "
                f"add {'it' if len(lacks) == 1 else 'them'} to its arguments."
            )
        _refuse_unknown(
            own,
            {x: None for x in options.types if x not in by_position and x not in by_command},
            f"{name}.",
            target,
        )
    needed = dict.fromkeys([*schema.needed, *options.required[schema.positional :]])
    missing = [x for x in needed if x not in own and (x not in schema.given or x in schema.needed)]
    if missing:
        raise ExperimentError(
            f"{target} needs {', '.join(f'{name}.{x}' for x in missing)}: give {'a value' if len(missing) == 1 else 'values'}."
        )
    for option, value in own.items():
        check_value(f"{name}.{option}", value, hints.get(option, Any))
    _check_frame(name, part, schema)


def _check_frame(name: str, part: Mapping[str, Any], schema: type[Part]) -> None:
    """What Hydra itself reads of a part."""
    partial = part.get("_partial_", False)
    if partial is not schema.partial:
        raise ExperimentError(
            f"{name}._partial_ must be {str(schema.partial).lower()}, got {partial!r}."
        )
    convert = part.get("_convert_", "none")
    if convert not in CONVERSIONS:
        raise ExperimentError(
            f"{name}._convert_ must be one of {', '.join(CONVERSIONS)}, got {convert!r}."
        )
    frame = {"_target_", "_partial_", "_convert_"}
    _refuse_unknown({x: None for x in part if x.startswith("_")}, dict.fromkeys(frame), f"{name}.")


def _refuse_unknown(
    found: Iterable[Any], known: Mapping[str, Any], prefix: str, target: str = ""
) -> None:
    for name in found:
        if name not in known:
            owner = target or (f"{prefix[:-1]} of the config" if prefix else "the config")
            other = " An experiment that sets it is made for another environment." * (
                prefix == "env."
            )
            raise ExperimentError(
                f"{prefix}{name}: {owner} has no {str(name)!r}: {nearest(str(name), known)}{other}"
            )


def _without(name: str, found: Any) -> str:
    if found is None:
        return f"{name} cannot be left out or null: {_choose(name)}"
    return f"{name} must be a group of settings, got {found!r}: {_choose(name)}"


def _choose(name: str) -> str:
    return (
        f"choose with {name}=..., as torchrl-ob list shows."
        if name in _groups()
        else "leave it as it is."
    )


@cache
def _groups() -> frozenset[str]:
    return frozenset(
        {name for name, hint in _hints(Config).items() if _is_part(hint)} | {"evaluation"}
    )


def _is_part(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Part)


def _is_settings(hint: Any) -> bool:
    return dataclasses.is_dataclass(hint) and not _is_part(hint)


def _hints(schema: type) -> dict[str, Any]:
    hints = get_type_hints(schema, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}
