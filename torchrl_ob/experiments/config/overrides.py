"""Overrides of the command line: as Hydra takes them, what is wrong with one, and as the name of a folder."""

from __future__ import annotations

import argparse
import hashlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from torchrl_ob.experiments.config.settings import read_choice, walk
from torchrl_ob.experiments.errors import ExperimentError, first_line, nearest

__all__ = ["compose_config", "explain", "find_config_dir", "folder_name", "read_override"]

NULL = {"logger": "none", "scheduler": "constant", "value_norm": "none", "experiment": ""}
"""The choices that null stands for: nothing is built. A run needs the other groups."""

NO_NAME = re.compile(r"null|true|false||[-+\d.]+(e[-+]?\d+)?|nan|-?inf", re.IGNORECASE)
"""What is no name of a choice."""

HIDDEN = re.compile(r"(^|\.)(_|defaults\b|hydra\b)")
"""In a key that is Hydra's and not of the config."""

LONGEST = 200
"""Bytes of a folder's name. File systems take 255; the rest is for what is written beside a folder of that name."""


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
    argument = re.sub(r"^(?=env\.(scenario_kwargs|shared_reward|transforms)[.=])", "++", argument)
    group, equals, choice = argument.partition("=")
    if not equals or not group or not (configs / group).is_dir():
        return argument
    if choice == "null" and group in NULL:
        return f"{group}={NULL[group]}" if NULL[group] else ""
    if NO_NAME.fullmatch(choice):
        near = nearest(choice, _choices(configs, group))
        raise ExperimentError(f"{argument}: {group} takes the name of a choice: {near}")
    return argument


def explain(error: HydraException, configs: Path, overrides: Sequence[str] = ()) -> str:
    """Hydra's error in one line.

    Args:
        error: from composing the config.
        configs: the folder of the groups.
        overrides: of which it was composed: what they choose has the names that are suggested.

    Returns:
        The line: for a mistyped choice or key, with the names most like it.

    Example:
        >>> from hydra.errors import ConfigCompositionException
        >>> from torchrl_ob.experiments.config.overrides import explain
        >>> from torchrl_ob.train import config_folder
        >>> error = ConfigCompositionException("Could not override 'optimizer.rl'.")
        >>> explain(error, config_folder())
        "the config has no 'optimizer.rl': did you mean 'optimizer.lr' or 'optimizer.eps' or 'optimizer.fused'?"
    """
    message = first_line(error)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        if (group, choice) == ("hydra/launcher", "joblib"):
            return "hydra/launcher=joblib needs its plugin: pip install 'torchrl-ob[sweeps]'"
        near = nearest(choice, error.options)
        if (configs / group).is_dir() and not find_config_dir(overrides):
            near += " Configs of your own need --config-dir FOLDER."
        return f"{group} has no choice {choice!r}: {near}"
    if isinstance(error, OverrideParseException):
        return _explain_text(str(error.override), configs)
    if "Ambiguous value" in message:
        both = "; for one run with several experiments write experiment=[one,other]"
        more = both if "experiment" in message else ""
        return f"{message}: to sweep over several values give -m too{more}; one value with a comma stands in quotes, 'key=\"a,b\"'"
    unknown = re.search(r"Could not (?:override|delete from config\.) '([^']+)'", message)
    return _explain_key(unknown[1], configs, overrides) if unknown else message


def _explain_text(override: str, configs: Path) -> str:
    """What cannot be read."""
    groups = sorted(x.parent.name for x in configs.glob("*/*.yaml") if x.stem == override)
    if groups:
        return f"{override!r} is written {' or '.join(f'{x}={override}' for x in groups)}"
    key, _, value = override.partition("=")
    if not value:
        return f"cannot read the override {override!r}, of the form key=value."
    quoted = shlex.quote(f'{key}="{value}"')
    return (
        f"cannot read {override!r}: a value with any of = , [ ] {{ }} ( ) or a letter beyond ASCII stands in quotes, "
        f"{quoted} in a shell."
    )


def _explain_key(name: str, configs: Path, overrides: Sequence[str]) -> str:
    """What cannot be overridden: another choice's key, a group as a whole, or a name that is mistyped."""
    keys = {
        path: {
            x for x in read_choice(path, is_global=path.parent == configs) if not HIDDEN.search(x)
        }
        for path in sorted(configs.rglob("*.yaml"))
    }
    groups = {path.parent.name for path in keys if path.parent != configs}
    if name in groups:
        return f"{name} is a group: choose one of its choices by name, {', '.join(_choices(configs, name))}"
    group = name.split(".")[0]
    of = [
        f"{group}={path.stem}" for path in keys if path.parent.name == group and name in keys[path]
    ]
    if of:
        return f"{name!r} belongs to {' or '.join(of)}: choose that, or leave the override out"
    try:
        names = groups | _composed_names(configs, overrides)
    except HydraException:  # of a sweep over choices in Hydra's own words
        names = groups.union(*keys.values())
    if "." in name:
        names = {x for x in names if "." in x}
    under = {x for x in names if x.endswith(f".{name}")}
    near = nearest(name, under or names)
    siblings = {x for x in names if x.startswith(f"{group}.")}
    if not under and not near.startswith("did you mean"):
        near = nearest(name, siblings or names.union(*keys.values()))
    if group == "env" and "env.scenario_kwargs" in names:
        near += f" An argument of the scenario is env.scenario_kwargs.{name.partition('.')[2]}."
    return f"the config has no {name!r}: {near}"


def _composed_names(configs: Path, overrides: Sequence[str]) -> set[str]:
    """The keys of the config that some overrides choose the parts of."""
    own = find_config_dir(overrides)
    folders = [configs, *([Path(own)] if own else [])]
    choices = []
    for override in overrides:
        group, equals, choice = override.partition("=")
        if equals and any((x / group).is_dir() for x in folders):
            # the first of a sweep
            choices.append(override if choice.startswith("[") else override.partition(",")[0])
    composed = OmegaConf.to_container(compose_config(choices, configs, own), resolve=False)
    return {key for key, _ in walk(composed, lists=False) if not HIDDEN.search(key)}


def compose_config(
    overrides: Sequence[str], configs: Path, own: str | None = None, **options: Any
) -> DictConfig:
    """The config that some overrides compose.

    Args:
        overrides: as Hydra takes them.
        configs: the folder of the groups.
        own: a folder of the user's own.
        **options: of Hydra's ``compose``.

    Raises:
        HydraException: where they cannot be composed.
    """
    more = [f"hydra.searchpath=[file://{Path(own).absolute()}]"] if own else []
    with initialize_config_dir(str(configs), version_base="1.3"):
        return compose("train", [*overrides, *more], **options)


def find_config_dir(arguments: Sequence[str]) -> str | None:
    """The folder that ``--config-dir`` names.

    Example:
        >>> from torchrl_ob.experiments.config.overrides import find_config_dir
        >>> find_config_dir(["-m", "--config-dir=mine", "env=meet"])
        'mine'
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd")
    return parser.parse_known_args(arguments)[0].config_dir


def _choices(configs: Path, group: str) -> list[str]:
    return sorted(x.stem for x in (configs / group).glob("*.yaml"))


def folder_name(overrides: str) -> str:
    """The overrides of a run as the name of its folder, which a file system takes whatever they are.

    Names that are too long are cut, and a slash is a dash; a hash of the whole then tells such names apart.

    Args:
        overrides: such as ``"advantage=ob,seed=0"``.

    Example:
        >>> from torchrl_ob.experiments.config.overrides import folder_name
        >>> folder_name("advantage=ob,seed=0")
        'advantage=ob,seed=0'
        >>> folder_name("env.scenario=games/mine.py,seed=0")
        'env.scenario=games-mine.py,seed=0-d244caae'
    """
    name = overrides.replace("/", "-").replace("\0", "-")
    kept = name.encode()[:LONGEST].decode(errors="ignore")
    if kept == overrides and overrides not in (".", ".."):
        return overrides
    return f"{kept}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"


# where this is imported, in the processes of a launcher too, configs can say ${folder_name:...}
OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
