"""The arrows of the house: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import torchrl_ob

PACKAGE = Path(torchrl_ob.__file__).parent
LAYERS = {  # each may import those on its right
    "functional": (),
    "cubature": (),
    "gauss": (),
    "arguments": (),
    "availability": ("reading",),
    "trajectories": ("reading",),
    "pointwise": (),
    "candidates": ("factored", "functional", "cubature", "gauss", "pairs"),
    "backbones": (),
    "encodings": (),
    "factored": ("encodings",),
    "specs": ("encodings", "reading"),
    "critics": ("arguments", "backbones", "encodings", "reading", "specs"),
    "units": (),
    "dueling": ("backbones", "critics", "units"),
    "compiling": (),
    "dueling_fit": ("compiling", "dueling", "joint_advantage", "reading", "units"),
    "groups": ("backbones", "critics", "dueling"),
    "options": ("arguments", "cubature", "functional"),
    "substitution": ("reading",),
    "pairs": (),
    "reading": (),
    "evaluation": ("availability", "candidates", "reading", "substitution"),
    "loss_networks": (),
    "team_estimator": (
        "arguments",
        "candidates",
        "cubature",
        "evaluation",
        "functional",
        "gauss",
        "loss_networks",
        "options",
        "pairs",
        "pointwise",
        "reading",
    ),
    "joint_advantage": (
        "availability",
        "evaluation",
        "functional",
        "options",
        "reading",
        "team_estimator",
        "trajectories",
    ),
    "advantages": ("joint_advantage",),
    "envs.__init__": (),
    "envs.flat": ("encodings", "reading", "specs"),
    "envs.dlpack": (),
    "envs.jaxmarl_batch": (),
    "envs.jaxmarl": ("envs.dlpack", "envs.jaxmarl_batch"),
    "networks": (),
    "policies": ("factored", "networks", "specs"),
    "envs.mamujoco": (),
    "diagnostics.games": ("functional",),
    "diagnostics.bootstrap": (),
    "diagnostics.scores": (
        "availability",
        "candidates",
        "evaluation",
        "functional",
        "joint_advantage",
    ),
    "diagnostics.signals": (
        "candidates",
        "functional",
        "joint_advantage",
        "diagnostics.bootstrap",
    ),
    "diagnostics.comparison": (
        "evaluation",
        "functional",
        "joint_advantage",
        "diagnostics.bootstrap",
        "diagnostics.scores",
        "diagnostics.signals",
    ),
    "diagnostics.terms": (
        "joint_advantage",
        "diagnostics.bootstrap",
        "diagnostics.scores",
        "diagnostics.signals",
    ),
    "diagnostics.attribution": (
        "functional",
        "joint_advantage",
        "diagnostics.bootstrap",
        "diagnostics.signals",
    ),
    "diagnostics.quality": (
        "joint_advantage",
        "diagnostics.bootstrap",
        "diagnostics.signals",
    ),
    "diagnostics.live": (
        "joint_advantage",
        "diagnostics.quality",
        "diagnostics.comparison",
        "diagnostics.signals",
    ),
    "diagnostics.scalars": (),
    "diagnostics.plots": (
        "diagnostics.bootstrap",
        "diagnostics.comparison",
        "diagnostics.scalars",
        "diagnostics.terms",
    ),
    "diagnostics.vmas_clone": (),
    "diagnostics.copy_proof": ("diagnostics.vmas_clone",),
    "diagnostics.nested_analysis": ("diagnostics.bootstrap",),
    "diagnostics.branching": (
        "candidates",
        "functional",
        "reading",
        "diagnostics.copy_proof",
        "diagnostics.vmas_clone",
    ),
    "diagnostics.__init__": (
        "diagnostics.bootstrap",
        "diagnostics.branching",
        "diagnostics.quality",
        "diagnostics.games",
        "diagnostics.comparison",
        "diagnostics.attribution",
        "diagnostics.live",
        "diagnostics.nested_analysis",
        "diagnostics.plots",
        "diagnostics.terms",
        "diagnostics.vmas_clone",
    ),
    "experiments.errors": (),
    "experiments.envs.__init__": (),
    "experiments.envs.teams": ("envs.flat", "reading", "experiments.errors"),
    "experiments.envs.vmas": ("experiments.envs.teams", "experiments.errors"),
    "experiments.envs.smax": ("envs.jaxmarl", "experiments.envs.teams", "experiments.errors"),
    "experiments.envs.active": (),
    "experiments.envs.several": (),
    "experiments.envs.mamujoco": (
        "envs.mamujoco",
        "experiments.envs.several",
        "experiments.envs.teams",
        "experiments.errors",
    ),
    "experiments.envs.lbf": (
        "experiments.envs.several",
        "experiments.envs.teams",
        "experiments.errors",
    ),
    "experiments.envs.pettingzoo": (
        "experiments.envs.several",
        "experiments.envs.teams",
        "experiments.errors",
    ),
    "experiments.envs.smacv2": (
        "experiments.envs.active",
        "experiments.envs.several",
        "experiments.envs.teams",
        "experiments.errors",
    ),
    "experiments.simulator_state": ("diagnostics.vmas_clone",),
    "experiments.collectors": ("experiments.simulator_state",),
    "experiments.state_value": ("networks", "specs"),
    "experiments.hooks": ("experiments.envs.teams", "experiments.errors"),
    "experiments.stepping": ("compiling", "experiments.errors"),
    "experiments.making": ("experiments.errors",),
    "experiments.group_losses": ("experiments.stepping",),
    "experiments.learners": (
        "critics",
        "experiments.envs.teams",
        "experiments.errors",
        "experiments.group_losses",
        "experiments.making",
        "groups",
    ),
    "experiments.curves": ("diagnostics.scalars",),
    "experiments.optimizers": (),
    "experiments.overrides": ("experiments.errors",),
    "experiments.folders": ("experiments.errors",),
    "experiments.imports": (),
    "experiments.trust": ("experiments.errors", "experiments.folders"),
    "experiments.results": (
        "diagnostics.scalars",
        "experiments.errors",
        "experiments.folders",
        "experiments.settings",
        "experiments.trust",
    ),
    "experiments.report": (
        "experiments.errors",
        "experiments.evaluating",
        "experiments.results",
    ),
    "experiments.evaluating": (
        "diagnostics.bootstrap",
        "diagnostics.vmas_clone",
        "experiments.envs.teams",
    ),
    "experiments.settings": (),
    "experiments.checkpoints": (
        "experiments.errors",
        "experiments.folders",
        "experiments.settings",
    ),
    "experiments.loggers": ("diagnostics.scalars", "experiments.errors"),
    "experiments.checking": ("experiments.errors",),
    "experiments.building": (
        "dueling",
        "dueling_fit",
        "joint_advantage",
        "diagnostics.live",
        "experiments.checkpoints",
        "experiments.envs.teams",
        "experiments.errors",
        "experiments.evaluating",
        "experiments.hooks",
        "experiments.learners",
        "experiments.loggers",
        "experiments.making",
        "experiments.settings",
        "experiments.stepping",
    ),
    "experiments.running": (
        "experiments.building",
        "experiments.checking",
        "experiments.checkpoints",
        "experiments.curves",
        "experiments.errors",
        "experiments.evaluating",
        "experiments.folders",
    ),
    "experiments.saved": (
        "diagnostics.bootstrap",
        "experiments.building",
        "experiments.checkpoints",
        "experiments.errors",
        "experiments.evaluating",
        "experiments.imports",
        "experiments.trust",
    ),
    "experiments.rendering": (
        "diagnostics.vmas_clone",
        "experiments.errors",
        "experiments.evaluating",
        "experiments.saved",
        "experiments.simulator_state",
    ),
    "experiments.__init__": (),
    "train": (
        "experiments.checkpoints",
        "experiments.errors",
        "experiments.evaluating",
        "experiments.imports",
        "experiments.optimizers",
        "experiments.overrides",
        "experiments.report",
        "experiments.rendering",
        "experiments.running",
        "experiments.saved",
    ),
    "__init__": ("critics", "advantages", "dueling", "dueling_fit", "groups"),
}
OUTSIDE = {
    "functional": {"torch"},
    "arguments": set(),
    "availability": {"torch", "tensordict"},
    "trajectories": {"torch", "tensordict"},
    "pointwise": {"torch", "tensordict"},
    "team_estimator": {"torch", "tensordict", "torchrl"},
    "cubature": {"torch"},
    "gauss": {"torch"},
    "backbones": {"torch"},
    "candidates": {"torch", "tensordict", "torchrl"},
    "encodings": {"torch", "tensordict"},
    "factored": {"torch"},
    "specs": {"torch", "tensordict", "torchrl"},
    "critics": {"torch", "tensordict", "torchrl"},
    "units": {"torch"},
    "dueling": {"torch", "tensordict"},
    "compiling": {"torch", "tensordict"},
    "dueling_fit": {"torch", "tensordict", "torchrl"},
    "groups": {"torch", "tensordict", "torchrl"},
    "options": {"torch"},
    "substitution": {"torch", "tensordict"},
    "pairs": {"torch"},
    "evaluation": {"torch", "tensordict", "torchrl"},
    "loss_networks": {"tensordict"},
    "reading": {"torch", "tensordict"},
    "joint_advantage": {"torch", "tensordict"},
    "advantages": set(),
    "envs.__init__": set(),
    "envs.flat": {"tensordict", "torch", "torchrl"},
    "envs.dlpack": {"jax", "torch"},
    "envs.jaxmarl_batch": {"jax", "jaxmarl"},
    "envs.jaxmarl": {"jax", "jaxmarl", "numpy", "torch", "tensordict", "torchrl"},
    "networks": {"torch", "torchrl"},
    "policies": {"torch", "tensordict", "torchrl"},
    "envs.mamujoco": {"gymnasium_robotics", "mujoco", "numpy", "tensordict", "torch", "torchrl"},
    "diagnostics.games": {"torch"},
    "diagnostics.bootstrap": {"torch"},
    "diagnostics.scores": {"torch", "tensordict"},
    "diagnostics.signals": {"torch", "tensordict"},
    "diagnostics.comparison": {"torch", "tensordict"},
    "diagnostics.terms": {"torch", "tensordict"},
    "diagnostics.attribution": {"torch", "tensordict"},
    "diagnostics.quality": {"torch", "tensordict"},
    "diagnostics.live": {"torch", "tensordict", "torchrl"},
    "diagnostics.scalars": set(),
    "diagnostics.plots": {"matplotlib"},
    "diagnostics.vmas_clone": {"numpy", "torch", "torchrl"},
    "diagnostics.copy_proof": {"torch", "tensordict", "torchrl"},
    "diagnostics.nested_analysis": {"torch"},
    "diagnostics.branching": {"torch", "tensordict", "torchrl"},
    "diagnostics.__init__": set(),
    "experiments.errors": set(),
    "experiments.envs.__init__": set(),
    "experiments.envs.teams": {"torch", "tensordict", "torchrl"},
    "experiments.envs.vmas": {"torch", "torchrl"},
    "experiments.envs.smax": {"torch", "torchrl"},
    "experiments.envs.active": {"tensordict", "torch", "torchrl"},
    "experiments.envs.several": {"torch", "torchrl"},
    "experiments.envs.mamujoco": {"torch", "torchrl"},
    "experiments.envs.lbf": {"gymnasium", "lbforaging", "tensordict", "torch", "torchrl"},
    "experiments.envs.pettingzoo": {"pettingzoo", "tensordict", "torch", "torchrl"},
    "experiments.envs.smacv2": {"numpy", "smacv2", "tensordict", "torch", "torchrl"},
    "experiments.simulator_state": {"numpy", "torch", "torchrl"},
    "experiments.collectors": {"tensordict", "torch", "torchrl"},
    "experiments.state_value": {"torch", "tensordict", "torchrl"},
    "experiments.stepping": {"torch", "tensordict", "torchrl"},
    "experiments.settings": set(),
    "experiments.hooks": {"torch", "tensordict", "torchrl", "tqdm"},
    "experiments.curves": {"matplotlib"},
    "experiments.optimizers": {"hydra", "torchrl"},
    "experiments.overrides": {"hydra", "omegaconf"},
    "experiments.folders": set(),
    "experiments.imports": set(),
    "experiments.trust": {"omegaconf", "yaml"},
    "experiments.results": {"numpy"},
    "experiments.report": {"matplotlib", "numpy", "rliable"},
    "experiments.evaluating": {"torch", "tensordict", "torchrl"},
    "experiments.checkpoints": {"torch", "torchrl"},
    "experiments.loggers": {"torchrl"},
    "experiments.checking": {"omegaconf"},
    "experiments.making": {"hydra", "omegaconf"},
    "experiments.group_losses": {"tensordict", "torch", "torchrl"},
    "experiments.learners": {"omegaconf", "tensordict", "torch", "torchrl"},
    "experiments.building": {"numpy", "omegaconf", "tensordict", "torch", "torchrl"},
    "experiments.running": {"omegaconf", "torchrl"},
    "experiments.saved": {"torchrl"},
    "experiments.rendering": {"torchrl"},
    "experiments.__init__": set(),
    "train": {"hydra", "omegaconf"},
    "__init__": set(),
}
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module


@pytest.mark.parametrize("module", FILES)
def test_every_module_imports_only_what_its_layer_may(module):
    for name in imports(FILES[module]):
        root, *rest = name.split(".")
        if root == "torchrl_ob":
            assert ".".join(rest) in LAYERS[module]
        elif root not in sys.stdlib_module_names:
            assert root in OUTSIDE[module]


def test_no_file_is_long():
    for path in FILES.values():
        assert len(path.read_text().splitlines()) <= 400, path


def test_library_loads_without_the_tutorials_dependencies():
    code = (
        "import sys\n"
        "for name in ('vmas', 'jax', 'jaxmarl', 'matplotlib', 'hydra', 'wandb', 'tqdm.auto'):\n"
        "    sys.modules[name] = None\n"
        "import torchrl_ob, torchrl_ob.diagnostics, torchrl_ob.envs.jaxmarl\n"
        "print(sorted(torchrl_ob.__all__))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == [
        "['ComaAdvantage',",
        "'DuelingCritic',",
        "'DuelingFit',",
        "'JointQCritic',",
        "'MapgAdvantage',",
        "'ObAdvantage',",
        "'group_critics']",
    ]
