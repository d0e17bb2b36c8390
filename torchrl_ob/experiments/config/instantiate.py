"""Building a part of the config; what cannot be built is told in one line."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from torchrl_ob.experiments.errors import ExperimentError, first_line

__all__ = ["call", "make"]


def make(config: DictConfig, *arguments: Any, **options: Any) -> Any:
    """What a part of the config builds; why it cannot, without Hydra's frame around it."""
    try:
        return instantiate(config, *arguments, **options)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ExperimentError | ModuleNotFoundError | None):
            raise (cause or error) from error
        raise ExperimentError(_line(config, cause)) from error


def call(config: DictConfig, *arguments: Any, **options: Any) -> Any:
    """What a partial part of the config makes of arguments; why it cannot, in one line."""
    part = make(config)
    try:
        return part(*arguments, **options)
    except ExperimentError:
        raise
    except Exception as error:
        raise ExperimentError(_line(config, error)) from error


def _line(config: DictConfig, error: BaseException) -> str:
    return f"{config._target_}: {type(error).__name__}: {first_line(error)}"
