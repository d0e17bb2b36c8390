"""A run's folder that came from somebody else calls nothing, and nothing outside it is written or deleted."""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from torchrl_ob.experiments.checkpoints import (
    WeightsOnlyAdapter,
    make_checkpoint,
    newest_checkpoint,
    save_checkpoint,
)
from torchrl_ob.experiments.config.trust import ACTIVATIONS, TRUSTED, read_config
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.folders import locked
from torchrl_ob.experiments.loggers import RunLogger
from torchrl_ob.experiments.run import run
from torchrl_ob.experiments.saved import evaluate_run
from torchrl_ob.train import config_folder

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
]

SMOKE = ("experiment=smoke", "env.scenario=balance", "progress_bar=false", "device=cpu")
ENV = "torchrl_ob.experiments.envs."
PETTINGZOO = {"_target_": f"{ENV}pettingzoo.make_pettingzoo", "num_envs": 1, "max_steps": 5}


def configure(*overrides):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", [*SMOKE, *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    run(configure(), folder, {"env": "vmas", "advantage": "ob"})
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def change(folder, changes):
    """Set keys of a run's config, as an attacker with an editor would."""
    path = folder / "config.yaml"
    config = OmegaConf.to_container(OmegaConf.load(path))
    for key, value in changes.items():
        *groups, last = key.split(".")
        node = config
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
    path.write_text(json.dumps(config))  # which is YAML, and takes any value


def targets(group):
    files = (config_folder() / group).glob("*.yaml")
    return {x["_target_"] for x in map(OmegaConf.load, files) if "_target_" in x}


@pytest.mark.parametrize("group", TRUSTED)
def test_what_is_trusted_is_what_the_configs_name(group):
    assert TRUSTED[group] == targets(group)


def touch(path):
    return {"_target_": "torch.utils.collect_env.run", "command": f"touch {path}"}


@pytest.mark.parametrize(
    ("key", "make"),
    [
        ("env.scenario_kwargs.x", touch),
        ("env.scenario_kwargs.x", lambda path: [[{"y": touch(path)}]]),
        ("env._args_", lambda path: [touch(path)]),
        ("evaluation.num_envs", touch),
        ("evaluation.seed", touch),
        ("device", touch),
        ("seed", touch),
        ("policy.activation_class", touch),
        ("policy.num_cells", touch),
        ("policy", lambda _: {"activation_class._target_": "os.system"}),
        ("policy", lambda path: {"activation_class": [touch(path)]}),
        ("env._target_", lambda _: "os.system"),
        ("env._target_", lambda _: "torch.os.system"),
        ("env._target_", lambda _: "torch.nothing"),
        ("env._target_", lambda _: "builtins.eval"),
        ("env._target_", lambda _: "torchrl_ob.experiments.run.subprocess.run"),
        ("env._target_", lambda _: "torchrl_ob.experiments.envs.vmas.VmasEnv"),
        ("env._target_", lambda _: ["os.system"]),
        ("env._target_", touch),
        ("env._target_", lambda _: None),
        ("policy._target_", lambda _: f"{ENV}vmas.make_vmas"),  # trusted as an environment alone
        ("env.scenario_kwargs._target_", lambda _: f"{ENV}vmas.make_vmas"),
        ("policy.activation_class", lambda _: {"_target_": "hydra.utils.get_class", "path": "os"}),
        (
            "policy.activation_class",
            lambda _: {"_target_": "hydra.utils.get_method", "path": "os.system"},
        ),
        ("env.scenario", lambda path: str(path.with_suffix(".py"))),
        ("env.scenario", lambda _: "../evil"),
        ("env", lambda _: {**PETTINGZOO, "task": "evil.game"}),
        ("env", lambda _: {**PETTINGZOO, "task": "os"}),
        ("env", lambda _: {**PETTINGZOO, "task": ["evil"]}),
        ("env", lambda _: {**PETTINGZOO, "task": ".game"}),
        ("env", lambda _: {**PETTINGZOO, "task": "pettingzoo.utils.random_demo"}),
        ("env", lambda _: {**PETTINGZOO, "task": "pettingzoo.x_v1\nevil"}),
        ("env", lambda _: {**PETTINGZOO, "\n\x1b[2J": {"_target_": "os.system"}}),
        ("env", lambda _: PETTINGZOO),
    ],
)
def test_a_folder_calls_nothing_that_is_not_listed(key, make, folder):
    marker = folder / "marker"
    change(folder, {key: make(marker)})
    with pytest.raises(ExperimentError, match=r"not torchrl_ob's own: .*add trust=True") as error:
        evaluate_run(folder)
    assert str(error.value).isprintable()
    assert f"{key.split('.')[0]}" in str(error.value)
    assert not marker.exists()


def test_what_is_not_built_is_not_called_and_needs_no_trust(folder):
    change(folder, {"optimizer": touch(folder / "marker"), "critic._target_": "mine.Critic"})
    assert set(read_config(folder)) == {"env", "policy", "evaluation", "seed", "device"}
    assert evaluate_run(folder, episodes=2)
    assert not (folder / "marker").exists()


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_the_class_of_an_activation_is_no_code(name, folder):
    node = {"_target_": "hydra.utils.get_class", "path": name}
    change(folder, {"policy.activation_class": node})
    assert issubclass(eval(name, {"torch": torch}), torch.nn.Module)
    assert read_config(folder).policy.activation_class.path == name
    change(folder, {"policy.activation_class": {**node, "_args_": ["os.system"]}})
    with pytest.raises(ExperimentError, match="--trust"):
        read_config(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (
            "env.scenario_kwargs.x",
            "${oc.create:{_target_: numpy.load, file: x, allow_pickle: true}}",
        ),
        ("env.scenario", "${oc.env:HOME}"),
        ("seed", "${oc.decode:${oc.env:HOME}}"),
        ("evaluation", "${env}"),
        ("env.scenario_kwargs.${oc.env:HOME}", 1),
        ("env.group_map", {"${oc.env:HOME}": ["agent_0"]}),
        ("optimizer.lr", "${hydra:job.name}"),
    ],
)
def test_a_folder_has_nothing_to_resolve(key, value, folder):
    change(folder, {key: value})
    for trust in (False, True):
        with pytest.raises(ExperimentError, match="interpolation"):
            evaluate_run(folder, trust=trust)


ALIASES = "a0: &a0 [x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 9)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ALIASES, "has aliases"),
        ("env: " + "[" * 50_000, "more than 40 deep"),
        ("env: " + "{a: " * 50_000, "more than 40 deep"),
        ("x: " + "a" * 2**18, "bytes, and at most"),
        ("env: !!python/object/apply:os.system ['touch marker']", "constructor"),
        ("!!python/object/new:os.system ['touch marker']", "constructor"),
        ("", "is not the config of a run"),
        ("- env", "has no keys"),
        ("text", "it has no env, policy"),
        ("a: 1\na: 2", "is not the config of a run"),
        ("env: [", "is not the config of a run"),
        ("env: 3\npolicy: x\nevaluation: 1\nseed: 0\ndevice: cpu", "cannot be built"),
        ("seed: 0", "it has no env, policy"),
        (b"\x80\x04\x95", "is not text"),
        (b"\x00\x01", "is not the config of a run"),
    ],
)
def test_a_broken_config_is_told_in_one_line_and_at_once(content, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    path, began = folder / "config.yaml", time.monotonic()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ExperimentError, match=message) as error:
        evaluate_run(folder)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert time.monotonic() - began < 20
    assert not (folder / "marker").exists()


def test_own_code_is_called_where_it_is_trusted(folder, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "my_game.py").write_text(
        "from torchrl_ob.experiments.envs.vmas import make_vmas\n"
        "def make(**options):\n"
        "    return make_vmas('balance', **options)\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "mine")
    expected = evaluate_run(folder)
    env = {"_target_": "my_game.make", "num_envs": 10, "max_steps": 20}
    change(folder, {"env": env})
    with pytest.raises(ExperimentError, match=r"env\._target_='my_game\.make'.*--trust"):
        evaluate_run(folder)
    assert "my_game" not in sys.modules
    assert evaluate_run(folder, trust=True) == expected


def test_a_game_is_not_imported_from_the_folder_nor_from_where_the_command_runs(folder):
    change(folder, {"env": {**PETTINGZOO, "task": "mpe2.own_v0"}})
    game = folder / "mpe2" / "own_v0.py"
    game.parent.mkdir()
    marker = folder / "marker"
    for path in (game, game.parent / "__init__.py", folder / "torchrl.py", folder / "hydra.py"):
        path.write_text(f"open({str(marker)!r}, 'w')\nparallel_env = dict\n")
    command = [sys.executable, "-m", "torchrl_ob.train", "eval", "."]
    found = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert found.returncode == 1
    assert found.stderr.splitlines()[-1].startswith("torchrl-ob: ")
    assert "mpe2" in found.stderr
    assert "Traceback" not in found.stderr
    assert not marker.exists()


LINKED = [
    "metrics",
    "metrics/scalars",
    "metrics/scalars/eval",
    "metrics/scalars/train/reward.csv",
    "checkpoints",
    "checkpoints/checkpoint-000000000400.torchrl",
    "config.yaml",
    "run.json",
    "evaluation.json",
    "metrics.png",
    "nan_batch.pt",
    "wandb",
    ".lock",
    "train.log",
    "wandb_id",
]


@pytest.mark.parametrize("name", LINKED)
def test_a_run_writes_and_deletes_nothing_through_links(name, folder, tmp_path):
    path, outside = folder / name, tmp_path / "outside"
    if path.exists():
        shutil.move(path, outside)
    else:
        outside.write_text("mine")
    path.symlink_to(outside)

    def contents():
        files = (
            [outside] if outside.is_file() else sorted(x for x in outside.rglob("*") if x.is_file())
        )
        return {x: x.read_bytes() for x in files}

    before, kind = contents(), "a folder" if outside.is_dir() else "a file"
    for overrides in (("resume=auto",), ()):
        with pytest.raises(ExperimentError, match=f"{name} is a link, where a run writes {kind}:"):
            run(configure("total_frames=800", *overrides), folder)
    assert contents() == before


@pytest.mark.parametrize(
    ("name", "make", "kind"),
    [
        ("metrics/scalars/train/reward.csv", os.mkfifo, "a pipe"),
        ("checkpoints/checkpoint-000000000400.torchrl", os.mkfifo, "a pipe"),
        ("config.yaml", os.mkfifo, "a pipe"),
        (".lock", os.mkfifo, "a pipe"),
        ("metrics.png", Path.mkdir, "a folder"),
        ("evaluation.json", Path.mkdir, "a folder"),
        ("checkpoints", Path.touch, "a file"),
        ("metrics", Path.touch, "a file"),
    ],
)
def test_what_a_run_could_not_write_is_told_before_it_begins(name, make, kind, folder):
    path = folder / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    make(path)
    with pytest.raises(ExperimentError, match=f"{name} is {kind}, where a run writes"):
        run(configure("total_frames=800", "resume=auto"), folder)


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "a/../../x", 3, b"x"])
def test_a_checkpoint_names_no_metric_outside_the_folder(name, tmp_path):
    log = RunLogger(tmp_path / "a" / "b" / "metrics")
    log.log_scalar("train/reward", 1.5, step=100)
    state = log.state_dict()
    state["local"]["scalars"] = {"fine": [(100, 1.0)], name: [(100, 1.0)]}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match="cannot be the name of a metric"):
        log.load_state_dict(state)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(ValueError, match="cannot be the name of a metric"):
        log.log_scalar(name, 1.0, step=100)


def archive(path, manifest, compression=zipfile.ZIP_STORED, content=b""):
    with zipfile.ZipFile(path, "w", compression=compression) as file:
        file.writestr("manifest.json", manifest)
        file.writestr("content", content)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: archive(path, "[]"), "manifest.json is not that of a checkpoint"),
        (lambda path: archive(path, '"x"'), "manifest.json is not that of a checkpoint"),
        (lambda path: archive(path, '{"metadata": []}'), "is not that of a checkpoint"),
        (lambda path: archive(path, "{"), "Expecting"),
        (lambda path: archive(path, "[" * 100_000), "recursion"),
        (lambda path: archive(path, " " * 2**23), "larger than any"),
        (lambda path: archive(path, "{}", zipfile.ZIP_DEFLATED, bytes(2**22)), "more room"),
        (lambda path: path.write_bytes(b""), "not a zip"),
        (os.mkfifo, "it is a pipe"),
        (Path.mkdir, "it is a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "it is a link"),
    ],
)
def test_a_broken_checkpoint_is_named_and_the_one_before_is_taken(make, told, folder):
    whole = newest_checkpoint(folder)
    broken = folder / "checkpoints" / "checkpoint-000000009999.torchrl"
    make(broken)
    assert newest_checkpoint(folder) == whole
    save_checkpoint(make_checkpoint(), whole.parent, step=500, keep=1, metadata={})
    newest = newest_checkpoint(folder)  # and the broken one is neither counted nor removed
    assert newest.name == "checkpoint-000000000500.torchrl"
    assert sorted(whole.parent.iterdir()) == [newest, broken]
    newest.unlink()
    with pytest.raises(ExperimentError, match=f"{broken} cannot be read .*{told}"):
        newest_checkpoint(folder)


def test_nothing_in_a_checkpoint_is_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.system, ("touch " + str(tmp_path / "boom"),)

    torch.save(Bomb(), tmp_path / "state.pt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        WeightsOnlyAdapter().load(torch.nn.Linear(1, 1), tmp_path, map_location=None)
    assert not (tmp_path / "boom").exists()


def test_no_state_grows_where_it_is_unpacked(tmp_path):
    torch.save({"weight": torch.zeros(2**20)}, tmp_path / "stored.pt")
    with (
        zipfile.ZipFile(tmp_path / "stored.pt") as stored,
        zipfile.ZipFile(tmp_path / "state.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    with pytest.raises(ExperimentError, match=r"state\.pt is packed"):
        WeightsOnlyAdapter().load(torch.nn.Linear(1, 1), tmp_path, map_location=None)


HOLDER = """
import os, sys, time, pathlib
from torchrl_ob.experiments.folders import locked
with locked(pathlib.Path(sys.argv[1])):
    child = os.fork()
    if child == 0:
        time.sleep(100)
    print(child, flush=True)
    time.sleep(100)
"""


def test_a_second_run_in_a_folder_is_told_and_a_killed_one_leaves_no_lock(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(
            ExperimentError, match=f"process {holder.pid}, is at work in {tmp_path}"
        ):
            run(configure(), tmp_path)
        assert [x.name for x in tmp_path.iterdir()] == [".lock"]
        holder.kill()
        holder.wait()
        with locked(tmp_path):  # though a process that it forked lives on
            os.kill(child, 0)
            with pytest.raises(ExperimentError, match=f"process {os.getpid()}, is at work"):
                run(configure(), tmp_path)
            again = subprocess.run(
                command, capture_output=True, text=True
            )  # as that was no release
            assert f"process {os.getpid()}, is at work" in again.stderr
    finally:
        holder.kill()
        holder.stdout.close()
        os.kill(child, 9)
    with locked(tmp_path):
        pass


def test_the_command_writes_nothing_before_it_has_looked_at_the_folder():
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        of_hydra = compose("train", [], return_hydra_config=True).hydra
    assert of_hydra.output_subdir is None
    assert "filename" not in str(of_hydra.job_logging)


def test_the_newest_checkpoints_are_kept_and_what_was_half_written_goes(tmp_path):
    (tmp_path / ".checkpoint-1.tmp").write_bytes(b"half")
    (tmp_path / ".checkpoint-2.tmp").mkdir()
    for step in (200, 1000, 30_000):
        save_checkpoint(make_checkpoint(), tmp_path, step=step, keep=2, metadata={"step": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-000000001000.torchrl",
        "checkpoint-000000030000.torchrl",
    ]
