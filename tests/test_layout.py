"""The layout of the package: lengths of files, and what loads without extras."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "torchrl_ob"
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def test_no_file_is_long():
    for path in FILES.values():
        assert len(path.read_text().splitlines()) <= 300, path


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
        "['Candidates',",
        "'ComaAdvantage',",
        "'FactoredCategorical',",
        "'JointAdvantage',",
        "'JointQCritic',",
        "'MapgAdvantage',",
        "'MultiAgentGRU',",
        "'MultiAgentLSTM',",
        "'ObAdvantage',",
        "'RecurrentCritic',",
        "'RewardStreams',",
        "'StateValue',",
        "'StreamAdvantage',",
        "'Team',",
        "'group_critics',",
        "'policy_from_env',",
        "'register_candidates']",
    ]
