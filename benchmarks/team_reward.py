"""Where credit matters: tasks with a team reward, and what each advantage learns in the same frames.

Every agent is paid the team's mean reward (the setting of arXiv:2108.08612). Methods differ in one thing at a time:

- *gae*: TorchRL's GAE with the state value of its tutorial; *gae_same*, **the control**: GAE with V of the network that Q has
  in the methods below, pooled;
- *streams*: ``experiment=team_reward``, the optimal baseline on each agent's share of the reward, which a model learns;
- *mapg*, *coma*, *ob*: no baseline, COMA's, and the optimal one, on the team's reward; *ob_cv*: OB with control variates;
- *gae_additive*, *ob_additive*: GAE and OB with the additive network;
- *individual*: *gae_same* paid for each agent's own reward, where the task has one: what perfect credit would give.

Paired seeds, batches of 3,000 frames, 15 epochs; what is compared is the mean over the run of the stochastic policy's reward in
100 episodes (the area under the learning curve): interquartile means over seeds of the differences to the control, with 95%
intervals by resampling (rliable).

``python benchmarks/team_reward.py`` makes the runs that ``benchmarks/team_reward.json`` lacks, one after the other, and adds each
to it; several processes may work at once. ``TASKS=navigation_8,balance_4 METHODS=gae_same,ob SEEDS=0,1,2`` for some of
them, two to five minutes on one core each; ``METHODS=ob:advantage.lmbda=0.7:optimizer.lr=5e-4`` for a method with other settings,
which the table compares apart. ``REPORT=1`` makes no runs and writes the summary and the
pictures. ``SMOKE=1`` for a run of seconds, which records nothing.
"""

import fcntl
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from training_runs import interquartile, read_curve, trained

SMOKE = os.environ.get("SMOKE") == "1"
RUNS = Path("runs") / "team_reward"
RESULTS = RUNS / "smoke.json" if SMOKE else Path(__file__).with_suffix(".json")
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "team_reward.png"
CONTROL, DEFAULT = "gae_same", "streams"

VMAS = ["env.num_envs=30", "collector.frames_per_batch=3000", "trainer.num_epochs=15"]
VMAS += ["evaluation.interval=15000", "evaluation.num_envs=100", "checkpoint.interval=15000"]


def vmas(
    scenario: str, num_agents: int, frames: int = 60_000, *more: str, own: str = "", **kwargs: Any
) -> dict[str, Any]:
    """A scenario of VMAS whose agents are paid the mean of their rewards; ``own`` names its own sharing, switched off."""
    options = {"n_agents": num_agents, **kwargs}
    if own:
        options[own] = "false"
    kwargs_ = [f"env.scenario_kwargs.{name}={value}" for name, value in options.items()]
    return {
        "num_agents": num_agents,
        "options": [*VMAS, f"env.scenario={scenario}", *kwargs_, f"total_frames={frames}", *more],
        "team": ["env.shared_reward=true"],
        "individual": True,
        "metric": "reward",
    }


def other(num_agents: int, frames: int, *options: str, metric: str = "reward") -> dict[str, Any]:
    """A task of another library, whose reward is the team's."""
    return {
        "num_agents": num_agents,
        "options": [*options, f"total_frames={frames}"],
        "team": [],
        "individual": False,
        "metric": metric,
    }


SMAX = ["experiment=smax_3m", "env.num_envs=32", "collector.frames_per_batch=3200"]
SMAX += ["trainer.minibatch_size=800", "evaluation.interval=32000", "checkpoint.interval=32000"]
MUJOCO = ["evaluation.interval=40000", "checkpoint.interval=40000"]
TASKS = {
    "navigation_8": vmas("navigation", 8, 45_000, own="shared_rew"),
    "balance_4": vmas("balance", 4),
    # rewards of -9 a step: without the norm no critic explains anything in 60,000 frames
    "simple_spread_4": vmas("simple_spread", 4, 60_000, "loss=mappo", "value_norm=running"),
    "flocking_4": vmas("flocking", 4, 45_000),
    "sampling_4": vmas("sampling", 4, own="shared_rew"),
    "discovery_5": vmas("discovery", 5, own="shared_reward"),
    "wheel_4": vmas("wheel", 4),
    "navigation_16": vmas("navigation", 16, 45_000, own="shared_rew"),
    "dispersion_4": vmas("dispersion", 4, own="share_reward"),
    "transport_4": vmas("transport", 4),
    "smax_3m": other(3, 320_000, *SMAX, metric="win_rate"),
    "smax_2s3z": other(5, 320_000, *SMAX, "env.map_name=2s3z", metric="win_rate"),
    "smax_8m": other(8, 320_000, *SMAX, "env.map_name=8m", metric="win_rate"),
    "lbf_coop": other(2, 200_000, "experiment=lbf", "env.shared_reward=true"),
    "swimmer_2x1": other(2, 160_000, "experiment=mamujoco_swimmer", *MUJOCO),
    "halfcheetah_6x1": other(6, 160_000, "experiment=mamujoco", *MUJOCO),
}
METHODS = {
    "gae_same": ["advantage=gae", "critic=pooled_value"],
    "streams": ["advantage=ob_streams"],
    "ob": ["advantage=ob"],
    "individual": ["advantage=gae", "critic=pooled_value"],
    "gae": ["advantage=gae"],
    "coma": ["advantage=coma"],
    "ob_cv": ["advantage=ob_control_variate"],
    "mapg": ["advantage=mapg"],
    "gae_additive": ["advantage=gae", "critic=additive_value"],
    "ob_additive": ["advantage=ob", "critic=additive"],
}
SMALL = ["collector.frames_per_batch=80", "env.num_envs=4", "env.max_steps=20", "total_frames=160"]
SMALL += ["evaluation.interval=80", "checkpoint.interval=80", "evaluation.num_envs=2"]
SMALL += ["trainer.minibatch_size=40", "trainer.num_epochs=1"]


def chosen(variable: str, known: Any, default: str) -> list[str]:
    """Names in an environment variable, each with settings of its own after colons; all by default."""
    names = os.environ.get(variable, default).split(",")
    if not {name.split(":")[0] for name in names} <= {*known}:
        sys.exit(f"{variable}={','.join(names)}: choose of {', '.join(known)}.")
    return names


@contextmanager
def results(write: bool = False) -> Iterator[dict[str, Any]]:
    """What is in the file of results, which one process at a time may change."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        found = json.loads(file.read() or '{"runs": [], "summary": {}}')
        yield found
        if write:
            file.truncate(0)
            runs = sorted(found["runs"], key=lambda x: (x["task"], x["method"], x["seed"]))
            lines = ",\n  ".join(json.dumps(x) for x in runs)
            summary = ",\n  ".join(
                f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found["summary"].items()
            )
            file.write(f'{{\n"runs": [\n  {lines}\n],\n"summary": {{\n  {summary}\n}}\n}}\n')


def run_options(task: str, method: str, seed: int) -> list[str]:
    """The overrides of a run."""
    about, (name, *settings) = TASKS[task], method.split(":")
    paid = [] if name == "individual" else about["team"]
    small = SMALL if SMOKE else []
    return [*about["options"], *paid, *METHODS[name], *settings, *small, f"seed={seed}"]


def make_run(task: str, method: str, seed: int) -> dict[str, Any]:
    """The learning curve of a run, which is made or resumed where it is not at its end."""
    about = TASKS[task]
    # not fused, as the runs in the file were made: a fused optimizer moves their last digits
    options = ["optimizer.fused=false", *run_options(task, method, seed)]
    folder = trained(RUNS / task / re.sub(r"[^\w.-]", "_", f"{method}-{seed}"), *options)
    curve = read_curve(folder, f"eval/stochastic_{about['metric']}")
    frames, values = list(curve), list(curve.values())
    area = np.trapezoid(values, frames) / (frames[-1] - frames[0])
    return {
        "task": task,
        "num_agents": about["num_agents"],
        "method": method,
        "seed": seed,
        "auc": round(float(area), 5),
        "curve": {str(frame): round(value, 5) for frame, value in curve.items()},
    }


def areas(runs: list[dict[str, Any]], task: str, method: str) -> dict[int, float]:
    """The areas of a method by seed."""
    return {x["seed"]: x["auc"] for x in runs if x["task"] == task and x["method"] == method}


def difference(
    runs: list[dict[str, Any]], task: str, method: str, other: str
) -> list[float] | None:
    """Interquartile mean of paired differences of the area, and its interval; None with fewer than two seeds."""
    mine, theirs = areas(runs, task, method), areas(runs, task, other)
    seeds = sorted(mine.keys() & theirs.keys())
    if len(seeds) < 2:
        return None
    found = interquartile(np.array([[mine[seed] - theirs[seed]] for seed in seeds]))
    return [round(float(x[0]), 4) for x in found]


def frames_ratio(runs: list[dict[str, Any]], task: str) -> float | None:
    """Frames in which the default reaches the control's last level, over those of the run; means over seeds."""
    seeds = areas(runs, task, CONTROL).keys() & areas(runs, task, DEFAULT).keys()
    curves = {
        name: [
            x["curve"]
            for x in runs
            if x["task"] == task and x["method"] == name and x["seed"] in seeds
        ]
        for name in (CONTROL, DEFAULT)
    }
    if not all(curves.values()):
        return None
    frames = [int(frame) for frame in curves[CONTROL][0]]
    theirs, mine = (np.mean([[*x.values()] for x in curves[m]], 0) for m in (CONTROL, DEFAULT))
    reached = np.maximum.accumulate(mine)
    if reached[-1] < theirs[-1]:
        return None
    return round(float(np.interp(theirs[-1], reached, frames) / frames[-1]), 3)


def summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """For each task the default and every method against the control."""
    summary = {}
    runs = [x for x in runs if x["method"] in METHODS]
    for task in dict.fromkeys(x["task"] for x in runs):
        lead = difference(runs, task, DEFAULT, CONTROL)
        seeds = areas(runs, task, "individual").keys() & areas(runs, task, DEFAULT).keys()
        same = [x for x in runs if x["seed"] in seeds]  # the gap and what closes it
        gap, part = (difference(same, task, x, CONTROL) for x in ("individual", DEFAULT))
        closed = part[0] / gap[0] if gap and part and gap[1] > 0 else None
        methods = dict.fromkeys(x["method"] for x in runs if x["task"] == task)
        summary[task] = {
            "ob_minus_control": lead,
            "gap_closed": closed and round(closed, 3),
            "frames_ratio": frames_ratio(runs, task),
            "minus_control": {
                x: difference(runs, task, x, CONTROL) for x in methods if x != CONTROL
            },
        }
    return summary


def print_settings(runs: list[dict[str, Any]]) -> None:
    """Mean areas of methods with other settings, and of the same methods and seeds with the library's, as markdown."""
    tuned = [x for x in runs if x["method"] not in METHODS]
    tasks = list(dict.fromkeys(x["task"] for x in tuned))
    seeds = {x["seed"] for x in tuned}
    print("| method | " + " | ".join(tasks) + " |")
    print("| --- " * (len(tasks) + 1) + "|")
    names = {x["method"].split(":")[0] for x in tuned} | {x["method"] for x in tuned}
    for method in sorted(names):
        cells = []
        for task in tasks:
            found = [area for seed, area in areas(runs, task, method).items() if seed in seeds]
            cells.append(f"{np.mean(found):.3f} ({len(found)})" if found else "")
        print("| " + " | ".join([method, *cells]) + " |")


def print_table(runs: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    """The summary as markdown: mean areas where there is one seed, else interquartile means of paired differences."""
    methods = [x for x in METHODS if x != CONTROL and any(run["method"] == x for run in runs)]
    titles = [f"{x} - {CONTROL}" for x in methods]
    print("| task | seeds | " + " | ".join([CONTROL, *titles, "gap closed", "frames"]) + " |")
    print("| --- " * (len(titles) + 5) + "|")
    for task, about in summary.items():
        control = areas(runs, task, CONTROL)
        pairs = len(control.keys() & areas(runs, task, DEFAULT).keys())
        cells = [task, str(pairs), f"{np.mean([*control.values()]):.3f}" if control else ""]
        for method in methods:
            lead = about["minus_control"].get(method)
            text = "{:.3f} [{:.3f}, {:.3f}]".format(*lead) if lead else ""
            paired = areas(runs, task, method).keys() & control.keys()
            if not lead and len(paired) == 1:
                (seed,) = paired
                text = f"{areas(runs, task, method)[seed] - control[seed]:.3f} (one seed)"
            cells.append(text)
        for name in ("gap_closed", "frames_ratio"):
            cells.append("" if about[name] is None else f"{about[name]:.2f}")
        print("| " + " | ".join(cells) + " |")


def draw(runs: list[dict[str, Any]]) -> None:
    """The interquartile mean of each method with its interval, a panel for each task."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(x["task"] for x in runs if x["method"] in METHODS))
    rows = (len(tasks) + 1) // 2
    figure, axes = plt.subplots(
        rows, 2, figsize=(10, 3.5 * rows), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(tasks) :]:
        axis.remove()
    for axis, task in zip(axes.flat, tasks, strict=False):
        for k, method in enumerate(METHODS):
            curves = [x["curve"] for x in runs if x["task"] == task and x["method"] == method]
            if not curves:
                continue
            frames = [int(frame) / 1_000 for frame in curves[0]]
            middle, low, high = interquartile(np.array([[*x.values()] for x in curves]))
            axis.plot(frames, middle, color=f"C{k}", label=f"{method} ({len(curves)})")
            axis.fill_between(frames, low, high, color=f"C{k}", alpha=0.15)
        axis.set(title=task, xlabel="thousand frames", ylabel=TASKS[task]["metric"])
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small", title="method (seeds)")
    figure.savefig(RUNS / "smoke.png" if SMOKE else PICTURE, dpi=100)


if __name__ == "__main__":
    tasks = chosen("TASKS", TASKS, "navigation_8" if SMOKE else ",".join(TASKS))
    methods = chosen("METHODS", METHODS, f"{CONTROL},{DEFAULT}" if SMOKE else ",".join(METHODS))
    seeds = [int(x) for x in os.environ.get("SEEDS", "0" if SMOKE else "0,1,2,3,4").split(",")]
    wanted = [(task, method, seed) for seed in seeds for task in tasks for method in methods]
    for task, method, seed in wanted if os.environ.get("REPORT") != "1" else ():
        if method == "individual" and not TASKS[task]["individual"]:
            continue
        lock = RUNS / task / f"{method}-{seed}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another process is at it
                continue
            with results() as found:
                done = {(x["task"], x["method"], x["seed"]) for x in found["runs"]}
            if (task, method, seed) not in done:
                run = make_run(task, method, seed)
                with results(write=True) as found:
                    found["runs"].append(run)
                print(f"{task} {method} seed {seed}: {run['auc']:.3f}", flush=True)
    with results(write=True) as found:
        found["summary"] = summarize(found["runs"])
    draw(found["runs"])
    print_table(found["runs"], found["summary"])
    if any(x["method"] not in METHODS for x in found["runs"]):
        print_settings(found["runs"])
