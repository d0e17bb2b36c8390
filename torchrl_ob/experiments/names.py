"""Names of task and algorithm of a run, in reports and in loggers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["name_run"]


def name_run(config: Mapping[str, Any], choices: Mapping[str, Any]) -> tuple[str, str]:
    """The task of a run, by its scenario or else its environment and map, and its algorithm, by its advantage.

    Args:
        config: of the run.
        choices: which choice each group of the config was; those that are not known are named by what they build.

    Example:
        >>> from torchrl_ob.experiments.names import name_run
        >>> name_run({"env": {"map_name": "3m"}}, {"env": "smax", "advantage": "ob"})
        ('smax 3m', 'ob')
    """
    env, algorithm = (
        str(choices.get(group) or config[group]["_target_"].split(".")[-1])
        for group in ("env", "advantage")
    )
    of_env = config["env"]
    names = [env, *(str(of_env[key]) for key in ("map_name", "task") if key in of_env)]
    return str(of_env.get("scenario", " ".join(names))), algorithm
