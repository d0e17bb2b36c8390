"""The wheel, installed where this repository is not: what is in it, and that it trains from there."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent


def check_output(*command, **options):
    done = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder]
    check_output("-m", "pip", "wheel", "--quiet", *options, ROOT)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_has_the_package_and_its_configs_and_nothing_else(wheel):
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = [path for path in ROOT.glob("torchrl_ob/**/*") if path.suffix in (".py", ".typed")]
    configs = list(ROOT.glob("configs/**/*.yaml"))
    assert names == {str(path.relative_to(ROOT)) for path in package} | {
        f"torchrl_ob/{path.relative_to(ROOT)}" for path in configs
    }
    assert any(name.endswith("/licenses/LICENSE") for name in ZipFile(wheel).namelist())


def test_the_installed_command_trains_from_its_own_configs(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    check_output("-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel)
    # the dependencies are this interpreter's; no git in reach
    options = {"cwd": elsewhere, "env": {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}}
    code = "import torchrl_ob.train as x; print(x.__file__, x.config_folder(), sep='\\n')"
    found = check_output("-c", code, **options).splitlines()
    assert found == [str(site / "torchrl_ob" / name) for name in ("train.py", "configs")]

    command = site / "bin" / "torchrl-ob"
    assert "coma" in check_output(command, "list", **options)
    overrides = ["experiment=smoke", "device=cpu", "progress_bar=false", "hydra.run.dir=run"]
    assert "results are in" in check_output(command, "train", *overrides, **options)
    about = json.loads((elsewhere / "run" / "run.json").read_text())
    assert about["git"] is None
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert about["versions"]["torchrl-ob"] == version
    assert check_output(command, "--version", **options).strip() == version
    assert (elsewhere / "run" / "evaluation.json").is_file()
