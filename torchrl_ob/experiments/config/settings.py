"""The settings of a config by key, and those that do not decide the numbers of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

__all__ = ["NOT_TRAINING", "leaves", "read_choice", "walk"]

NOT_TRAINING = ("resume", "checkpoint", "logger", "progress_bar", "rank_timeout")
"""Where and how a run is kept: the first parts of keys."""


def walk(node: Any, key: str = "", *, lists: bool = True) -> Iterator[tuple[str, Any]]:
    """Everything in a nested config by its key, groups before what is in them.

    Args:
        node: the config.
        key: of the config itself.
        lists: go into lists too, by the places in them.

    Example:
        >>> from torchrl_ob.experiments.config.settings import walk
        >>> dict(walk({"env": {"sizes": [3]}}))
        {'env': {'sizes': [3]}, 'env.sizes': [3], 'env.sizes[0]': 3}
    """
    if isinstance(node, Mapping):
        children = [(f"{key}.{name}" if key else str(name), child) for name, child in node.items()]
    else:
        places = enumerate(node) if lists and isinstance(node, list) else ()
        children = [(f"{key}[{place}]", child) for place, child in places]
    for name, child in children:
        yield name, child
        yield from walk(child, name, lists=lists)


def leaves(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a nested config by their keys.

    Example:
        >>> from torchrl_ob.experiments.config.settings import leaves
        >>> leaves({"seed": 0, "env": {"scenario": "balance"}})
        {'seed': 0, 'env.scenario': 'balance'}
    """
    return {k: v for k, v in walk(config, lists=False) if not isinstance(v, Mapping)}


def read_choice(path: Path, *, is_global: bool = False) -> dict[str, Any]:
    """What a file of a folder of configs sets, by key: in the group of its folder, or in what its first line names for Hydra.

    Args:
        path: of the file.
        is_global: whether it sets the whole config.

    Example:
        >>> from torchrl_ob.experiments.config.settings import read_choice
        >>> from torchrl_ob.train import config_folder
        >>> sorted(read_choice(config_folder() / "logger" / "tensorboard.yaml"))
        ['logger.tensorboard._target_', 'logger.tensorboard.exp_name']
    """
    content: Any = OmegaConf.to_container(OmegaConf.load(path)) or {}
    named = re.search(r"^# @package (\S+)", path.read_text(), re.MULTILINE)
    package = named[1] if named else path.parent.name
    return dict(walk(content, "" if is_global or package == "_global_" else package))
