"""The site builds without a warning, and its pages say what is there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

import torchrl_ob
from torchrl_ob.experiments.config.check import check_config
from torchrl_ob.experiments.config.overrides import read_override
from torchrl_ob.experiments.run import run
from torchrl_ob.train import config_folder

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
SOURCES = ("docs", "tutorials", "configs", "CHANGELOG.md", "CONTRIBUTING.md")
PAGES = sorted(ROOT.glob("docs/**/*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built from a copy, tutorials as they stand."""
    pytest.importorskip("sphinx_gallery")
    folder = tmp_path_factory.mktemp("site")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "docs", "html"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GALLERY": "0", "INTERSPHINX": "0"}
    out = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return folder / "html"


def test_every_public_name_has_an_entry(site):
    page = (site / "api" / "torchrl_ob.html").read_text()
    assert [x for x in torchrl_ob.__all__ if f'id="torchrl_ob.{x}"' not in page] == []


def test_every_tutorial_is_a_page(site):
    gallery = (site / "tutorials" / "index.html").read_text()
    for script in ROOT.glob("tutorials/*.py"):
        assert f"{script.stem}.html" in gallery
        assert (site / "tutorials" / f"{script.stem}.html").exists()


def test_every_option_is_in_a_table(site):
    text = re.sub(r"<[^>]+>", "", (site / "command.html").read_text())
    for path in ROOT.glob("configs/*/*.yaml"):
        assert path.stem in text
    train = yaml.safe_load((ROOT / "configs" / "train.yaml").read_text())
    for name in (f"trainer.{name}" for name in train["trainer"]):
        assert name in text, name


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_every_metric_of_a_run_is_in_the_table(tmp_path):
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        names = ("experiment=[team_reward,smoke]", "variance_interval=1", "loss=mappo")
        config = compose("train", [*names, "progress_bar=false", "device=cpu"])
    run(config, tmp_path)
    scalars = tmp_path / "metrics" / "scalars"
    written = {str(x.relative_to(scalars).with_suffix("")) for x in scalars.rglob("*.csv")}
    written = {re.sub(r"/\w+/agent_\d", "/{none,v,coma,ob}/agent_{i}", name) for name in written}
    assert len(written) > 15
    table = (ROOT / "docs" / "command.md").read_text()
    assert [name for name in sorted(written) if f"`{name}`" not in table] == []


def test_every_picture_is_shown():
    """None is left behind by a page that no longer shows it."""
    shown = [*PAGES, ROOT / "README.md", *ROOT.glob("tutorials/*.py")]
    pages = "".join(x.read_text() for x in shown)
    for picture in ROOT.glob("docs/images/*.png"):
        assert f"images/{picture.name}" in pages, picture.name


def test_scripts_that_pages_name_exist():
    for page in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for name in re.findall(r"\b(?:tutorials|benchmarks|tests)/[\w/]+\.py", page.read_text()):
            assert (ROOT / name).exists(), (page.name, name)


@pytest.mark.parametrize("name", ["command", "how_to/many_machines"])
def test_the_commands_of_a_page_are_accepted(name, monkeypatch):
    page = (ROOT / f"docs/{name}.md").read_text().replace("\\\n", " ")
    found = re.findall(r"^(.*)(?:\btorchrl-ob|-m torchrl_ob.train) train (.*)$", page, re.MULTILINE)
    assert len(found) > 3
    for start, rest in found:
        arguments = [read_override(x, config_folder()) for x in shlex.split(rest, comments=True)]
        if any(x.startswith("-") for x in arguments):  # not of one run
            continue
        ranks = re.search(r"--nproc-per-node=(\d+)", start)
        nodes = re.search(r"--nodes=(\d+)", page) if "--nnodes" in start else None
        size = int(ranks[1]) * (int(nodes[1]) if nodes else 1) if ranks else 1
        with (
            monkeypatch.context() as patch,
            initialize_config_dir(str(config_folder()), version_base="1.3"),
        ):
            for key, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": 0, "WORLD_SIZE": size}.items():
                patch.setenv(key, str(value))
            check_config(compose("train", [x for x in arguments if x]))
