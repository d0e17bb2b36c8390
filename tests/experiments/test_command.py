"""The command as a process: what it keeps while it runs, and how it ends."""

import gc
import signal
import subprocess
import sys
import tracemalloc

import pytest
from hydra import compose, initialize_config_dir

from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.loop import train
from torchrl_ob.train import config_folder

BATCHES = 45
TINY = (
    "experiment=smoke",
    "env.scenario=balance",
    "progress_bar=false",
    "device=cpu",
    f"total_frames={BATCHES * 10}",
    "env.num_envs=2",
    "env.max_steps=5",
    "collector.frames_per_batch=10",
    "trainer.minibatch_size=10",
    "trainer.num_epochs=1",
    "evaluation.num_envs=2",
    f"evaluation.interval={BATCHES * 10}",
    f"checkpoint.interval={BATCHES * 10}",
)


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_memory_does_not_grow_with_the_batches(tmp_path):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", [*TINY])
    parts = build(config, tmp_path)
    seen = []

    def measure():
        seen.append(0)
        if len(seen) in (15, 40):
            gc.collect()
            seen[-1] = tracemalloc.get_traced_memory()[0], len(gc.get_objects())
        return False

    tracemalloc.start()
    try:
        train(parts, stopped=measure)
    finally:
        tracemalloc.stop()
    (bytes_before, objects_before), (bytes_after, objects_after) = seen[14], seen[39]
    assert (bytes_after - bytes_before) / 25 < 1500  # of 36 KiB, where all that is logged is kept
    assert (objects_after - objects_before) / 25 < 2
    assert (tmp_path / "metrics/scalars/train/reward.csv").read_text().count("\n") == BATCHES


@pytest.mark.parametrize("arguments", [["train"], ["eval", "nowhere"]], ids=lambda x: x[0])
def test_an_interrupt_while_it_imports_is_no_traceback(arguments, tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "torchrl_ob.train", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        for line in process.stderr:
            if line.rstrip().endswith(" torch.types"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert "KeyboardInterrupt" not in rest


def test_a_mistyped_override_is_told_before_torch_is_imported_for_a_run():
    command = [sys.executable, "-X", "importtime", "-m", "torchrl_ob.train", "train", "sed=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("torchrl-ob: the config has no 'sed': did you mean 'seed'?\n")
    assert "| torchrl_ob.experiments.config.overrides" in " ".join(done.stderr.split())
    assert "| torchrl.envs" not in " ".join(done.stderr.split())


def test_a_reader_that_has_gone_is_no_traceback():
    command = [sys.executable, "-m", "torchrl_ob.train", "list"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        process.stdout.close()
        assert not process.stderr.read()
    assert process.returncode == 0
