"""Runs of ``torchrl-ob train`` that a benchmark needs: made if they are missing, read, and averaged over seeds."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from rliable import library
from scipy.stats import trim_mean

from torchrl_ob.diagnostics.scalars import read_scalars


def trained(folder: Path, *overrides: str) -> Path:
    """The folder of a run, which is made or resumed where it has not come to its end."""
    command = [sys.executable, "-m", "torchrl_ob.train", "train", *overrides]
    command += ["progress_bar=false", "resume=auto", f"hydra.run.dir={folder}"]
    if not (folder / "evaluation.json").is_file():
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def read_curve(folder: Path, name: str) -> dict[int, float]:
    """A metric of a run by frame."""
    return read_scalars(folder / "metrics" / "scalars" / f"{name}.csv")


def interquartile(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interquartile means over seeds ``[seeds, columns]``, with their intervals."""
    scores, intervals = library.get_interval_estimates(
        {"x": values}, lambda x: trim_mean(x, 0.25, axis=0), reps=5_000
    )
    return scores["x"], *intervals["x"]
