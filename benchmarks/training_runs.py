"""Runs of ``torchrl-ob train`` that a benchmark needs: made where they are missing, and read."""

import subprocess
import sys
from pathlib import Path

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
