"""The device that a benchmark is of, ``DEVICE``, the CPU by default, and the frames of a batch there, ``FRAMES``."""

import os
import platform
import sys
import time

import torch

DEVICE = os.environ.get("DEVICE", "cpu")
ON_GPU = DEVICE.startswith("cuda")
if ON_GPU and not torch.cuda.is_available():
    sys.exit(f"DEVICE={DEVICE}, and torch {torch.__version__} finds no CUDA device here.")


def scaled(frames: int, minibatch_size: int) -> tuple[int, int]:
    """Frames of a batch, and the size of as many minibatches as there are by default."""
    chosen = int(os.environ.get("FRAMES", frames))
    return chosen, minibatch_size * (chosen // frames)


def clock() -> float:
    """Seconds, after what the device was asked before is done."""
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


def machine() -> str:
    """What the device is, in words."""
    return torch.cuda.get_device_name() if ON_GPU else platform.machine()
