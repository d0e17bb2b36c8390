"""What is wrong with an override of the command line, in one line and with the nearest names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf

from torchrl_ob.experiments.errors import ExperimentError, first_line, nearest

__all__ = ["explain", "read_override"]

NULL = {"logger": "none", "scheduler": "constant", "value_norm": "none", "experiment": ""}
"""The choices that null stands for: nothing is built. A run needs the other groups."""


def read_override(argument: str, configs: Path) -> str:
    """An argument of the command line as Hydra takes it.

    Arguments of a scenario are not in the config until they are given, and ``GROUP=null`` is its empty choice.

    Args:
        argument: as it was given.
        configs: the folder of the groups.

    Returns:
        The override; the empty text for none.

    Raises:
        ExperimentError: for a group that a run needs, and a choice that is no name.

    Example:
        >>> from torchrl_ob.experiments.config.overrides import read_override
        >>> from torchrl_ob.train import config_folder
        >>> read_override("logger=null", config_folder())
        'logger=none'
    """
    argument = re.sub(r"^(?=env\.(scenario_kwargs|transforms)[.=])", "++", argument)
    group, equals, choice = argument.partition("=")
    if not equals or not group or not (configs / group).is_dir():
        return argument
    choices = [x.stem for x in (configs / group).glob("*.yaml")]
    if choice == "null" and group in NULL:
        return f"{group}={NULL[group]}" if NULL[group] else ""
    if choice.lower() in ("null", "true", "false", "") or re.fullmatch(
        r"[-+\d.]+(e[-+]?\d+)?|nan|-?inf", choice
    ):
        raise ExperimentError(
            f"{argument}: {group} takes the name of a choice: {nearest(choice, choices)}"
        )
    return argument


def explain(error: HydraException, configs: Path) -> str:
    """Hydra's error in one line.

    Args:
        error: from composing the config.
        configs: the folder of the groups.

    Returns:
        The line: for a mistyped choice or key, with the names most like it.

    Example:
        >>> from hydra.errors import ConfigCompositionException
        >>> from torchrl_ob.experiments.config.overrides import explain
        >>> from torchrl_ob.train import config_folder
        >>> error = ConfigCompositionException("Could not override 'optimizer.rl'.")
        >>> explain(error, config_folder())
        "the config has no 'optimizer.rl': did you mean 'optimizer.lr' or 'optimizer' or 'optimizer.eps'?"
    """
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if group == "hydra/launcher" and choice == "joblib":
            return "hydra/launcher=joblib needs its plugin: pip install 'torchrl-ob[sweeps]'"
        return f"{group} has no choice {choice!r}: {nearest(choice, error.options)}"
    if isinstance(error, OverrideParseException):
        choices = sorted(configs.glob("*/*.yaml"))
        groups = [x.parent.name for x in choices if x.stem == error.override]
        if groups:
            return f"{error.override!r} is written {' or '.join(f'{x}={error.override}' for x in groups)}"
        key, equals, value = str(error.override).partition("=")
        if equals and value:
            quoted = shlex.quote(f'{key}="{value}"')
            return (
                f"cannot read {error.override!r}: a value with any of = , [ ] {{ }} ( ) or a letter beyond ASCII stands "
                f"in quotes, {quoted} in a shell."
            )
        return f"cannot read the override {error.override!r}, of the form key=value."
    message = str(error)
    if "Ambiguous value" in message:
        both = "; for one run with several experiments write experiment=[one,other]"
        more = both if "experiment" in message else ""
        return f"{first_line(message)}: to sweep over several values give -m too{more}; one value with a comma stands in quotes, 'key=\"a,b\"'"
    unknown = re.search(r"Could not (?:override|delete from config\.) '([^']+)'", message)
    if unknown is None:
        return first_line(message)
    name, names = unknown[1], _names(configs)
    if name in names:
        group = name.split(".")[0]
        if name == group:
            stems = sorted(x.stem for x in (configs / group).glob("*.yaml"))
            return f"{group} is a group: choose one of its choices by name, {', '.join(stems)}"
        of = [
            x.stem
            for x in sorted((configs / group).glob("*.yaml"))
            if name in _list_names(x, configs)
        ]
        return f"{name!r} belongs to {' or '.join(f'{group}={x}' for x in of)}: take it, or leave the override out"
    under = {x for x in names if x.endswith(f".{name}")}
    return f"the config has no {name!r}: {nearest(name, under or names)}"


def _names(configs: Path) -> set[str]:
    """Everything that can be overridden: groups, and the keys of any choice."""
    names = {path.name for path in configs.iterdir() if path.is_dir()}
    for path in configs.rglob("*.yaml"):
        names.update(_list_names(path, configs))
    return names


def _list_names(path: Path, configs: Path) -> set[str]:
    is_global = path.parent == configs or "@package _global_" in path.read_text()
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    return set(_keys(content or {}, "" if is_global else f"{path.parent.name}."))


def _keys(node: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in node.items():
        if key in ("defaults", "hydra") or key.startswith("_"):
            continue
        yield prefix + key
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{key}.")
