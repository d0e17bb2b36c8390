"""Scripts, each in a process of its own, forked from one that has loaded what takes seconds to import."""

import multiprocessing
import os
import runpy
import sys
from dataclasses import dataclass
from multiprocessing import forkserver

LIBRARIES = ["torchrl.trainers", "torchrl.objectives", "vmas", "hydra", "matplotlib.pyplot"]


@dataclass
class Result:
    returncode: int | None
    stdout: str
    stderr: str


def _run(script, folder):
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY), descriptor)
    os.chdir(folder)
    os.environ["SMOKE"] = "1"
    os.environ.pop("DISPLAY", None)
    sys.argv, sys.path[0] = [str(script)], str(script.parent)
    runpy.run_path(str(script), run_name="__main__")


def run_script(script, folder, seconds=400):
    """Run a script in a folder, at its small size."""
    context = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(LIBRARIES)
    process = context.Process(target=_run, args=(script, folder))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    result = Result(process.exitcode, *((folder / x).read_text() for x in ("stdout", "stderr")))
    process.close()
    return result
