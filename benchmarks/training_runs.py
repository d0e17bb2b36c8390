"""Runs of ``torchrl-ob train`` that a benchmark needs: made where they are missing, and read."""

import csv
import subprocess
import sys
from pathlib import Path


def trained(folder: Path, *overrides: str) -> Path:
    """The folder of a run, which is made or resumed where it has not come to its end."""
    command = [sys.executable, "-m", "torchrl_ob.train", "train", *overrides]
    command += ["progress_bar=false", "resume=auto", f"hydra.run.dir={folder}"]
    if not (folder / "evaluation.json").is_file():
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def read_curve(folder: Path, name: str) -> tuple[list[int], list[float]]:
    """Frames and values of a metric of a run."""
    with (folder / "metrics" / "scalars" / f"{name}.csv").open() as file:
        rows = list(csv.reader(file))
    return [int(frame) for frame, _ in rows], [float(value) for _, value in rows]
