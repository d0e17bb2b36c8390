"""Does a critic of the joint action learn faster: MAPPO with OB and the dueling critic against MAPPO with GAE.

Paired seeds on VMAS tasks, at equal frames: *gae* with TorchRL's state value; *q*, OB with the joint critic that is the
default; *additive*, OB with the additive critic; *v*, the dueling critic whose action part is never fitted (a state value of the
same network, to tell the network from the baseline); *ob*, ``experiment=dueling``. Batches are of 1,500 frames, a quarter of the tutorial's, with as many
updates: larger ones leave little noise to remove. *double* is GAE with twice the frames in each batch: what half of the variance
is worth, at most. What is compared is the mean episode reward over the 20 batches of a run
(the area under the learning curve): interquartile means over seeds, and of the differences of the same seed, with 95%
intervals by resampling (rliable). The curves are drawn into ``runs/dueling_learning.png``.

``python benchmarks/dueling_learning.py [scenario ...]``: five by default, 150 runs of two minutes on one core
each; ``METHODS=gae,ob`` for some of the methods, ``SEEDS=10`` for more. Runs that are already in ``runs/dueling_learning`` are kept.
``SMOKE=1`` for two runs of seconds.
"""

import os
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from training_runs import interquartile, read_curve, trained

SMOKE = os.environ.get("SMOKE") == "1"
RUNS = Path("runs") / "dueling_learning"
SEEDS = range(1 if SMOKE else int(os.environ.get("SEEDS", "5")))
SCENARIOS = ("navigation", "balance", "flocking", "give_way", "simple_spread")
GAE = ["advantage=gae", "loss=mappo", "value_norm=popart"]
METHODS = {
    "gae": GAE,
    "double": GAE,
    "q": ["advantage=ob", "loss=mappo", "value_norm=popart"],
    "additive": ["advantage=ob", "critic=additive", "loss=mappo", "value_norm=popart"],
    "v": ["experiment=dueling", "advantage=ob", "trainer.dueling_fit.effect_epochs=0"],
    "ob": ["experiment=dueling"],
}
chosen = os.environ.get("METHODS", "gae,ob" if SMOKE else ",".join(METHODS)).split(",")
if "ob" not in chosen or not METHODS.keys() >= {*chosen}:
    sys.exit(
        f"METHODS={','.join(chosen)}: name ob, and what it is compared with, of {', '.join(METHODS)}."
    )
METHODS = {method: METHODS[method] for method in chosen}


def sizes(envs: int) -> list[str]:
    """Twenty batches of a hundred steps of each environment, in fifteen minibatches."""
    frames = 100 * envs
    values = {"env.num_envs": envs, "collector.frames_per_batch": frames}
    values |= dict.fromkeys(
        ("total_frames", "checkpoint.interval", "evaluation.interval"), 20 * frames
    )
    values |= dict.fromkeys(
        ("trainer.minibatch_size", "trainer.dueling_fit.minibatch_size"), frames // 15
    )
    return [f"{name}={value}" for name, value in values.items()]


if SMOKE:
    SMALL = ["collector.frames_per_batch=80", "env.num_envs=4", "env.max_steps=20"]
    SMALL += ["total_frames=160", "evaluation.interval=80", "checkpoint.interval=80"]
    SMALL += ["evaluation.num_envs=2", "trainer.minibatch_size=40", "trainer.num_epochs=1"]


def curve(scenario: str, method: str, seed: int) -> list[float]:
    """Episode reward of each batch of a run, which is made where there is none."""
    size = SMALL if SMOKE else sizes(30 if method == "double" else 15)
    options = [*METHODS[method], *size, f"env.scenario={scenario}", "scheduler=constant"]
    if scenario != "give_way":  # which has its own number of agents
        options.append("env.scenario_kwargs.n_agents=4")
    folder = trained(RUNS / scenario / f"{method}-{seed}", *options, f"seed={seed}")
    return [*read_curve(folder, "train/episode_reward").values()]


def estimate(values: np.ndarray) -> str:
    """Interquartile mean over seeds with its interval, as text."""
    value, low, high = (x[0] for x in interquartile(values[:, None]))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def draw(curves: dict[str, dict[str, np.ndarray]]) -> None:
    """The interquartile mean of each method with its interval, a panel for each task."""
    rows = (len(curves) + 1) // 2
    figure, axes = plt.subplots(
        rows, 2, figsize=(10, 3.5 * rows), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(curves) :]:
        axis.remove()
    for axis, (scenario, methods) in zip(axes.flat, curves.items(), strict=False):
        for method, rewards in methods.items():
            color = f"C{[*METHODS].index(method)}"
            batches = np.arange(1, rewards.shape[1] + 1)
            middle, low, high = interquartile(rewards)
            axis.plot(batches, middle, color=color, label=method)
            axis.fill_between(batches, low, high, color=color, alpha=0.2)
        axis.set(title=scenario, xlabel="batch", ylabel="episode reward")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(RUNS.with_suffix(".png"), dpi=100)


if __name__ == "__main__":
    others = [f"ob - {method}" for method in METHODS if method != "ob"]
    print("| task | " + " | ".join([*METHODS, *others]) + " |")
    print("| --- " * (1 + len(METHODS) + len(others)) + "|")
    curves = {}
    for scenario in sys.argv[1:] or (SCENARIOS[:1] if SMOKE else SCENARIOS):
        curves[scenario] = {
            method: np.array([curve(scenario, method, seed) for seed in SEEDS])
            for method in METHODS
        }
        areas = {method: rewards.mean(1) for method, rewards in curves[scenario].items()}
        cells = [estimate(values) for values in areas.values()]
        cells += [estimate(areas["ob"] - areas[x]) for x in METHODS if x != "ob"]
        print(f"| {scenario} | " + " | ".join(cells) + " |", flush=True)
    draw(curves)
