"""Modules, scenarios and environments of a user's own, in the working directory."""

import subprocess
import sys
import textwrap

import pytest
import torch
from omegaconf import OmegaConf
from short_runs import configure, ignored_warnings
from vmas.scenarios.balance import Scenario

from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.config.check import check_config
from torchrl_ob.experiments.config.modules import load_object
from torchrl_ob.experiments.envs.pettingzoo import make_pettingzoo
from torchrl_ob.experiments.envs.vmas import make_vmas
from torchrl_ob.experiments.errors import ExperimentError

pytestmark = ignored_warnings
SIZES = {"num_envs": 2, "max_steps": 5, "seed": 0}


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """The working directory, on the path as the command puts it there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
        return tmp_path / name

    yield write
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def line(message):
    return rf"^[^\n]*{message}[^\n]*$"


def test_a_scenario_of_ones_own_is_the_same_by_name_instance_file_and_module(folder):
    source = (
        "from vmas.scenarios.balance import Scenario as Base\nclass Scenario(Base):\n    pass\n"
    )
    path = folder("mine.py", source)
    folder("own_games/__init__.py", "")
    folder("own_games/tilt.py", source.replace("Scenario(Base)", "Tilt(Base)"))
    made = [
        make_vmas(scenario, **SIZES)
        for scenario in (
            "balance",
            Scenario(),
            "mine.py",
            str(path),
            "mine.Scenario",
            "own_games.tilt.Tilt",
        )
    ]
    batches = []
    for env in made:
        env.set_seed(3)
        torch.manual_seed(0)
        batches.append(env.rollout(5))
    for batch in batches[1:]:
        assert batch["agents", "observation"].equal(batches[0]["agents", "observation"])
        assert batch["next", "agents", "reward"].equal(batches[0]["next", "agents", "reward"])


def test_an_instance_belongs_to_one_environment():
    scenario = Scenario()
    make_vmas(scenario, **SIZES)
    with pytest.raises(ExperimentError, match="give each an instance of its own"):
        make_vmas(scenario, **SIZES)


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        (
            "nowhere.py",
            r"env.scenario=nowhere.py: there is no such file in /.*did you mean 'nowhere_.py'",
        ),
        (
            "broken.py",
            r"broken.py cannot be imported: broken.py, line 2: ModuleNotFoundError: .*'not_there'",
        ),
        ("typo.py", r"typo.py cannot be imported: .*typo.py, line 1: SyntaxError"),
        ("empty.py", "has no class Scenario that is a vmas"),
        ("vmas.simulator.cor", "vmas.simulator has no 'cor': did you mean 'core'"),
        ("empty", r"has no scenario 'empty'.*named by its file, empty.py"),
    ],
)
def test_a_scenario_that_cannot_be_loaded_tells_its_cause(scenario, message, folder):
    folder("nowhere_.py", "")
    folder("empty.py", "")
    folder("typo.py", "class\n")
    folder("broken.py", "import math\nimport not_there\n")
    with pytest.raises(ExperimentError, match=line(message)):
        make_vmas(scenario, **SIZES)


def test_a_module_that_cannot_be_imported_tells_its_cause(folder):
    folder("my_own_game.py", "import math\nimport some_library\n")
    folder("my_other_game.py", "raise OSError('no licence')\n")
    for name, message in (
        (
            "my_own_game",
            r"my_own_game.py, line 2: ModuleNotFoundError: No module named 'some_library'",
        ),
        ("my_other_game", r"my_other_game.py, line 1: OSError: no licence"),
        (
            "my_own_gme",
            r"no module 'my_own_gme' in /.* or among the installed packages: did you mean 'my_own_game'",
        ),
        ("mpe3.x", r"no module 'mpe3'"),
        ("Foraging-8x8", "must be the name of a module"),
    ):
        with pytest.raises(ExperimentError, match=f"{line(message)}") as told:
            make_pettingzoo(name, **SIZES)
        assert "pip install" not in str(told.value)
    with pytest.raises(ExperimentError, match=r"os\.path has no 'jion': did you mean 'join'"):
        load_object("os.path.jion", "key")


ENV = """
from torchrl.envs import VmasEnv
from torchrl_ob.experiments.envs.teams import team_env

def make_env(num_envs, max_steps, seed, device, wind=1.0):
    return team_env(VmasEnv("balance", num_envs=num_envs, seed=seed, device=device), max_steps=max_steps)

def takes_little(num_envs):
    pass

def bare(num_envs, max_steps, seed, device):
    env = VmasEnv("balance", num_envs=3, seed=seed, device=device)
    env.__dict__["group_map"] = {"walkers": ["a"]}
    return env

def nothing(num_envs, max_steps, seed, device):
    return 3
"""


def own(name, **options):
    config = configure()
    config.env = {"_target_": f"my_env.{name}", "num_envs": 10, "max_steps": 20, **options}
    return config


def test_an_environment_of_ones_own_trains_and_what_it_lacks_is_told_at_once(folder, tmp_path):
    folder("my_env.py", ENV)
    config = own("make_env", wind=2.0)
    check_config(config)
    build(config, tmp_path).close()
    for config, message in (
        (
            own("takes_little"),
            "called with num_envs, max_steps, seed, device by name.* not take max_steps, seed, device",
        ),
        (own("make_env", wnd=2.0), "my_env.make_env has no 'wnd': did you mean 'wind'"),
        (
            own("make_env", wind="abc", max_steps=0),
            "env.max_steps must be greater than or equal to 1",
        ),
        (own("mak_env"), "my_env has no 'mak_env': did you mean 'make_env'"),
    ):
        with pytest.raises(ExperimentError, match=line(message)):
            check_config(config)
    config = own("make_env")
    OmegaConf.set_struct(config, False)
    del config.env["num_envs"], config.env["max_steps"]
    with pytest.raises(
        ExperimentError, match=line("my_env.make_env needs env.num_envs, env.max_steps")
    ):
        check_config(config)
    with pytest.raises(ExperimentError, match=line("made a int, and must make a TorchRL env")):
        build(own("nothing"), tmp_path)
    lacks = r"lacks a batch size of .*=\[10\]: it has \[3\]; an observation \('walkers'.*; an action .*; .*episode_reward"
    with pytest.raises(ExperimentError, match=line(lacks)):
        build(own("bare"), tmp_path)


def test_the_command_finds_modules_in_the_working_directory(folder, tmp_path):
    folder("mine.py", "raise OSError('I was found')\n")
    code = "import sys; from torchrl_ob.train import main; sys.path.remove('') if '' in sys.path else None; main()"
    program = [
        sys.executable,
        "-c",
        code,
        "train",
        "experiment=smoke",
        "env.scenario=mine.Scenario",
        "device=cpu",
    ]
    told = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path)
    (found,) = told.stderr.splitlines()
    assert (
        found
        == "torchrl-ob: env.scenario=mine.Scenario cannot be imported: mine.py, line 1: OSError: I was found"
    )
