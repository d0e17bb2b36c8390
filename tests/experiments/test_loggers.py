"""Loggers beside the csv files: several at once, wandb with the run's name, and what a failing one costs."""

import contextlib
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from short_runs import configure, ignored_warnings, scalars

from torchrl_ob.experiments.config.check import check_config
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.loggers import RunLogger, make_loggers
from torchrl_ob.experiments.run import run
from torchrl_ob.train import main

pytestmark = ignored_warnings
CHOICES = {"env": "vmas", "advantage": "ob"}
BALANCE = ("env.scenario=balance", "total_frames=800", "checkpoint.interval=200")


class Run:
    """A run of wandb that records what it is told."""

    def __init__(self, options):
        self.options, self.id = options, options["id"]
        self.config, self.rows, self.finished = dict(options["config"]), [], False
        self.config_of_others = SimpleNamespace(update=lambda *_, **__: None)

    def __getattribute__(self, name):
        found = object.__getattribute__(self, name)
        return self.config_of_others if name == "config" else found

    def log(self, payload):
        self.rows.append(payload)

    def define_metric(self, *_, **__):
        pass

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    """The runs of wandb, in place of the service."""
    runs = []

    def init(**options):
        runs.append(Run(options))
        return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    monkeypatch.setattr("torchrl.record.loggers.wandb._has_wandb", True)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return runs


def written(rows, name):
    return {row["train/step"]: row[name] for row in rows if name in row}


def test_wandb_gets_config_name_and_group_and_goes_on_in_the_same_run(wandb, tmp_path):
    config = configure("logger=wandb", "logger.wandb.offline=false", "seed=3", *BALANCE)
    run(config, tmp_path, CHOICES)
    sorted((tmp_path / "checkpoints").iterdir())[-1].unlink()  # as if it had been killed
    config.resume = "auto"
    with pytest.raises(ExperimentError, match="another config"):
        run(OmegaConf.merge(config, {"seed": 4}), tmp_path, CHOICES)
    assert len(wandb) == 1  # what was refused has begun nothing there
    run(config, tmp_path, CHOICES)
    first, second = wandb
    assert first.id == second.id
    assert first.options["name"] == "ob on balance, seed 3"
    assert first.options["group"] == "ob on balance"
    assert first.options["project"] == "torchrl_ob"
    assert first.options["resume"] == "allow"
    resolved = OmegaConf.to_container(config, resolve=True)
    assert second.options["config"] == resolved
    assert first.options["config"] == {**resolved, "resume": None}
    csv = [x.split(",") for x in scalars(tmp_path)[Path("train/reward.csv")].splitlines()]
    csv = {int(frame): float(value) for frame, value in csv}
    assert list(csv) == [200, 400, 600, 800]
    assert written(first.rows, "train/reward") == csv
    assert written(second.rows, "train/reward") == {800: csv[800]}
    assert first.finished
    assert second.finished


def test_a_run_that_begins_afresh_is_another_of_wandb(wandb, tmp_path):
    config = configure("logger=wandb", "total_frames=200", "resume=auto")
    for _ in range(2):
        run(config, tmp_path, CHOICES)
        for path in (tmp_path / "checkpoints").iterdir():
            path.unlink()
    assert len({x.id for x in wandb}) == 2
    config = configure("logger=wandb", "total_frames=200", "+logger.wandb.id=mine")
    run(config, tmp_path, CHOICES)
    assert wandb[-1].id == "mine"
    assert (tmp_path / "wandb_id").read_text() == "mine\n"


def test_wandb_itself_takes_a_run_and_goes_on_with_it_offline(tmp_path):
    pytest.importorskip("wandb")
    config = configure("logger=wandb", "total_frames=200", "+logger.wandb.log_env_packages=false")
    run(config, tmp_path, CHOICES)
    config.resume = "auto"
    run(config, tmp_path, CHOICES)
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    id = (tmp_path / "wandb_id").read_text().strip()
    assert [x.name.split("-")[-1] for x in folders] == [id, id]
    stored = b"".join(x.read_bytes() for x in folders[0].glob("*.wandb"))
    for text in (b"ob on navigation, seed 0", b"train/episode_reward", b"num_cells"):
        assert text in stored


def test_several_loggers_get_the_same_numbers(wandb, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(configure("logger=[wandb,tensorboard]", "total_frames=200"), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    names = {str(path.with_suffix("")) for path in scalars(tmp_path)}
    assert names <= set(events.Tags()["scalars"])
    assert names <= set().union(*wandb[0].rows)
    (found,) = events.Scalars("loss/critic")
    assert found.step == 200
    (row,) = (x for x in wandb[0].rows if "loss/critic" in x)
    assert found.value == pytest.approx(row["loss/critic"])


class Fails:
    """A logger whose service goes away after some numbers."""

    def __init__(self, numbers):
        self.left, self.seen = numbers, []

    def log_metrics(self, metrics, step):
        if not self.left:
            raise ConnectionError("gone")
        self.left -= 1
        self.seen.append((step, metrics))

    def shutdown(self, timeout=None):
        raise ConnectionError("gone")


def test_a_logger_that_fails_is_left_out_and_the_others_go_on(tmp_path):
    bad, good = Fails(1), Fails(100)
    log = RunLogger(tmp_path / "metrics", bad, good)
    log.log_metrics({"a": 1.0}, step=1)
    with pytest.warns(UserWarning, match=r"Fails failed \(gone\); the run goes on without it"):
        log.log_metrics({"a": 2.0}, step=2)
    log.log_metrics({"a": 3.0}, step=3)
    assert good.seen == [(1, {"a": 1.0}), (2, {"a": 2.0}), (3, {"a": 3.0})]
    assert (tmp_path / "metrics/scalars/a.csv").read_text() == "1,1.0\n2,2.0\n3,3.0\n"
    log.shutdown()


def own_logger(log_dir, config, note):
    raise {"lacks": ImportError("No module named 'x'"), "down": OSError("no route")}[note]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+logger._target_=my.Logger"], r"logger\._target_: .* begin its file with '# @package"),
        (["logger=wandb", "logger.wandb.project=null"], "logger.wandb.project must be"),
        (["logger=wandb", "+logger.wandb.name=x"], "logger.wandb.name is given by the command"),
        (
            ["logger=wandb", "+logger.wandb.offlin=x"],
            None,
        ),  # an option of wandb.init, for all we know
        (["+logger.mine={_target_: test_loggers.nothing}"], "logger.mine._target_=test_loggers"),
    ],
)
def test_a_logger_that_cannot_be_made_is_told_before_anything_is_built(overrides, message):
    refused = pytest.raises(ExperimentError, match=message) if message else contextlib.nullcontext()
    with refused:
        check_config(configure(*overrides))


def test_a_logger_whose_package_is_missing_is_told_and_one_that_is_down_is_left_out(tmp_path):
    part = "+logger.mine={_target_: test_loggers.own_logger, note: NOTE}"
    lacks, down = (configure(part.replace("NOTE", x)) for x in ("lacks", "down"))
    check_config(lacks)
    with pytest.raises(ExperimentError, match=r"logger=mine needs its package \(No module named"):
        make_loggers(lacks, tmp_path, {}, resumed=False)
    with pytest.warns(UserWarning, match=r"no logger mine \(no route\); the run goes on"):
        assert make_loggers(down, tmp_path, {}, resumed=False) == []


def test_nothing_of_the_config_that_a_logger_gets_is_built(tmp_path):
    config = configure("+logger.mine={_target_: test_loggers.Keeps}")
    (logger,) = make_loggers(config, tmp_path, CHOICES, resumed=True)
    assert logger.config["advantage"]["_target_"] == "torchrl_ob.ObAdvantage"
    assert (logger.log_dir, logger.group) == (str(tmp_path), "ob on navigation")


class Keeps:
    def __init__(self, log_dir, group, config):
        self.log_dir, self.group, self.config = log_dir, group, config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "logger.project=x",
            "the config has no 'logger.project': did you mean 'logger.wandb.project'",
        ),
        ("logger.wandb.project=x", "'logger.wandb.project' belongs to logger=wandb: choose that"),
    ],
)
def test_an_option_of_a_logger_is_told_by_its_name(override, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["torchrl-ob", "train", "experiment=smoke", override])
    with pytest.raises(SystemExit, match=re.escape(message)):
        main()
