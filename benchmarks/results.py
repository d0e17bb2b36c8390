"""The figures of the benchmarks by name, in ``results.json`` beside the scripts."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from device import DEVICE

PATH = Path(__file__).parent / "results.json"


def record(name: str, value: float, **about: Any) -> None:
    """Put a figure in ``results.json``, with versions and threads, where it was measured on the CPU.

    A smoke run leaves it alone, and so does one on a GPU, whose place is the page of the GPU.

    Args:
        name: of the figure.
        value: the figure.
        **about: its sizes and its spread.
    """
    if os.environ.get("SMOKE") == "1" or DEVICE != "cpu":
        return
    figures = json.loads(PATH.read_text()) if PATH.exists() else {}
    figures[name] = {
        "value": value,
        **about,
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
        **{package: version(package) for package in ("torch", "tensordict", "torchrl", "vmas")},
    }
    PATH.write_text(json.dumps(dict(sorted(figures.items())), indent=2) + "\n")


if __name__ == "__main__":
    figures = json.loads(PATH.read_text()) if PATH.exists() else {}
    for name, figure in figures.items():
        print(f"{name:32} {figure['value']:.4g}")
