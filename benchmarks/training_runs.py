"""Runs of ``torchrl-ob train`` that a benchmark needs: made if they are missing, read, and averaged over seeds."""

import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
from rliable import library
from scipy.stats import trim_mean

import torchrl_ob.experiments.run  # noqa: F401 - once, and not in every run
from torchrl_ob.diagnostics.scalars import read_scalars
from torchrl_ob.train import main


def trained(folder: Path, *overrides: str) -> Path:
    """The folder of a run, which is made or resumed where it has not come to its end."""
    options = ["progress_bar=false", "resume=auto", f"hydra.run.dir={folder}"]
    if not (folder / "evaluation.json").is_file():
        process = multiprocessing.get_context("fork").Process(
            target=_train, args=([*overrides, *options],)
        )
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"the run in {folder} failed: see its train.log.")
    return folder


def _train(overrides: list[str]) -> None:
    """``torchrl-ob train`` in this process, whose output is left out."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    sys.argv = ["torchrl-ob", "train", *overrides]
    main()


def read_curve(folder: Path, name: str) -> dict[int, float]:
    """A metric of a run by frame."""
    return read_scalars(folder / "metrics" / "scalars" / f"{name}.csv")


def interquartile(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interquartile means over seeds ``[seeds, columns]``, with their intervals."""
    scores, intervals = library.get_interval_estimates(
        {"x": values}, lambda x: trim_mean(x, 0.25, axis=0), reps=5_000
    )
    return scores["x"], *intervals["x"]
