"""How time and memory of an iteration grow with agents and environments.

Times one iteration of the command with ``advantage=ob`` on VMAS's ``balance``, whose observations are as wide for any
number of agents: collection of 100 steps in every environment, the advantage, and one epoch of 15 minibatches. Each size
runs in a process of its own, whose peak memory is measured above that of its imports; the first of the iterations warms up, and medians of the others are printed,
with the exponent of growth from one size to the next: 1 is linear. ``python benchmarks/growth.py``; ``SMOKE=1`` for a run of seconds,
``DEVICE=cuda`` for a GPU, of whose memory the table then is.
"""

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from device import DEVICE, ON_GPU, clock, machine
from hydra import compose, initialize_config_dir

from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.loop import estimate, improve
from torchrl_ob.train import config_folder

SMOKE = os.environ.get("SMOKE") == "1"
STEPS, ITERATIONS, MINIBATCHES = (2, 2, 2) if SMOKE else (100, 3, 15)
AGENTS, ENVS = (3, 2) if SMOKE else (3, 60)
TEAMS = (4,) if SMOKE else (2, 4, 8, 16, 32, 64, 128)
BATCHES = (2,) if SMOKE else (60, 200, 600, 2_000, 6_000)
PARTS = ("collection", "advantage", "epoch")


def measure(agents: int, envs: int) -> dict[str, float]:
    """Seconds of each part of an iteration, and peak memory in MiB above that of the imports."""
    frames = envs * STEPS
    overrides = [
        f"device={DEVICE}",
        "env.scenario=balance",
        f"++env.scenario_kwargs.n_agents={agents}",
        f"env.num_envs={envs}",
        f"env.max_steps={STEPS}",
        f"collector.frames_per_batch={frames}",
        f"trainer.minibatch_size={frames // MINIBATCHES}",
        "trainer.num_epochs=1",
        f"total_frames={frames * ITERATIONS}",
        f"evaluation.num_envs={min(envs, 60)}",
    ]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", overrides)
    before = peak_memory()
    seconds: dict[str, list[float]] = {name: [] for name in PARTS}
    with tempfile.TemporaryDirectory() as folder:
        parts = build(config, Path(folder))
        begun = seconds_so_far()
        for batch in parts.collector:
            collected = seconds_so_far()
            estimate(parts, batch)
            estimated = seconds_so_far()
            improve(parts, batch)
            ended = seconds_so_far()
            laps = (collected - begun, estimated - collected, ended - estimated)
            for name, lap in zip(PARTS, laps, strict=True):
                seconds[name].append(lap)
            begun = seconds_so_far()
        parts.close()
    medians = {name: statistics.median(laps[1:]) for name, laps in seconds.items()}
    return {**medians, "memory": peak_memory() - before}


def seconds_so_far() -> float:
    """Of the device; of the CPU those that the process had, of all threads, however busy the machine is."""
    return clock() if ON_GPU else time.process_time()


def peak_memory() -> float:
    """Of the device, in MiB; of the CPU that of the process."""
    if ON_GPU:
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def table(title: str, sizes: list[tuple[int, int]], grows: int) -> None:
    """Print a row for each size, ``(agents, environments)``, of which the one at ``grows`` grows."""
    print(f"\n| {title} | " + " | ".join(f"{name}, s" for name in PARTS) + " | memory, MiB |")
    print("| --- |" + " --- |" * (len(PARTS) + 1))
    last: tuple[int, dict[str, float]] | None = None
    for size in sizes:
        command = [sys.executable, __file__, *map(str, size)]
        out = subprocess.run(command, capture_output=True, text=True)
        if out.returncode and last is None:
            sys.exit(out.stderr)
        if out.returncode:  # such as for want of memory
            reason = (out.stderr.strip().splitlines() or [f"signal {-out.returncode}"])[-1]
            print(f"| {size[grows]} | ended: {reason} |" + " |" * len(PARTS))
            break
        found = json.loads(out.stdout.splitlines()[-1])
        cells = []
        for name, value in found.items():
            exponent = ""
            if last is not None and min(value, last[1][name]) > 0:
                rate = math.log(value / last[1][name]) / math.log(size[grows] / last[0])
                exponent = f" ({rate:.1f})"
            cells.append(f"{value:.3g}{exponent}")
        print(f"| {size[grows]} | " + " | ".join(cells) + " |", flush=True)
        last = size[grows], found


if __name__ == "__main__":
    if len(sys.argv) == 3:
        warnings.simplefilter("ignore")
        print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
    else:
        print(f"{machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
        print("in parentheses: the exponent of growth from the size before")
        table(f"agents, {ENVS} environments", [(n, ENVS) for n in TEAMS], grows=0)
        table(f"environments, {AGENTS} agents", [(AGENTS, n) for n in BATCHES], grows=1)
