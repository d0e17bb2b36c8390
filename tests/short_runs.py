"""Short runs from configs, for the tests of the command."""

import pytest
from hydra import compose, initialize_config_dir

from torchrl_ob.train import config_folder

ignored_warnings = [
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
    pytest.mark.filterwarnings("ignore:Force limits not specified:UserWarning"),
]

GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in config_folder().iterdir()
}
SMOKE = ("experiment=smoke", "progress_bar=false", "device=cpu")


def configure(*overrides):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", [*SMOKE, *overrides])


def scalars(folder):
    """What a run has logged, by metric, without seconds, which are never the same."""
    root = folder / "metrics" / "scalars"
    paths = [x.relative_to(root) for x in sorted(root.rglob("*.csv"))]
    return {path: (root / path).read_text() for path in paths if path.parts[0] != "timer"}
