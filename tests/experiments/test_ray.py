"""Collection by Ray: the batches of one process, the newest weights, and lost workers that are told."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from short_runs import SMOKE, configure, ignored_warnings

from torchrl_ob.experiments.build import build, build_evaluation, training_config
from torchrl_ob.experiments.checkpoints import resume
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.loop import batches, estimate, improve

ray = pytest.importorskip("ray", reason="needs the extra: pip install 'torchrl-ob[ray]'")
pytestmark = [*ignored_warnings, pytest.mark.slow]
LEARN = ("total_frames=600", "optimizer.lr=0.003")
LEARN += ("policy=gru", "critic=pooled_gru", "trainer.sequence_length=5")  # states travel too
RAY = ("collector=ray", *LEARN)


@pytest.fixture(scope="module")
def runtime():
    """Ray, for several collectors one after the other, whose workers find this checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(x for x in sys.path if x))
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def comes_from(batch, actor):
    """Whether the actor gives the actions the probabilities that are in the batch."""
    action, found = batch["agents", "action"], batch["agents", "action_log_prob"]
    with torch.no_grad():
        expected = actor.get_dist(batch.clone()).log_prob(action)
    exact = action.abs().amax(-1) < 0.99  # at its bounds the inverse of the tanh is not
    assert exact.float().mean() > 0.5
    return torch.allclose(expected[exact], found[exact], atol=1e-2)


@pytest.fixture(scope="module")
def trained(runtime, tmp_path_factory):
    """Three batches of a run, what the actor thought of each, and the folder with its state after two."""
    folder, config = tmp_path_factory.mktemp("run"), configure(*RAY)
    untrained, seen, on_policy = build_evaluation(config).policy, [], []
    parts = build(config, folder)
    try:
        for batch in batches(parts):
            seen.append(batch.clone())
            on_policy.append((comes_from(batch, parts.actor), comes_from(batch, untrained)))
            with torch.no_grad():
                again = parts.critic.memory(batch.clone())["agents", "critic_features"]
            torch.testing.assert_close(again, batch["agents", "critic_features"])
            estimate(parts, batch)
            improve(parts, batch)
            parts.progress.frames += batch.numel()
            if len(seen) == 2:
                parts.save()
    finally:
        parts.close()
    return seen, on_policy, folder


def test_batches_are_those_of_one_process(trained, tmp_path):
    first = trained[0][0]
    parts = build(configure(*LEARN), tmp_path)
    batch = next(iter(parts.collector))
    parts.close()
    assert batch.shape == first.shape == (10, 20)
    assert batch.names == first.names == [None, "time"]
    assert set(batch.keys(True, True)) == set(first.keys(True, True))
    assert batch["step_count"].equal(first["step_count"])
    for key in (("agents", "observation"), ("agents", "action")):
        assert not first[key][:5, 0].equal(first[key][5:, 0])  # the other worker's


def test_workers_act_on_the_newest_weights(trained):
    assert trained[1] == [(True, True), (True, False), (True, False)]


def test_a_seed_repeats_a_resume_goes_on_and_late_workers_are_told(trained, tmp_path):
    seen, _, folder = trained
    config = configure(*RAY)
    parts = build(config, tmp_path)
    try:
        first = next(batches(parts))
        for key in (("agents", "observation"), ("agents", "action")):
            assert first[key].equal(seen[0][key])
        with pytest.warns(UserWarning, match="episodes begin anew"):
            resume(parts, folder / "checkpoints", training_config(config))
        assert parts.progress.frames == 400
        (batch,) = batches(parts)  # the last of three, with the saved weights in other episodes
        assert comes_from(batch, parts.actor)
        assert not comes_from(batch, build_evaluation(config).policy)
        for x in seen:
            assert not batch["agents", "observation"][:, 0].equal(x["agents", "observation"][:, 0])
        parts.collector.collected_frames, parts.collector.timeout = 400, 0.001
        said = r"2 of 2 workers .* no batch in 0.001 .* Saved at frame 400; .*resume=auto"
        with pytest.raises(ExperimentError, match=said):
            next(batches(parts))
    finally:
        parts.close()
    assert [x.name for x in (tmp_path / "checkpoints").iterdir()] == [
        "checkpoint-000000000400.torchrl"
    ]


def test_where_there_is_no_room_for_the_workers(runtime, tmp_path):
    with pytest.raises(
        ExperimentError, match=r"Ray has no room for 2 workers .* collector.num_workers"
    ):
        build(configure(*RAY, "collector.num_cpus=40", "collector.timeout=0.5"), tmp_path)


def test_where_there_is_no_cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(ExperimentError, match=r"collector.address=auto: Ray cannot be reached"):
        build(configure(*RAY, "collector.address=auto"), tmp_path)


def processes(mark):
    """Of a run, by what they have in their environment, with their commands."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"MARK={mark}".encode() in (path / "environ").read_bytes().split(b"\0"):
                found[int(path.name)] = (path / "cmdline").read_bytes().decode()
        except OSError:  # it ended meanwhile
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_worker_ends_the_command_in_one_line_and_a_checkpoint(tmp_path):
    command = [sys.executable, "-m", "torchrl_ob.train", "train", *SMOKE, *RAY]
    process = subprocess.Popen(
        [*command, "total_frames=40000", f"hydra.run.dir={tmp_path}"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MARK": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        patience = time.monotonic() + 90
        while not any(tmp_path.glob("checkpoints/checkpoint-*")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < patience
            time.sleep(0.05)
        workers = [
            x for x, name in processes(tmp_path).items() if name.startswith("ray::_SeededCollector")
        ]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    finally:
        left = processes(tmp_path)
        for each in left:
            os.kill(each, signal.SIGKILL)
    assert process.returncode == 1
    assert "Traceback" not in errors
    last = errors.splitlines()[-1]
    assert last.startswith("torchrl-ob: a worker of Ray has ended (")
    frame = last.partition("Saved at frame ")[2].partition(";")[0]
    assert (tmp_path / "checkpoints" / f"checkpoint-{int(frame):012}.torchrl").exists()
    assert not left
