"""A disk that is full: one line says so, and the run goes on from the checkpoint before."""

import resource
import sys
import time

import pytest
import torch
from scripts import start_command
from tensordict import TensorDict

from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.update import require_finite_losses

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits a running process")


def start(folder, *overrides):
    """A run of four batches, in which a write beyond a limit fails: Python ignores the signal of it."""
    overrides = ["experiment=smoke", "env.scenario=balance", "device=cpu", "progress_bar=false"]
    options = ["total_frames=1600", "resume=auto", f"hydra.run.dir={folder}", *overrides]
    return start_command("train", *overrides, *options)


def results(folder):
    scalars = folder / "metrics" / "scalars"
    files = [
        *(x for x in scalars.rglob("*.csv") if x.parent.name != "timer"),
        folder / "evaluation.json",
    ]
    return {path.relative_to(folder): path.read_text() for path in files}


def checkpoints(folder):
    return sorted(folder.glob("checkpoints/checkpoint-*"))


def test_a_full_disk_is_told_in_one_line_and_costs_no_more_than_the_batch(tmp_path):
    undisturbed, filled = tmp_path / "undisturbed", tmp_path / "filled"
    left = undisturbed / "metrics" / "scalars" / "train" / "reward.csv"
    left.parent.mkdir(parents=True)
    left.write_text("200,1.0\n")  # by a run that was killed before its first checkpoint
    process = start(undisturbed)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors

    process = start(filled)
    while not checkpoints(filled):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    room = 100_000  # for metrics, and not for a checkpoint
    assert checkpoints(filled)[0].stat().st_size > 2 * room
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room, room))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    told = errors.splitlines()[-1]
    assert told.startswith("torchrl-ob: cannot write the checkpoint of frame")
    assert "MiB free on the disk" in told
    assert f"{checkpoints(filled)[-1]} is whole" in told
    assert told.endswith("continue with resume=auto.")
    assert "Traceback" not in errors

    process = start(filled)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "resumed from" in out
    assert "cannot be read" not in out
    assert results(filled) == results(undisturbed)


def test_a_metric_that_finds_no_room_is_told_in_one_line(tmp_path):
    process = start(tmp_path, "checkpoint.interval=1600")
    metric = tmp_path / "metrics" / "scalars" / "train" / "reward.csv"
    while not (metric.exists() and metric.stat().st_size):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    room = metric.stat().st_size + 5  # for less than another line
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room, room))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    told = errors.splitlines()[-1]
    assert told.startswith("torchrl-ob: cannot write the metric '")
    assert told.endswith("(File too large): make room, and continue with resume=auto.")
    assert "Traceback" not in errors


def test_a_minibatch_that_finds_no_room_hides_no_cause(tmp_path):
    batch, losses = TensorDict(x=torch.ones(2)), TensorDict(loss_objective=torch.tensor(torch.nan))
    with pytest.raises(ExperimentError, match=r"loss_objective is not finite: .* not be saved"):
        require_finite_losses(losses, batch, {}, tmp_path / "nowhere")
