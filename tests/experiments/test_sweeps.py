"""Sweeps by Hydra's launchers, each run in a process of its own, and their report."""

import json

import pytest
import yaml
from scripts import run_command
from short_runs import SMOKE

pytestmark = pytest.mark.slow


SHORT = (*SMOKE[1:], "total_frames=200", "trainer.num_epochs=1")


def command(*arguments):
    out = run_command(*arguments)
    assert out.returncode == 0, out.stderr
    return out.stdout


def test_a_sweep_by_submitit_is_reported(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra sweeps")
    pytest.importorskip("rliable", reason="needs the extra report")
    launcher = ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5")
    sweep = ("-m", "experiment=smoke", *SHORT, "seed=3", f"hydra.sweep.dir={tmp_path}")
    command("train", *sweep, *launcher)
    assert len([*tmp_path.glob("*/evaluation.json")]) == 1
    report = command("report", tmp_path, "--output", tmp_path / "report")
    assert "| navigation | ob | 1 |" in report


def test_optuna_finds_the_best_of_its_runs(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs the extra sweeps")
    sizes = ("hydra.sweeper.n_trials=2", f"hydra.sweep.dir={tmp_path}")
    command("train", "-m", "experiment=[search,smoke]", *SHORT, *sizes)
    found = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    earned = {}
    for path in tmp_path.glob("*/evaluation.json"):
        config = yaml.safe_load((path.parent / "config.yaml").read_text())
        reward = json.loads(path.read_text())["deterministic_reward"][0]
        earned[reward] = (config["optimizer"]["lr"], config["advantage"]["lmbda"])
    assert len(earned) == 2
    assert found["best_value"] == max(earned)
    assert tuple(found["best_params"].values()) == earned[max(earned)]
