"""How time and memory of an iteration grow with agents and environments.

Times one iteration of the command with ``advantage=ob`` on VMAS's ``balance``, whose observations are as wide for any
number of agents: collection of 100 steps in every environment, the advantage, and one epoch of 15 minibatches. Each
size runs in a process of its own, whose peak memory is measured above that of its imports; on a CPU, seconds are those
of the process, of all its threads, however busy the machine is. The first of the iterations warms up, and medians of
the others are printed, with the exponent of growth from one size to the next: 1 is linear. ``growth.png`` shows them.
``python benchmarks/growth.py``; ``SMOKE=1`` for a run of seconds, ``DEVICE=cuda`` for a GPU, of whose memory the table
then is.
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

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import torch
from device import DEVICE, ON_GPU, clock, machine

from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.config.overrides import compose_config
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
    config = compose_config(overrides, config_folder())
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


Rows = dict[int, dict[str, float]]
"""What was measured at each size."""


def table(title: str, sizes: list[tuple[int, int]], grows: int) -> Rows:
    """Measure each size, ``(agents, environments)``, of which the one at ``grows`` grows, and print a row for it."""
    print(f"\n| {title} | " + " | ".join(f"{name}, s" for name in PARTS) + " | memory, MiB |")
    print("| --- |" + " --- |" * (len(PARTS) + 1))
    last: tuple[int, dict[str, float]] | None = None
    rows: Rows = {}
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
        rows[size[grows]] = found
    return rows


def draw(tables: dict[str, Rows]) -> None:
    """Draw seconds and memory against the size, both on logarithmic axes, where a line at 45 degrees is linear."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", squeeze=False)
    for panel, (title, rows) in zip(panels[0], tables.items(), strict=True):
        for name in PARTS:
            panel.plot(list(rows), [x[name] for x in rows.values()], marker="o", label=f"{name}, s")
        gibibytes = [x["memory"] / 1024 for x in rows.values()]
        panel.plot(
            list(rows), gibibytes, color="gray", linestyle="--", marker=".", label="memory, GiB"
        )
        panel.set(xscale="log", yscale="log", xlabel=title)
        panel.set_xticks(list(rows), list(map(str, rows)))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0, 0].legend()
    figure.savefig("growth.png", dpi=100)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        warnings.simplefilter("ignore")
        print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]))))
    else:
        print(f"{machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
        print("in parentheses: the exponent of growth from the size before")
        of_agents, of_envs = f"agents, {ENVS} environments", f"environments, {AGENTS} agents"
        agents = table(of_agents, [(n, ENVS) for n in TEAMS], grows=0)
        envs = table(of_envs, [(AGENTS, n) for n in BATCHES], grows=1)
        draw({of_agents: agents, of_envs: envs})
