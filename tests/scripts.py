"""Scripts and commands, each in a process of its own, forked from one that has loaded what takes seconds to import."""

import multiprocessing
import os
import runpy
import signal
import sys
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from threading import Thread

LIBRARIES = ["torchrl.trainers", "torchrl.objectives", "vmas", "hydra", "matplotlib.pyplot"]
LIBRARIES += ["torchrl_ob.experiments.run"]
CONTEXT = multiprocessing.get_context("forkserver")


@dataclass
class Result:
    returncode: int | None
    stdout: str
    stderr: str


def _begin(folder, printed):
    os.setsid()
    for descriptor, connection in enumerate(printed, 1):
        os.dup2(connection.fileno(), descriptor)
        connection.close()
    os.chdir(folder)
    os.environ.pop("DISPLAY", None)


def _script(script, folder, printed):
    _begin(folder, printed)
    os.environ["SMOKE"] = "1"
    sys.argv, sys.path[0] = [str(script)], str(script.parent)
    runpy.run_path(str(script), run_name="__main__")


def _command(arguments, folder, printed):
    _begin(folder, printed)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server ignores it
    sys.argv, sys.path[0] = ["torchrl-ob", *arguments], str(folder)
    runpy.run_module("torchrl_ob.train", run_name="__main__", alter_sys=True)


class Process:
    """What :class:`subprocess.Popen` is, of a function in a session of its own."""

    def __init__(self, target, *arguments):
        forkserver.set_forkserver_preload(LIBRARIES)
        pipes = [CONTEXT.Pipe(duplex=False) for _ in range(2)]
        writers = [writer for _, writer in pipes]
        self.process = CONTEXT.Process(target=target, args=(*arguments, writers))
        self.process.start()
        self.pid = self.process.pid
        for writer in writers:
            writer.close()
        self.printed = [[], []]
        self.readers = [
            Thread(target=_read, args=(reader, printed), daemon=True)
            for (reader, _), printed in zip(pipes, self.printed, strict=True)
        ]
        for reader in self.readers:
            reader.start()

    @property
    def returncode(self):
        return self.process.exitcode

    def poll(self):
        return self.process.exitcode

    def kill(self):
        self.process.kill()

    def communicate(self, timeout=400):
        self.process.join(timeout)
        if self.process.is_alive():
            os.killpg(self.pid, signal.SIGKILL)
            self.process.join()
        for reader in self.readers:  # until all who inherited its end have ended
            reader.join(timeout)
        return tuple(b"".join(x).decode() for x in self.printed)


def _read(connection, printed):
    with open(connection.fileno(), "rb", closefd=False) as file:
        while chunk := file.read1():
            printed.append(chunk)
    connection.close()


def start_command(*arguments, folder=None):
    """``torchrl-ob`` with these arguments, in a folder."""
    return Process(_command, [*map(str, arguments)], folder or Path.cwd())


def run_command(*arguments, folder=None):
    """The same, to its end."""
    process = start_command(*arguments, folder=folder)
    out, errors = process.communicate()
    return Result(process.returncode, out, errors)


def run_script(script, folder):
    """Run a script in a folder, at its small size."""
    process = Process(_script, script, folder)
    out, errors = process.communicate()
    return Result(process.returncode, out, errors)
