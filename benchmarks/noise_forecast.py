"""Does the noise of one batch tell which runs a baseline makes faster?

For tasks of ``team_reward.py``, OB trains a team for ten batches of 3,000 frames. On the batches 2, 4, ..., 10, the diagnostic
``noise_scale`` measures, before the update,

- *noise scale, V*: the number of frames at which the gradient is as much noise as signal, with a state value as the baseline;
- *forecast*: the share of the frames that OB saves against V for the same signal.

Both are medians over batches and seeds. *measured* is from the learning curves in ``team_reward.json``: the share of the control's
frames that OB does not need to reach the control's last level, where it does; *area* is OB's mean lead over the control.

``python benchmarks/noise_forecast.py [task ...]``, a minute and a half for a seed of a task; ``SEEDS=0,1,2``. Prints the table as
markdown. ``SMOKE=1`` for a run of seconds.
"""

import os
import statistics
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from team_reward import CONTROL, METHODS, SMALL, SMOKE, TASKS, areas, frames_ratio, results

from torchrl_ob.diagnostics import noise_scale
from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.config.overrides import compose_config, read_override
from torchrl_ob.experiments.loop import estimate, improve
from torchrl_ob.train import config_folder

warnings.simplefilter("ignore")
DEFAULT = ["navigation_8", "navigation_16", "sampling_4", "flocking_4", "discovery_5", "balance_4"]
EVERY, BATCHES = (1, 2) if SMOKE else (2, 10)


def measured(task: str, seed: int) -> list[tuple[float, float]]:
    """The noise scale under V in frames, and the share that OB saves, of some batches of a run."""
    about, found = TASKS[task], []
    options = [*about["options"], *about["team"], *METHODS["ob"], *(SMALL if SMOKE else [])]
    options += [f"seed={seed}", "progress_bar=false"]
    with tempfile.TemporaryDirectory() as folder:
        overrides = [read_override(option, config_folder()) for option in options]
        parts = build(compose_config(overrides, config_folder()), Path(folder))
        (learner,) = parts.learners
        for k, batch in enumerate(parts.collector, 1):
            if k % EVERY == 0:
                scale = noise_scale(learner.advantage, batch)
                found.append((scale.frames["v"].value.item(), scale.saved["ob"].value.item()))
            if k == BATCHES:
                break
            estimate(parts, batch)
            improve(parts, batch)
        parts.collector.shutdown()
    return found


def row(task: str, seeds: list[int]) -> str:
    """A row of the table."""
    scale, saved = zip(*(pair for seed in seeds for pair in measured(task, seed)), strict=True)
    scales = sorted(x if x > 0 else float("inf") for x in scale)  # no signal seen: all is noise
    with results() as found:
        runs = found["runs"]
    ratio, ob = frames_ratio(runs, task, "ob"), areas(runs, task, "ob")
    control = areas(runs, task, CONTROL)
    both = ob.keys() & control.keys()
    lead = f"{statistics.mean(ob[x] - control[x] for x in both):.3f}" if both else ""
    share = "" if ratio is None else f"{1 - ratio:.0%}"
    return f"| {task} | {statistics.median(scales):,.0f} | {statistics.median(saved):.0%} | {share} | {lead} |"


if __name__ == "__main__":
    tasks = sys.argv[1:] or DEFAULT[: 1 if SMOKE else None]
    seeds = [int(x) for x in os.environ.get("SEEDS", "0" if SMOKE else "0,1").split(",")]
    torch.set_num_threads(1)
    print("| task | noise scale, V, frames | forecast | measured | area, OB - control |")
    print("| --- " * 5 + "|")
    for task in tasks:
        print(row(task, seeds), flush=True)
