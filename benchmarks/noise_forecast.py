"""Does the noise of one batch tell which runs a baseline makes faster?

For tasks of ``team_reward.py``, OB trains a team for ten batches of 3,000 frames. On the batches 2, 4, ..., 10, the diagnostic
``noise_scale`` measures, before the update,

- *noise scale, V*: the number of frames at which the gradient is as much noise as signal, with a state value as the baseline;
- *forecast*: the share of the frames that OB saves against V for the same signal.

Both are medians over batches and seeds. *OB - control* is from the learning curves in ``team_reward.json``: the area by which OB is
ahead of GAE with V of the same network, with its interval.

``python benchmarks/noise_forecast.py``, a minute and a half for a seed of a task; ``TASKS=navigation_8,balance_4 SEEDS=0,1,2`` for
others. Prints the table as markdown. ``SMOKE=1`` for a run of seconds.
"""

import os
import statistics
import tempfile
import warnings
from pathlib import Path

import torch
from team_reward import CONTROL, SMOKE, TASKS, chosen, difference, results, run_options

from torchrl_ob.diagnostics import noise_scale
from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.config.overrides import compose_config, read_override
from torchrl_ob.experiments.loop import estimate, improve
from torchrl_ob.train import config_folder

warnings.simplefilter("ignore")
MEASURED = "navigation_8,discovery_5,flocking_4,sampling_4,simple_spread_4,balance_4"
EVERY, BATCHES = (1, 2) if SMOKE else (2, 10)


def measured(task: str, seed: int) -> list[tuple[float, float]]:
    """The noise scale under V in frames, and the share that OB saves, of some batches of a run."""
    found = []
    options = [*run_options(task, "ob", seed), "progress_bar=false"]
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
    scales = [x if x > 0 else float("inf") for x in scale]  # a batch without signal is all noise
    with results() as found:
        lead = difference(found["runs"], task, "ob", CONTROL)
    shown = "{:.3f} [{:.3f}, {:.3f}]".format(*lead) if lead else ""
    return (
        f"| {task} | {statistics.median(scales):,.0f} | {statistics.median(saved):.0%} | {shown} |"
    )


if __name__ == "__main__":
    tasks = chosen("TASKS", TASKS, "navigation_8" if SMOKE else MEASURED)
    seeds = [int(x) for x in os.environ.get("SEEDS", "0").split(",")]
    torch.set_num_threads(1)
    print("| task | noise scale, V, frames | forecast | OB - control |")
    print("| --- " * 4 + "|")
    for task in tasks:
        print(row(task, seeds), flush=True)
