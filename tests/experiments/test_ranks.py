"""Two ranks on the CPU: the weights of one process, an exact resume, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from short_runs import SMOKE, configure, ignored_warnings, scalars
from smacv2_stand_in import install
from two_ranks import CASES, flat_weights, in_order

from torchrl_ob.experiments import loop
from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.config.check import check_config
from torchrl_ob.experiments.errors import ExperimentError

pytestmark = [
    *ignored_warnings,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:You requested advantage normalization:UserWarning"),
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
TORCHRUN += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
TESTS = Path(__file__).parent.parent


def start(*command):
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [*TORCHRUN, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes(folder):
    """Those whose command names a folder."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode()
        except OSError:  # it ended meanwhile
            continue
        if str(folder) in command:
            found[int(path.parent.name)] = command
    return found


def rank_of(process):
    pairs = Path(f"/proc/{process}/environ").read_bytes().decode().split("\0")
    return dict(x.split("=", 1) for x in pairs if "=" in x).get("RANK")


def wait_for_checkpoint(process, run):
    patience = time.monotonic() + 200
    while not any(run.glob("checkpoints/checkpoint-*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < patience
        time.sleep(0.05)


def kill(folder):
    """What is left of its processes."""
    left = processes(folder)
    for each in left:
        os.kill(each, signal.SIGKILL)
    return left


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """What two ranks wrote, and how they ended when one of them was killed in a run thereafter."""
    folder = tmp_path_factory.mktemp("ranks")
    process = start(str(TESTS / "two_ranks.py"), str(folder))
    try:
        wait_for_checkpoint(process, folder / "endless")
        os.kill(int((folder / "process 1").read_text()), signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    finally:
        left = kill(folder)
    return folder, process.returncode, errors, left


@pytest.fixture(scope="module")
def learned(ended):
    return ended[0]


class TestTwoRanks:
    @pytest.mark.parametrize("name", CASES)
    def test_learn_the_weights_of_one_process_from_both_batches(
        self, name, learned, tmp_path, monkeypatch
    ):
        first, second = (
            torch.load(learned / f"{name} {rank}.pt", weights_only=False) for rank in range(2)
        )
        install(monkeypatch, tmp_path)
        parts = build(configure(*CASES[name], "trainer.compile=false"), tmp_path)
        assert flat_weights(parts).equal(first["before"])
        assert flat_weights(parts).equal(second["before"])

        def of_both(batch, keys, size, length=None):
            halves = (in_order(half, keys, size // 2, length) for half in batch.chunk(2))
            yield from map(torch.cat, zip(*halves, strict=True))

        monkeypatch.setattr(loop, "minibatches", of_both)
        for batches in zip(first["batches"], second["batches"], strict=True):
            assert batches[0].shape == batches[1].shape == (5, 20)
            assert not batches[0]["agents", "action"].equal(batches[1]["agents", "action"])
            loop.improve(parts, torch.cat(batches))
        parts.close()
        assert first["after"].equal(second["after"])
        moved = (first["after"] - first["before"]).abs().max()
        assert moved > 1e-3
        assert torch.allclose(flat_weights(parts), first["after"], rtol=0, atol=2e-5 * moved)

    def test_resume_to_the_same_numbers(self, learned):
        whole, resumed = scalars(learned / "whole"), scalars(learned / "resumed")
        assert whole == resumed
        assert [x.split(",")[0] for x in whole[Path("train/reward.csv")].split()] == ["200", "400"]
        numbers = (
            json.loads((learned / x / "evaluation.json").read_text()) for x in ("whole", "resumed")
        )
        assert next(numbers) == next(numbers)
        assert not [*learned.glob("**/rank*")]


@pytest.fixture
def of_two(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("of_two")
class TestRefused:
    def test_environments_must_share_out_among_the_ranks(self):
        with pytest.raises(ExperimentError, match=r"env.num_envs=15 must be a multiple of ranks=2"):
            check_config(configure("env.num_envs=15", "collector.frames_per_batch=150"))
        config = configure("collector=multi_sync", "collector.num_workers=5")
        check_config(config)
        with pytest.raises(ExperimentError, match="the 4 workers of all ranks"):
            check_config(configure("collector=multi_sync"))

    @pytest.mark.parametrize(
        ("overrides", "found"),
        [
            (("advantage=ob_streams",), "RewardStreams"),
            (("loss=mappo", "value_norm=popart"), "value_norm"),
        ],
        ids=lambda x: x[0] if isinstance(x, tuple) else x,
    )
    def test_what_learns_apart_from_the_loss(self, overrides, found, tmp_path):
        with pytest.raises(ExperimentError, match=f"{found} learns from a rank's batch apart"):
            build(configure(*overrides), tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
class TestProcessesEnd:
    @pytest.fixture
    def running(self, tmp_path):
        """A run that has written a checkpoint and would go on for long, and its second rank."""
        command = ["-m", "torchrl_ob.train", "train", *SMOKE, "rank_timeout=5"]
        process = start(*command, "total_frames=40000", f"hydra.run.dir={tmp_path}")
        try:
            wait_for_checkpoint(process, tmp_path)
            (second,) = (x for x in processes(tmp_path) if rank_of(x) == "1")
            yield process, second
        finally:
            kill(tmp_path)

    def test_after_the_death_of_one_of_them(self, ended):
        _, code, errors, left = ended
        assert code == 1
        assert errors.count("Traceback") == 1, errors  # of torchrun itself
        assert not left

    def test_where_one_of_them_does_not_answer(self, running, tmp_path):
        process, second = running
        os.kill(second, signal.SIGSTOP)
        said = next(x for x in process.stderr if x.startswith("torchrl-ob: "))
        assert "rank 0 lost the others" in said
        assert "longer than rank_timeout" in said
        assert "resume=auto" in said
        os.kill(second, signal.SIGKILL)  # torchrun would, after half a minute
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert errors.count("Traceback") == 1, errors
        assert not processes(tmp_path)

    def test_after_ctrl_c_and_the_batch_is_whole(self, running, tmp_path):
        process, _ = running
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
        assert "stopped and saved at frame" in out, errors
        assert not processes(tmp_path)
