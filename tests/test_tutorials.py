"""Every tutorial and benchmark runs to its end at a small size, as a user would run it."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from scripts import run_script

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
ELSEWHERE = {"benchmarl_loop.py"}  # in an environment of its own
SCRIPTS = sorted(
    path
    for path in [*ROOT.glob("tutorials/*.py"), *ROOT.glob("benchmarks/*.py")]
    if path.name not in ELSEWHERE
)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """The result of a script and the folder it ran in, each script run once."""

    @cache
    def run_once(script):
        folder = tmp_path_factory.mktemp(script.stem)
        return run_script(script, folder), folder

    return run_once


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_runs(script, outcome):
    result, _ = outcome(script)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr


def test_the_trainer_goes_on_from_its_checkpoint(outcome):
    result, folder = outcome(ROOT / "tutorials/vmas_trainer_ob.py")
    out = folder / "runs" / "vmas_trainer_ob"
    assert "at 80 frames\nstopped after 160 frames" in result.stdout
    rewards = (out / "metrics" / "scalars" / "train_reward.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rewards] == ["40", "80", "120", "160"]
    assert len(list((out / "checkpoints").iterdir())) == 2


def test_navigation_leaves_its_pictures(outcome):
    result, folder = outcome(ROOT / "tutorials/vmas_navigation_ob.py")
    out = folder / "runs" / "vmas_navigation_ob"
    assert (out / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    if "no video" not in result.stdout:
        assert (out / "team.gif").read_bytes().startswith(b"GIF8")


def test_navigation_ends_well_without_a_gl_library(tmp_path):
    code = (
        "import ctypes, runpy, sys\n"
        "load = ctypes.CDLL.__init__\n"
        "def without_egl(self, name, *args, **kwargs):\n"
        "    if 'EGL' in str(name): raise OSError(f'{name}: cannot open shared object file')\n"
        "    load(self, name, *args, **kwargs)\n"
        "ctypes.CDLL.__init__ = without_egl\n"
        "runpy.run_path(sys.argv[1], run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code, ROOT / "tutorials/vmas_navigation_ob.py"]
    environment = {**os.environ, "SMOKE": "1"}
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert "apt-get install libegl1" in result.stdout
    assert (tmp_path / "runs" / "vmas_navigation_ob" / "learning_curve.png").exists()


def test_matrix_game_prints_the_numbers_of_the_paper(outcome):
    out = outcome(ROOT / "tutorials/matrix_game_ob.py")[0].stdout
    for number in ("0.1412", "0.4294", "1321.0", "1020.2", "673.1"):
        assert number in out


def test_a_team_with_a_memory_solves_what_one_without_cannot(outcome):
    out = outcome(ROOT / "tutorials/remember_the_cue.py")[0].stdout
    last = [float(line.rsplit(" ", 1)[1]) for line in out.splitlines() if "at the end" in line]
    assert last[0] > 0.95
    assert last[1] < 0.65
