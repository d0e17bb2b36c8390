"""Does a run that is killed again and again end in the numbers of one left alone?

A run is killed (SIGKILL), resumed with ``resume=auto``, and so on; then it may end. A third of the kills
come after a random time, from the start of the process to a little past its second checkpoint, a third
while a checkpoint is written, and a third after one. Metrics, evaluation and what the last checkpoint has
of networks, optimizer, schedule and random numbers are compared, bit for bit, with those of a run of the
same config that nobody touched.

``python benchmarks/kill_and_resume.py [--kills 50] [--seed 0]``: 8 minutes on two cores; ``SMOKE=1`` for
one kill, ``DEVICE=cuda`` for a GPU.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

BATCH = 200
OVERRIDES = (
    "experiment=smoke",
    "env.scenario=balance",
    "loss=mappo",
    "value_norm=popart",
    f"collector.frames_per_batch={BATCH}",
    f"checkpoint.interval={BATCH}",
    f"device={os.environ.get('DEVICE', 'cpu')}",
    "progress_bar=false",
    "resume=auto",
)
NAMED_ANEW = ("collector", "log")  # a resume counts episodes anew; the folders' names differ
KINDS = ("any time", "while writing", "after writing")


class Run:
    """A run that is started again and again in one folder.

    Args:
        folder: of the run; what it prints goes to a file beside it.
        batches: how many it has.
    """

    def __init__(self, folder: Path, batches: int) -> None:
        self.folder, self.log = folder, folder.with_suffix(".log")
        overrides = [*OVERRIDES, f"total_frames={BATCH * batches}", f"hydra.run.dir={folder}"]
        self.command = [sys.executable, "-m", "torchrl_ob.train", "train", *overrides]

    def start(self) -> subprocess.Popen[bytes]:
        """The process, which goes on from the newest checkpoint."""
        with self.log.open("ab") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            return subprocess.Popen(self.command, env=environment, stdout=log, stderr=log)

    def written(self) -> set[Path]:
        """The checkpoints that are whole."""
        return set(self.folder.glob("checkpoints/checkpoint-*"))

    def unfinished(self) -> set[Path]:
        """What is being written, or was when the process was killed."""
        return set(self.folder.glob("checkpoints/.checkpoint-*"))

    def finish(self) -> None:
        """Let it come to its end."""
        process = self.start()
        if process.wait():
            sys.exit(f"the run failed:\n{self.log.read_text()[-2000:]}")

    def kill(self, kind: str, pause: float) -> str:
        """Start it and kill it; what was hit, in words."""
        written, unfinished = self.written(), self.unfinished()
        process = self.start()
        if kind == "while writing":
            wait(process, lambda: bool(self.unfinished() - unfinished))
        if kind == "after writing":
            wait(process, lambda: bool(self.written() - written))
        time.sleep(pause)
        if process.poll() is not None:
            sys.exit(f"the run ended before it was killed:\n{self.log.read_text()[-2000:]}")
        process.kill()
        process.wait()
        if self.unfinished() - unfinished:
            return "a checkpoint half-written"
        if self.written() - written:
            return "past a new checkpoint"
        return "before the next checkpoint" if self.written() else "before the first checkpoint"


def wait(process: subprocess.Popen[bytes], is_time: Callable[[], bool]) -> None:
    """Until it is time, or the process has ended."""
    while process.poll() is None and not is_time():
        time.sleep(0.001)


def results(folder: Path) -> dict[str, bytes]:
    """Metrics and evaluation of a run, and what its last checkpoint has."""
    metrics = (x for x in folder.glob("metrics/scalars/**/*.csv") if x.parent.name != "timer")
    files = [*metrics, folder / "evaluation.json"]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    with zipfile.ZipFile(max(folder.glob("checkpoints/checkpoint-*"))) as checkpoint:
        for name in checkpoint.namelist():
            if name.endswith(".pt") and name.split("-")[1].split("/")[0] not in NAMED_ANEW:
                found[name] = checkpoint.read(name)
    return found


def main() -> None:
    """Run both, print what was hit and what differs."""
    smoke = os.environ.get("SMOKE") == "1"
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=1 if smoke else 50)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    moments, hits = random.Random(arguments.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        alone, killed = (
            Run(Path(folder) / x, 3 * arguments.kills + 4) for x in ("alone", "killed")
        )
        begin = time.monotonic()
        process = alone.start()
        wait(process, lambda: len(alone.written()) > 1)
        second = time.monotonic() - begin
        process.wait()
        for k in range(arguments.kills):
            kind = KINDS[k % len(KINDS)]
            longest = {"any time": 1.1 * second, "while writing": 0.03, "after writing": 0.3}[kind]
            pause = moments.uniform(0, longest)
            hit = killed.kill(kind, pause)
            hits[hit] += 1
            print(f"kill {k + 1:3} ({kind}, {pause:5.2f} s): {hit}", flush=True)
        killed.finish()
        expected, found = results(alone.folder), results(killed.folder)
    for hit, times in hits.most_common():
        print(f"{times:4} kills hit {hit}")
    differ = sorted(x for x in expected.keys() | found.keys() if expected.get(x) != found.get(x))
    if differ:
        sys.exit(f"{len(differ)} of {len(expected)} results differ: {', '.join(differ)}")
    print(f"{sum(hits.values())} kills, and all {len(expected)} results are the same, bit for bit")


if __name__ == "__main__":
    main()
