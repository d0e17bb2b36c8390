"""The whole config with the comments of its files, as ``train --help`` prints it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from omegaconf import OmegaConf, open_dict

from torchrl_ob.experiments.config.overrides import compose_config

__all__ = ["Option", "list_options", "read_remark", "write_help"]

LINE = re.compile(
    r"^(?P<indent> *)(?P<name>[\w@/]+):(?: +(?P<value>[^#\s][^#]*?))?(?: +# (?P<comment>.*))?$"
)
HEAD = """torchrl-ob train [-m] [--config-dir FOLDER] [group=choice ...] [name=value ...]

-m sweeps over values with commas; --config-dir names a folder of your own configs; --hydra-help has Hydra's own options.
The choices of each group are printed by torchrl-ob list. What runs, with these overrides:
"""


class Option(NamedTuple):
    """A line of a config: its key with those around it, its value if it has one, and its comment."""

    name: str
    value: str
    comment: str


def list_options(text: str) -> Iterator[Option]:
    r"""The lines of a config that set a key or open a group.

    Example:
        >>> from torchrl_ob.experiments.config.help import list_options
        >>> list(list_options("loss:  # PPO's\n  gamma: 0.9  # discount"))
        [Option(name='loss', value='', comment="PPO's"), Option(name='loss.gamma', value='0.9', comment='discount')]
    """
    path: list[tuple[int, str]] = []
    for match in filter(None, map(LINE.match, text.splitlines())):
        indent = len(match["indent"])
        path = [*((depth, name) for depth, name in path if depth < indent), (indent, match["name"])]
        name = ".".join(name for _, name in path)
        yield Option(name, match["value"] or "", match["comment"] or "")


def read_remark(text: str) -> str:
    """What a config says of itself: the comments before its first line."""
    lines = text.splitlines()
    first = next((k for k, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return " ".join(x.lstrip("# ") for x in lines[:first] if not x.startswith("# @package"))


def read_package(text: str, group: str) -> str:
    """The beginning of the keys that a choice of a group sets: the group, or what its first line names for Hydra."""
    named = re.search(r"^# @package (\S+)", text, re.MULTILINE)
    package = named[1] if named else group
    return "" if package == "_global_" else f"{package}."


def write_help(overrides: Sequence[str], configs: Path, own: str | None = None) -> str:
    """The config that some overrides compose, each key with the comment of the file that it is from.

    Args:
        overrides: as Hydra takes them.
        configs: the folder of the groups.
        own: a folder of the user's own.

    Raises:
        HydraException: where they cannot be composed.
    """
    config = compose_config(overrides, configs, own, return_hydra_config=True)
    choices = dict(config.hydra.runtime.choices)  # which has no lists of choices
    choices |= {key: value for key, _, value in (x.partition("=") for x in overrides)}
    with open_dict(config):
        del config.hydra
    comments = {x.name: x.comment for x in list_options((configs / "train.yaml").read_text())}
    for group in sorted(x.name for x in configs.iterdir() if x.is_dir()):
        for choice in re.findall(r"[\w-]+", str(choices.get(group))):  # one or a list
            for path in _sources(configs / group / f"{choice}.yaml"):
                text = path.read_text()
                prefix = read_package(text, group)
                comments |= {
                    f"{prefix}{x.name}": x.comment for x in list_options(text) if x.comment
                }
                if prefix:
                    remark = f"{group}={path.stem}: {read_remark(text)}"
                    comments[prefix[:-1]] = remark.removesuffix(": ")
    text = OmegaConf.to_yaml(config)
    lines = text.splitlines()
    named = iter(list_options(text))
    for k, line in enumerate(lines):
        if LINE.match(line) and (comment := comments.get(next(named).name)):
            lines[k] = f"{line}  # {comment}"
    return "\n".join([HEAD, *lines])


def _sources(path: Path) -> list[Path]:
    """The file of a choice, after those that it starts from."""
    if not path.is_file():  # of a folder of the user's own, or of no choice
        return []
    names = re.findall(r"^  - (?!_self_)(\w+)$", path.read_text(), re.MULTILINE)
    return [*(x for name in names for x in _sources(path.with_stem(name))), path]
