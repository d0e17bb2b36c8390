"""Watching what code does to the machine: processes, imports from a folder, writes outside of one, time, memory."""

import os
import resource
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

PROCESSES = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork"}
PROCESSES |= {"os.forkpty", "pty.spawn", "socket.connect", "ctypes.dlopen"}
CHANGES = {"os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.mkdir", "os.truncate"}
CHANGES |= {"os.chmod", "os.chown", "os.utime", "shutil.rmtree", "shutil.move", "shutil.copyfile"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """What is forbidden at the moment, and what was seen of it."""

    outside: str | None = None  # nothing may be written here
    inside: str | None = None  # nothing may be imported from here
    seen: list[str]
    installed = False


def _hook(event, arguments):
    if Watch.outside is None:
        return
    if event in PROCESSES and threading.current_thread() is threading.main_thread():
        violation = f"{event} {arguments!r:.200}"
    elif event == "open" and arguments[2] is not None and arguments[2] & WRITING:
        violation = f"write {arguments[0]}" if _in(arguments[0], Watch.outside) else None
    elif event in CHANGES:
        paths = [x for x in arguments if isinstance(x, str | bytes | os.PathLike)]
        hit = any(_in(path, Watch.outside) for path in paths)
        violation = f"{event} {arguments!r:.200}" if hit else None
    elif event == "exec" and _in(getattr(arguments[0], "co_filename", ""), Watch.inside):
        violation = f"execution of {arguments[0].co_filename}"
    else:
        return
    if violation:
        Watch.seen.append(violation)
        raise PermissionError(f"forbidden: {violation}")


def _in(path, folder):
    if folder is None or isinstance(path, int):
        return False
    return os.path.realpath(os.fsdecode(path)).startswith(folder + os.sep)


@contextmanager
def guarded(outside: Path, inside: Path, seconds=20, extra_memory=2**31):
    """Nothing is started, nothing of ``inside`` executed, nothing in ``outside`` changed; it ends in time.

    Yields the list of what was tried all the same, each attempt stopped.
    """
    if not Watch.installed:  # a hook cannot be taken away
        sys.addaudithook(_hook)
        Watch.installed = True

    def too_long(*_):
        Watch.seen.append(f"more than {seconds} seconds")
        raise TimeoutError(f"more than {seconds} seconds")

    Watch.seen = []
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGALRM, too_long)
    Watch.outside, Watch.inside = os.path.realpath(outside), os.path.realpath(inside)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    resource.setrlimit(resource.RLIMIT_AS, (used + extra_memory, limits[1]))
    try:
        yield Watch.seen
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        Watch.outside = Watch.inside = None
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)
