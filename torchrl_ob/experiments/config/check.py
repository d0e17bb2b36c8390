"""What can be told of a config before anything is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from torchrl_ob.experiments.config.modules import load_object
from torchrl_ob.experiments.config.options import check_value, read_options
from torchrl_ob.experiments.config.rules import check_rules
from torchrl_ob.experiments.config.schema import CONFIG, Part
from torchrl_ob.experiments.errors import ExperimentError, first_line, nearest

__all__ = ["check_config"]

FRAME = {"_target_": str, "_convert_": Literal["none", "partial", "object", "all"]}
PARTIAL = {True: Literal[True], False: Literal[False]}
"""What Hydra itself reads of a part."""


def check_config(config: DictConfig) -> None:
    """Check that all is there, of its type and in its range, and that the parts fit one another.

    Args:
        config: composed from ``configs/train.yaml``.

    Raises:
        ExperimentError: in one line, with the remedy.
    """
    for name, schema in CONFIG.items():
        if isinstance(schema, dict):  # others are interpolations of what is in these
            _require_group(name, config.get(name))
    try:
        resolved: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise ExperimentError(f"{key}{first_line(error)}.") from error
    _check_settings(resolved, CONFIG, "")
    check_rules(resolved)


def _check_settings(found: Mapping[str, Any], schema: Mapping[str, Any], prefix: str) -> None:
    owner = f"{prefix[:-1]} of the config" if prefix else "the config"
    _refuse_unknown(found, schema, prefix, owner)
    for name, hint in schema.items():
        key, value = prefix + name, found.get(name)
        if isinstance(hint, Part) and hint.several:
            _check_several(key, value, hint)
        elif isinstance(hint, Part):
            _check_part(key, value, hint)
        elif isinstance(hint, dict):
            _require_group(key, value)
            _check_settings(found[name], hint, f"{key}.")
        elif name not in found:
            raise ExperimentError(f"{key} is missing: do not take it away.")
        else:
            check_value(key, value, hint)


def _check_several(name: str, parts: Any, schema: Part) -> None:
    _require_group(name, {} if parts is None else parts)
    if "_target_" in (parts or {}):
        raise ExperimentError(
            f"{name}._target_: each {name} has a name: begin its file with '# @package {name}.NAME'."
        )
    for each, part in (parts or {}).items():
        _check_part(f"{name}.{each}", part, schema)


def _check_part(name: str, part: Any, schema: Part) -> None:
    if schema.null and (part is None or part == {}):
        return
    _require_group(name, part, schema.null)
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
    positional = list(options.types)[: schema.positional]
    lacks = [] if options.open else [x for x in schema.given if x not in options.types]
    if lacks:
        raise ExperimentError(
            f"{key}={target} is called with {', '.join(schema.given)} by name, and does not take {', '.join(lacks)}: "
            "add what is lacking to its arguments."
        )
    given = {*positional, *schema.given, *schema.may_be_given} - {*schema.needed}
    for option in part:
        if option in given and option not in schema.by_command:
            raise ExperimentError(f"{name}.{option} is given by the command: leave it out.")
    ranges = {k: v for k, v in schema.ranges.items() if options.open or k in options.types}
    known = {k: v for k, v in (options.types | ranges).items() if k not in given}
    known |= {**schema.by_command, **FRAME, "_partial_": PARTIAL[schema.partial]}
    closed = [x for x in part if not options.open or str(x).startswith("_")]
    _refuse_unknown(closed, known, f"{name}.", target)
    required = [x for x in options.required[schema.positional :] if x not in given]
    missing = [x for x in dict.fromkeys([*schema.needed, *required]) if x not in part]
    if missing:
        lacking = ", ".join(f"{name}.{x}" for x in missing)
        raise ExperimentError(f"{target} needs {lacking}: give each a value.")
    for option, value in {"_partial_": False, **part}.items():
        check_value(f"{name}.{option}", value, known.get(option, Any))


def _refuse_unknown(found: Iterable[Any], known: Iterable[str], prefix: str, owner: str) -> None:
    for name in found:
        if name not in known:
            near = nearest(str(name), [x for x in known if not x.startswith("_")])
            if prefix == "env.":
                near += " An experiment that sets it is made for another environment."
            raise ExperimentError(f"{prefix}{name}: {owner} has no {str(name)!r}: {near}")


def _require_group(name: str, found: Any, null: str = "") -> None:
    if found is None:
        raise ExperimentError(f"{name} cannot be left out or null: {_choose(name)}")
    if not isinstance(found, Mapping | DictConfig):
        remedy = f" Null stands for {name}={null}." if null else ""
        raise ExperimentError(
            f"{name} must be a group of settings, got {found!r}: {_choose(name)}{remedy}"
        )


def _choose(name: str) -> str:
    if isinstance(CONFIG.get(name), Part) or name == "evaluation":
        return f"choose with {name}=..., as torchrl-ob list shows."
    return "leave it as it is."
