"""TorchRL's own configs of torch's optimisers, as choices of the group ``optimizer``."""

from __future__ import annotations

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
"""Those of ``torchrl.trainers.algorithms.configs`` that step on a gradient alone."""


def register_optimizers() -> None:
    """Let Hydra find :data:`OPTIMIZERS` beside the files of ``configs/optimizer``.

    TorchRL registers every group of its own trainers when its configs are imported; the others,
    of which ours would offer choices that do not fit, are put back as they were.

    Example:
        >>> from hydra.core.config_store import ConfigStore
        >>> from torchrl_ob.experiments.config.optimizers import register_optimizers
        >>> register_optimizers()
        >>> ConfigStore.instance().load("optimizer/sgd.yaml").node._target_
        'torch.optim.SGD'
    """
    store = ConfigStore.instance()
    before = dict(store.repo)
    import torchrl.trainers.algorithms.configs  # noqa: F401

    theirs = dict(store.repo["optimizer"])
    store.repo.clear()
    store.repo.update(before)
    for name in OPTIMIZERS:
        store.store(name=name, group="optimizer", node=theirs[f"{name}.yaml"].node)
