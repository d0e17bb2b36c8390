"""The settings of a run by key, and those that do not decide its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["NOT_TRAINING", "leaves"]

NOT_TRAINING = ("resume", "checkpoint", "logger", "progress_bar")
"""Where and how a run is kept: the first parts of keys."""


def leaves(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a nested config by their keys.

    Example:
        >>> from torchrl_ob.experiments.config.settings import leaves
        >>> leaves({"seed": 0, "env": {"scenario": "balance"}})
        {'seed': 0, 'env.scenario': 'balance'}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found.update(leaves(value, f"{prefix}{key}."))
        else:
            found[prefix + key] = value
    return found
