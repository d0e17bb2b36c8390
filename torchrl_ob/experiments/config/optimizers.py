"""Torch's optimizers as choices of the group ``optimizer``, with their options and defaults."""

from __future__ import annotations

import inspect

from hydra.core.config_store import ConfigStore

__all__ = ["OPTIMIZERS", "register_optimizers"]

OPTIMIZERS = (
    "adadelta",
    "adagrad",
    "adamax",
    "adamw",
    "asgd",
    "nadam",
    "radam",
    "rmsprop",
    "rprop",
    "sgd",
)
"""Those of ``torch.optim`` that step on a gradient alone."""


def register_optimizers() -> None:
    """Let Hydra find :data:`OPTIMIZERS` beside the files of ``configs/optimizer``.

    Example:
        >>> from hydra.core.config_store import ConfigStore
        >>> from torchrl_ob.experiments.config.optimizers import register_optimizers
        >>> register_optimizers()
        >>> ConfigStore.instance().load("optimizer/sgd.yaml").node._target_
        'torch.optim.SGD'
    """
    from torch import optim  # not for the names of the choices

    kinds = {name.lower(): kind for name, kind in vars(optim).items() if isinstance(kind, type)}
    for name in OPTIMIZERS:
        options = inspect.signature(kinds[name]).parameters.values()
        node = {x.name: x.default for x in options if x.default is not x.empty}
        node |= {"_target_": f"torch.optim.{kinds[name].__name__}", "_partial_": True}
        ConfigStore.instance().store(name=name, group="optimizer", node=node)
