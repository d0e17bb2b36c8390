"""Compare three advantages: nine runs, one report
===============================================

The question is that of this library: does a team learn faster with the optimal baseline than with COMA's baseline, or
with GAE and a state value? One lucky curve would not tell, so each advantage is trained from three seeds. A seed
gives all three the same initial actor and the same starts, and every policy is evaluated on the same hundred
episodes.

Two commands do this, and this script only calls them::

    torchrl-ob train -m advantage=ob,coma,gae seed=0,1,2 ...
    torchrl-ob report runs/compare_advantages

Run it with ``python tutorials/compare_advantages.py``. It takes about four minutes on two CPU cores. If you stop and
restart it, it continues where it was; once it is finished, it only reports.
"""

import os
import subprocess
import sys
from pathlib import Path

SMOKE = os.environ.get("SMOKE") == "1"  # a run of seconds that learns nothing
FOLDER = Path("runs") / "compare_advantages"


def torchrl_ob(*arguments: str) -> None:
    """The console command, with this script's own Python."""
    print("torchrl-ob", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "torchrl_ob.train", *arguments], check=True)


# %%
# Nine runs
# ---------
#
# Whatever follows -m is swept: commas separate the choices, and each combination becomes a run. ``torchrl-ob list``
# shows what else can be swapped, and ``torchrl-ob train --help`` what can be set.
sizes = [
    "experiment=navigation",
    "total_frames=30000",  # steps of the team
    "collector.frames_per_batch=3000",
    "trainer.num_epochs=15",
    "trainer.minibatch_size=300",
    "evaluation.interval=3000",
    "checkpoint.interval=15000",
]
torchrl_ob(
    "train",
    "-m",
    "advantage=ob,gae" if SMOKE else "advantage=ob,coma,gae",
    "seed=0" if SMOKE else "seed=0,1,2",
    *(["experiment=smoke"] if SMOKE else sizes),
    "resume=auto",
    "progress_bar=false",
    f"hydra.sweep.dir={FOLDER}/runs",
    "hydra.sweep.subdir='${hydra:runtime.choices.advantage}-${seed}'",
)

# %%
# One report
# ----------
#
# The report shows the reward over frames as an interquartile mean with intervals by resampling, a table, and the
# probability that a run of one advantage is better than a run of another. Three seeds give wide intervals: if they
# overlap, this experiment does not tell the advantages apart. Expect that here: on navigation, the three tie.
# :doc:`/concepts/limits` has the reasons.
torchrl_ob("report", str(FOLDER / "runs"), "--output", str(FOLDER / "report"))
