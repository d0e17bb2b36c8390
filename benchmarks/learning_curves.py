"""Learning curves beyond VMAS with OB: SMAX, foraging, a MuJoCo robot, and COMA on discrete navigation.

Trains each experiment as it stands (MuJoCo's for its first 160,000 frames), one seed, an hour of one core in all, and
draws the evaluation of the stochastic policy into docs/images/learning_curves.png; frame 0 is the untrained one.
Runs that are already in ``runs/learning_curves`` are resumed. ``SMOKE=1`` for a few batches of
two of them, which draws into ``runs``.
"""

import os
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from training_runs import read_curve, trained

SMOKE = os.environ.get("SMOKE") == "1"
ROOT = Path(__file__).resolve().parents[1]
RUNS = Path("runs") / "learning_curves"
MEASURES = {  # what is drawn of each experiment, and its name
    "smax_3m": ("win_rate", "SMAX 3m, battles won"),
    "lbf": ("reward", "foraging, reward of a player (at most 0.5)"),
    "mamujoco": ("reward", "HalfCheetah 6x1, reward"),
    "coma": ("reward", "COMA, navigation, reward"),
    "coma_ob": ("reward", "COMA with OB, navigation, reward"),
}
if SMOKE:
    MEASURES = {name: MEASURES[name] for name in ("lbf", "coma")}
OPTIONS = {"mamujoco": ["total_frames=160_000", "evaluation.interval=40_000"]}
SHORT = ["collector.frames_per_batch=400", "env.num_envs=4", "env.max_steps=20"]
SHORT += ["total_frames=800", "evaluation.interval=400", "checkpoint.interval=400"]
SHORT += ["evaluation.num_envs=2", "trainer.minibatch_size=400"]


def curve(experiment: str) -> dict[int, float]:
    """Evaluations of a run by frame, which is made where there is none."""
    options = [*OPTIONS.get(experiment, []), *(SHORT if SMOKE else [])]
    folder = trained(RUNS / experiment, f"experiment={experiment}", *options)
    return read_curve(folder, f"eval/stochastic_{MEASURES[experiment][0]}")


if __name__ == "__main__":
    rows = (len(MEASURES) + 1) // 2
    figure, axes = plt.subplots(
        rows, 2, figsize=(10, 3.5 * rows), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(MEASURES) :]:
        axis.remove()
    for axis, (experiment, (_, title)) in zip(axes.flat, MEASURES.items(), strict=False):
        frames, values = zip(*curve(experiment).items(), strict=True)
        axis.plot([frame / 1_000 for frame in frames], values, marker=".")
        axis.set(title=title, xlabel="thousand frames", ylabel=title.rpartition(", ")[2])
        axis.grid(alpha=0.3)
        print(f"{title}: {values[0]:.2f} untrained, {values[-1]:.2f} after {frames[-1]:,} frames")
    figure.savefig((RUNS if SMOKE else ROOT / "docs" / "images") / "learning_curves.png", dpi=100)
