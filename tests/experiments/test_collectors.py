"""Collection in several processes: the same batches, the newest weights, and nothing left behind."""

import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from scripts import start_command

from torchrl_ob.experiments.build import build, build_evaluation, training_config
from torchrl_ob.experiments.checkpoints import resume
from torchrl_ob.experiments.config.check import check_config
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.loop import estimate, improve, train
from torchrl_ob.train import config_folder

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
    pytest.mark.filterwarnings("ignore:Force limits not specified:UserWarning"),
]

OVERRIDES = (
    "experiment=smoke",
    "collector=multi_sync",
    "progress_bar=false",
    "device=cpu",
    "optimizer.lr=0.003",
)


def configure(*overrides):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", [*OVERRIDES, *overrides])


@contextmanager
def built(folder, config):
    parts = build(config, folder)
    try:
        yield parts
    finally:
        parts.close()


def batches(folder, *overrides):
    with built(folder, configure(*overrides)) as parts:
        return list(parts.collector)


def comes_from(batch, actor):
    """Whether the actor gives the actions the probabilities that are in the batch."""
    action, found = batch["agents", "action"], batch["agents", "action_log_prob"]
    with torch.no_grad():
        expected = actor.get_dist(batch.clone()).log_prob(action)
    exact = action.abs().amax(-1) < 0.99  # at its bounds the inverse of the tanh is not
    assert exact.float().mean() > 0.5
    return torch.allclose(expected[exact], found[exact], atol=1e-2)


def test_workers_give_the_batches_of_one_process_from_other_seeds(tmp_path):
    one, workers, again = (
        batches(tmp_path, f"collector={name}") for name in ("single", "multi_sync", "multi_sync")
    )
    for k in range(2):
        assert workers[k].shape == one[k].shape == (10, 20)
        assert workers[k].names == one[k].names == [None, "time"]
        assert set(workers[k].keys(True, True)) == set(one[k].keys(True, True))
        assert workers[k]["step_count"].equal(one[k]["step_count"])
        for key in (("agents", "observation"), ("agents", "action")):
            assert workers[k][key].equal(again[k][key])
            assert not workers[k][key].equal(one[k][key])
            assert not workers[k][key][:5].equal(workers[k][key][5:])


def test_workers_act_on_the_newest_weights(tmp_path):
    config = configure("total_frames=600")
    untrained, seen = build_evaluation(config).policy, []
    with built(tmp_path, config) as parts:
        for batch in parts.collector:
            seen.append((comes_from(batch, parts.actor), comes_from(batch, untrained)))
            estimate(parts, batch)
            improve(parts, batch)
    assert seen == [(True, True), (True, False), (True, False)]


def test_a_resumed_run_goes_on_with_the_saved_weights_in_other_episodes(tmp_path):
    config, seen = configure(), []
    with built(tmp_path, config) as parts:
        compute = parts.advantage.forward
        parts.advantage.forward = lambda batch: seen.append(batch.clone()) or compute(batch)
        train(parts)
    sorted((tmp_path / "checkpoints").iterdir())[-1].unlink()  # of the end
    with built(tmp_path, config) as parts:
        with pytest.warns(UserWarning, match="episodes begin anew"):
            resume(parts, tmp_path / "checkpoints", training_config(config))
        assert parts.progress.frames == 200
        (batch,) = parts.collector  # the second of two
    assert comes_from(batch, parts.actor)
    assert not comes_from(batch, build_evaluation(config).policy)
    starts = [x["agents", "observation"][:, 0] for x in (*seen, batch)]
    assert not starts[2].equal(starts[0])
    assert not starts[2].equal(starts[1])


def test_environments_must_share_out_among_the_workers():
    with pytest.raises(ExperimentError, match=r"num_envs=10 must be a multiple of .*workers=3"):
        check_config(configure("collector.num_workers=3"))


def start(folder, *overrides):
    return start_command("train", *OVERRIDES, f"hydra.run.dir={folder}", *overrides)


def alive(session):
    """Processes of a session that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = path.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # it ended meanwhile
            continue
        if int(of) == session and state != "Z":
            found.append(path.parent.name)
    return found


def nothing_is_left(session):
    patience = time.monotonic() + 20
    while alive(session) and time.monotonic() < patience:
        time.sleep(0.1)
    return not alive(session)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
class TestProcessesEnd:
    @pytest.fixture
    def running(self, tmp_path):
        """A run that has written a checkpoint and would go on for long."""
        process = start(tmp_path, "total_frames=200000")
        patience = time.monotonic() + 60
        while not any(tmp_path.glob("checkpoints/checkpoint-*")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < patience
            time.sleep(0.05)
        assert len(alive(process.pid)) >= 3  # itself and two workers
        yield process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    def test_after_an_error_once_they_have_started(self, tmp_path):
        process = start(tmp_path, "+scheduler.nothing=1")
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "nothing" in errors.splitlines()[-1]
        assert nothing_is_left(process.pid)

    def test_after_ctrl_c_and_the_batch_is_whole(self, running):
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        out, errors = running.communicate(timeout=60)
        assert running.returncode == 130, errors
        assert "stopped and saved at frame" in out
        assert nothing_is_left(running.pid)

    def test_after_a_kill(self, running):
        running.kill()
        running.communicate(timeout=60)
        assert nothing_is_left(running.pid)
