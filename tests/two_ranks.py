"""What two ranks learn, written to a folder, and a run without end; `torchrun --nproc-per-node=2 two_ranks.py FOLDER`."""

import os
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch
from short_runs import configure
from smacv2_stand_in import install

from torchrl_ob.experiments import loop
from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.ranks import is_first, joined, rank
from torchrl_ob.experiments.run import run

# no Adam, whose first steps have the length of the learning rate however small a gradient is
# and no entropy, which is drawn
PLAIN = (
    "loss.entropy_coeff=0.0",
    "optimizer._target_=torch.optim.SGD",
    "~optimizer.eps",
    "optimizer.lr=0.2",
)
SMALL = ("trainer.clip_norm=0.1", "trainer.minibatch_size=50", *PLAIN)
FALL = ("env=smacv2", "env.map_name=3m", "env.parallel=false")
REMEMBER = ("policy=gru", "critic=pooled_gru", "trainer.sequence_length=5")
CASES = {
    "agents apart": SMALL,
    "compiled": (*SMALL, "trainer.compile=true"),
    "agents together": (*SMALL, "loss.normalize_advantage_exclude_dims=[]"),
    "agents that fall": (*SMALL, *FALL),
    "a slow copy of the critic": (
        *("loss=reinforce", "trainer.num_epochs=1", "trainer.minibatch_size=200"),
        *PLAIN[1:],
    ),
    "a team that remembers": (*SMALL, *FALL, *REMEMBER),
}


def in_order(batch, keys, size, length=None):
    """Minibatches without a shuffle."""
    shape, size = ((-1,), size) if length is None else ((-1, length), size // length)
    yield from batch.select(*keys, strict=False).reshape(*shape).split(size)


def flat_weights(parts):
    """Of all networks and their slow copies."""
    return torch.cat([x.flatten().double() for x in parts.loss.state_dict().values()])


def learn(name, folder):
    parts, found = build(configure(*CASES[name]), folder), {"batches": []}
    found["before"] = flat_weights(parts)
    for batch in parts.collector:
        loop.estimate(parts, batch)
        found["batches"].append(batch.clone())
        loop.improve(parts, batch)
        if len(found["batches"]) == 2:
            break
    found["after"] = flat_weights(parts)
    parts.close()
    torch.save(found, folder / f"{name} {rank()}.pt")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    with joined(60):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "minibatches", in_order)
            install(patch, folder / f"game {rank()}")
            for name in CASES:
                learn(name, folder)
        run(configure(*REMEMBER), folder / "whole")
        if is_first():
            shutil.copytree(folder / "whole", folder / "resumed")
            (folder / "resumed" / "checkpoints" / "checkpoint-000000000400.torchrl").unlink()
            (folder / "resumed" / "evaluation.json").unlink()
        run(configure(*REMEMBER, "resume=auto"), folder / "resumed")
        (folder / f"process {rank()}").write_text(str(os.getpid()))
        try:
            run(configure("total_frames=40000"), folder / "endless")
        except ExperimentError as error:
            sys.exit(f"torchrl-ob: {error}")
