"""The console command ``torchrl-ob``: Hydra's command line over :func:`torchrl_ob.experiments.running.run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

USAGE = """torchrl-ob train [OVERRIDE...]      train; advantage=coma swaps the advantage, -m sweeps
torchrl-ob train --help             the whole config
torchrl-ob eval RUN [EPISODES]      evaluate the newest checkpoint of a run's folder
torchrl-ob list                     what can be swapped

examples
  torchrl-ob train advantage=ob env.scenario=balance seed=3
  torchrl-ob train -m advantage=ob,coma,gae seed=0,1,2
  torchrl-ob train hydra.run.dir=runs/mine resume=auto"""

__all__ = ["config_folder", "main"]


def config_folder() -> Path:
    """Where the configs are: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def main() -> None:
    """Run the command."""
    command, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if command == "train":
        _train(arguments)
    elif command == "eval":
        _eval(*arguments)
    elif command == "list":
        _list()
    elif command in ("-h", "--help"):
        print(USAGE)
    else:
        sys.exit(f"torchrl-ob: no command {command!r}\n{USAGE}")


def _train(arguments: list[str]) -> None:
    try:
        import hydra
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import DictConfig

        from torchrl_ob.experiments.errors import ExperimentError
        from torchrl_ob.experiments.running import run
    except ModuleNotFoundError as error:
        sys.exit(f"torchrl-ob: {error}: pip install 'torchrl-ob[experiments]'")

    def task(config: DictConfig) -> None:
        of_hydra = HydraConfig.get()
        run(config, Path(of_hydra.runtime.output_dir), dict(of_hydra.runtime.choices))

    sys.argv[1:] = arguments
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come here, to be told in one line
    entry = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")
    try:
        entry(task)()
    except (ExperimentError, hydra.errors.HydraException) as error:
        sys.exit(f"torchrl-ob: {error}")


def _eval(folder: str = "", episodes: str = "") -> None:
    try:
        from torchrl_ob.experiments.errors import ExperimentError
        from torchrl_ob.experiments.evaluating import describe
        from torchrl_ob.experiments.saved import evaluate_run
    except ModuleNotFoundError as error:
        sys.exit(f"torchrl-ob: {error}: pip install 'torchrl-ob[experiments]'")

    if not folder or (episodes and not episodes.isdigit()):
        sys.exit("torchrl-ob eval RUN [EPISODES]: the folder of a run, and a whole number.")
    try:
        print(describe(evaluate_run(Path(folder), int(episodes) if episodes else None)))
    except ExperimentError as error:
        sys.exit(f"torchrl-ob: {error}")


def _list() -> None:
    for group in sorted(path for path in config_folder().iterdir() if path.is_dir()):
        print(f"{group.name}: {', '.join(sorted(path.stem for path in group.glob('*.yaml')))}")


if __name__ == "__main__":
    main()
