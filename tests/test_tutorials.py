"""Every tutorial and benchmark runs to its end at a small size, as a user would run it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted([*ROOT.glob("tutorials/*.py"), *ROOT.glob("benchmarks/*.py")])


def run(script, cwd, *prelude):
    command = [sys.executable, *prelude, str(script)]
    environment = {**os.environ, "SMOKE": "1", "PYTHONPATH": ""}
    environment.pop("DISPLAY", None)
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_script_runs(script, tmp_path):
    result = run(script, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr


def test_navigation_leaves_its_pictures(tmp_path):
    result = run(ROOT / "tutorials/vmas_navigation_ob.py", tmp_path)
    out = tmp_path / "runs" / "vmas_navigation_ob"
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
    result = run(ROOT / "tutorials/vmas_navigation_ob.py", tmp_path, "-c", code)
    assert result.returncode == 0, result.stderr
    assert "apt-get install libegl1" in result.stdout
    assert (tmp_path / "runs" / "vmas_navigation_ob" / "learning_curve.png").exists()


def test_matrix_game_prints_the_numbers_of_the_paper(tmp_path):
    out = run(ROOT / "tutorials/matrix_game_ob.py", tmp_path).stdout
    for number in ("0.1412", "0.4294", "1321.0", "1020.2", "673.1"):
        assert number in out
