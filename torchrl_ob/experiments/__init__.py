"""Experiments from configs: what ``torchrl-ob train advantage=ob env.scenario=balance`` runs.

:mod:`~torchrl_ob.experiments.loop` shows what happens to a batch, from top to bottom. :func:`load_run` gives what a run
has trained. Needs the ``experiments`` extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchrl_ob.experiments.saved import load_run

__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    if name == "load_run":  # at first use: the command answers --help without torch
        from torchrl_ob.experiments.saved import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
