"""A run's folder, damaged or hostile: it works or is refused, writes nothing elsewhere, executes nothing."""

import atexit
import functools
import os
import shutil
import tempfile
import warnings
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fuzz.guard import guarded
from fuzz.harness import fuzz
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.results import read_results
from torchrl_ob.experiments.run import run
from torchrl_ob.experiments.saved import evaluate_run, newest_checkpoint, read_config
from torchrl_ob.train import config_folder

SMALL = (
    "experiment=smoke",
    "env.scenario=balance",
    "progress_bar=false",
    "device=cpu",
    "evaluation.num_envs=2",
    "policy.num_cells=4",
    "critic.hidden_dim=4",
)
DAMAGES = (
    "truncate",
    "flip",
    "garbage",
    "delete",
    "folder",
    "fifo",
    "zero",
    "link_to_outside",
    "dangling_link",
    "link_to_itself",
    "unreadable",
)
PAYLOADS = (
    {"_target_": "os.system", "command": "touch OUTSIDE/x"},
    {"_target_": "subprocess.check_output", "args": ["touch", "OUTSIDE/x"]},
    {"_target_": "torch.utils.collect_env.run", "command": "touch OUTSIDE/x"},
    {"_target_": "torch.save", "obj": 1, "f": "OUTSIDE/x"},
    {"_target_": "torch.load", "f": "FOLDER/config.yaml", "weights_only": False},
    {"_target_": "torch.hub.load", "repo_or_dir": "FOLDER", "model": "x", "source": "local"},
    {"_target_": "torch.ops.load_library", "path": "FOLDER/x.so"},
    {"_target_": "builtins.exec", "_args_": ["open('OUTSIDE/x', 'w')"]},
    {"_target_": "builtins.eval", "_args_": ["open('OUTSIDE/x', 'w')"]},
    {"_target_": "pathlib.Path.touch", "_args_": ["OUTSIDE/x"]},
    {"_target_": "torchrl_ob.experiments.render.render_run", "folder": "OUTSIDE"},
    {"_target_": "hydra.utils.call", "config": {"_target_": "os.system", "command": "true"}},
    {"_target_": "hydra.utils.get_method", "path": "os.system"},
    {"_target_": "torchrl_ob.train.os.system", "command": "touch OUTSIDE/x"},
    {"_target_": "torchrl_ob"},
    {"_target_": 3},
    {"_target_": None},
    {"_target_": ["os.system"]},
    {"_target_": "${oc.env:HOME}"},
    {"_target_": "x.y", "_partial_": True},
    "${oc.create:{_target_: os.system, command: 'touch OUTSIDE/x'}}",
    "${oc.env:HOME}",
    "${hydra:runtime.cwd}",
    "${nowhere}",
    "${env}",
    "${",
    "../../../../OUTSIDE",
    "OUTSIDE",
    None,
    True,
    -1,
    0,
    2**70,
    float("nan"),
    [],
    {},
    [1, {"a": 2}],
    "text",
)
COMMANDS = ("config", "eval", "report", "checkpoint")


@dataclass(frozen=True)
class Folder:
    command: str = "config"
    damages: tuple[tuple[str, int, float], ...] = ()  # what is done to which file, and where in it
    settings: tuple[tuple[int, int], ...] = ()  # which key of the config becomes which payload
    whole_config: int | None = None  # a text in place of the config


WHOLE = (
    b"",
    b"- 1\n- 2\n",
    b"text",
    b"{",
    b"a: &a [1]\nb: [*a, *a]\n",
    b"a: !!python/object/apply:os.system ['touch OUTSIDE/x']\n",
    b"\x00\xff\xfe",
    b"a: " + b"[" * 2000 + b"]" * 2000,
    b"\n".join(
        [b"a0: &a0 [x]"]
        + [b"a%d: &a%d [%s]" % (k, k, b", ".join([b"*a%d" % (k - 1)] * 10)) for k in range(1, 9)]
    ),
)


@st.composite
def folder_cases(draw, commands=COMMANDS):
    place = st.tuples(st.sampled_from(DAMAGES), st.integers(0, 99), st.floats(0, 1))
    change = st.tuples(st.integers(0, 99), st.integers(0, len(PAYLOADS) - 1))
    kind = draw(st.sampled_from(["files", "settings", "whole"]))
    return Folder(
        command=draw(st.sampled_from(commands)),
        damages=tuple(draw(st.lists(place, min_size=1, max_size=2))) if kind == "files" else (),
        settings=tuple(draw(st.lists(change, min_size=1, max_size=2)))
        if kind == "settings"
        else (),
        whole_config=draw(st.integers(0, len(WHOLE) - 1)) if kind == "whole" else None,
    )


@functools.cache
def valid_run():
    """The folder of a tiny run, made once in a process."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-run-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(config, folder / "run", {"advantage": "ob"})
    return folder / "run"


def damage(path, how, where, outside):
    size = path.stat().st_size if path.is_file() else 0
    data = path.read_bytes() if path.is_file() else b""
    at = min(int(where * size), max(size - 1, 0))
    if path.is_dir() and how in ("truncate", "garbage", "flip", "unreadable"):
        shutil.rmtree(path)
    elif how == "truncate":
        path.write_bytes(data[:at])
    elif how == "garbage":
        path.write_bytes(data[:at] + os.urandom(8) + data[at:])
    elif how == "flip":
        if data:
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << (at % 8)]) + data[at + 1 :])
    else:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        links = {
            "link_to_outside": outside / path.name,
            "dangling_link": outside / "nothing",
            "link_to_itself": path,
            "zero": Path("/dev/zero"),
        }
        if how in links:
            path.symlink_to(links[how])
        elif how == "folder":
            path.mkdir()
        elif how == "fifo":
            os.mkfifo(path)
        elif how == "unreadable":
            path.write_bytes(data)
            path.chmod(0)


def spoil(folder, outside, case):
    """Do to a folder what a case says."""
    text = (folder / "config.yaml").read_text()
    names = {"OUTSIDE": str(outside), "FOLDER": str(folder)}
    if case.settings:
        config = OmegaConf.to_container(OmegaConf.create(text))
        for which, payload in case.settings:
            places = sorted(list_paths(config), key=str)
            *parents, last = places[which % len(places)]
            node = config
            for parent in parents:
                node = node[parent]
            node[last] = deepcopy(PAYLOADS[payload])
        text = OmegaConf.to_yaml(OmegaConf.create(filled(config, names)))
        (folder / "config.yaml").write_text(text)
    if case.whole_config is not None:
        whole = WHOLE[case.whole_config].replace(b"OUTSIDE", os.fsencode(outside))
        (folder / "config.yaml").write_bytes(whole)
    for how, which, where in case.damages:
        paths = sorted(x for x in folder.rglob("*") if not x.is_symlink())
        if paths:
            damage(paths[which % len(paths)], how, where, outside)


def list_paths(node, path=()):
    if isinstance(node, dict):
        for key, child in node.items():
            yield (*path, key)
            yield from list_paths(child, (*path, key))


def filled(node, names):
    if isinstance(node, dict):
        return {key: filled(child, names) for key, child in node.items()}
    if isinstance(node, list):
        return [filled(child, names) for child in node]
    if isinstance(node, str):
        for name, value in names.items():
            node = node.replace(name, value)
    return node


def tree(folder):
    """Everything in a folder: names, kinds and contents."""
    return {
        str(x.relative_to(folder)): (x.lstat().st_mode, x.read_bytes() if x.is_file() else b"")
        for x in sorted(folder.rglob("*"))
    }


def check_folder(case):
    original = valid_run()
    base = Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder, outside = base / "run", base / "outside"
    try:
        shutil.copytree(original, folder)
        shutil.copytree(original, outside)
        (folder / "hubconf.py").write_text("def x(): open('/tmp/hub', 'w')\n")
        spoil(folder, outside, case)
        before, told = tree(outside), None
        with guarded(outside, folder) as seen, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                obey(case.command, folder)
            except ExperimentError as error:
                told = str(error)
            except (ModuleNotFoundError, SystemExit) as error:
                raise AssertionError(f"a riddle: {error!r}") from error
        assert not seen, seen
        assert tree(outside) == before
        assert told is None or "\n" not in told.strip(), told
    finally:
        for path in base.rglob("*"):
            if path.is_file() and not path.is_symlink():
                path.chmod(0o600)
        shutil.rmtree(base)


def obey(command, folder):
    if command == "config":
        read_config(folder)
    elif command == "eval":
        evaluate_run(folder)
    elif command == "report":
        read_results([folder])
    else:
        newest_checkpoint(folder)


test_folder = fuzz(folder_cases(), check_folder, short=20)
