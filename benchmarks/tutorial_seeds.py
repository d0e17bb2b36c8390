"""The learning curve of the navigation tutorial over seeds, as the README shows it.

Runs ``tutorials/vmas_navigation_ob.py`` once for each seed and draws every curve and their mean to
``runs/navigation_seeds.png``. ``python benchmarks/tutorial_seeds.py [seeds]``: 5 seeds by default, two
minutes each on two cores; ``SMOKE=1`` for a run of seconds.
"""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import torch

TUTORIAL = Path(__file__).parent.parent / "tutorials" / "vmas_navigation_ob.py"
PICTURE = Path("runs") / "navigation_seeds.png"


def learning_curve(seed: int) -> list[float]:
    """Mean episode reward of each batch of one run of the tutorial."""
    out = subprocess.run(
        [sys.executable, str(TUTORIAL)],
        env={**os.environ, "SEED": str(seed)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    line = next(x for x in out.splitlines() if x.startswith("mean episode reward of each batch:"))
    return [float(x) for x in line.split(":")[1].split()]


def draw(curves: torch.Tensor) -> None:
    """Every seed's curve ``[seeds, batches]`` and their mean."""
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    batches = range(1, curves.shape[1] + 1)
    axes.plot(batches, curves.T, color="tab:blue", alpha=0.3)
    axes.plot(batches, curves.mean(0), color="tab:blue", marker="o", label="mean of the seeds")
    axes.set(title="VMAS navigation, 3 agents, MAPPO with the optimal baseline")
    axes.set(xlabel="batch of 6,000 frames", ylabel="mean episode reward")
    axes.grid(alpha=0.3)
    axes.legend()
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=120)


if __name__ == "__main__":
    seeds = range(int(sys.argv[1]) if sys.argv[1:] else 1 if os.environ.get("SMOKE") == "1" else 5)
    rows = []
    for seed in seeds:
        rows.append(learning_curve(seed))
        print(f"seed {seed}:", *(f"{reward:6.2f}" for reward in rows[-1]), flush=True)
    curves = torch.tensor(rows)
    print("mean:  ", *(f"{reward:6.2f}" for reward in curves.mean(0)))
    print("lowest:", *(f"{reward:6.2f}" for reward in curves.amin(0)))
    draw(curves)
    print(f"picture: {PICTURE}")
