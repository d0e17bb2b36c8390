"""The console command ``torchrl-ob``: Hydra's command line over :func:`torchrl_ob.experiments.run.run`."""

from __future__ import annotations

import argparse
import atexit
import json
import logging
import math
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torchrl_ob.experiments.errors import ExperimentError, show
from torchrl_ob.experiments.imports import imports_outside

EXAMPLES = """examples
  torchrl-ob train advantage=ob env.scenario=balance seed=3
  torchrl-ob train -m advantage=ob,coma,gae seed=0,1,2
  torchrl-ob train hydra.run.dir=runs/mine resume=auto
  torchrl-ob train --help               the whole config
  torchrun --nproc-per-node=2 -m torchrl_ob.train train ...
                                        in two processes, which share environments and minibatches
  torchrl-ob report runs/2026-01-31/*   compare runs"""

EXTRAS = ("hydra", "matplotlib", "omegaconf", "rliable", "tqdm", "vmas")
"""What the extras of this package bring; a module beyond is one that the user's own code imports."""

CONFIG_DIR = "TORCHRL_OB_CONFIG_DIR"
"""The environment variable that names a folder of the user's own configs, where --config-dir is not given."""

__all__ = ["config_folder", "main"]


def config_folder() -> Path:
    """Where the configs are: inside an installed package, beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def main() -> None:
    """Run the command."""
    try:
        if sys.argv[1:2] == ["train"]:
            _train(sys.argv[2:])  # Hydra reads its own command line
        else:
            arguments = vars(_parser().parse_args())
            arguments.pop("command")(**arguments)
    except (ExperimentError, ModuleNotFoundError) as error:
        sys.exit(_line(error))
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def _importing() -> Iterator[None]:
    """Ctrl-C ends the process at once: what is interrupted in an import may end in any other error."""
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _line(error: ExperimentError | ModuleNotFoundError) -> str:
    if isinstance(error, ExperimentError):
        return f"torchrl-ob: {error}"
    package = str(error.name).split(".")[0]
    extra = "report" if package == "rliable" else "experiments"
    remedy = f": pip install 'torchrl-ob[{extra}]'" if package in EXTRAS else ""
    return f"torchrl-ob: {error}{remedy}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torchrl-ob", epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=version("torchrl-ob"))
    commands = parser.add_subparsers(required=True, metavar="command")
    commands.add_parser("train", help="train; advantage=coma swaps the advantage, -m sweeps")
    of_run, own, exploration = (argparse.ArgumentParser(add_help=False) for _ in range(3))
    of_run.add_argument("run", type=Path, help="folder of the run")
    of_run.add_argument(
        "--trust", action="store_true", help="call code of others that the run's config names"
    )
    own.add_argument(
        "--config-dir",
        type=Path,
        default=os.environ.get(CONFIG_DIR) or None,
        help="a folder of your own configs; what they name is called",
    )
    exploration.add_argument(
        "--exploration", choices=("deterministic", "stochastic"), default="deterministic"
    )

    def add(command: Callable[..., None], help: str, *parents: Any) -> argparse.ArgumentParser:
        name = command.__name__.removeprefix("_")
        added = commands.add_parser(name, help=help, parents=parents)
        added.set_defaults(command=command)
        return added

    evaluate = add(_eval, "evaluate the newest checkpoint of a run", of_run, own)
    evaluate.add_argument("--episodes", type=_positive, help="how many; as in training by default")
    render = add(_render, "draw an episode of a run as a GIF", of_run, own, exploration)
    render.add_argument("--output", type=Path, help="path of the GIF; by default in the run")
    report = add(_report, "compare runs: curves, intervals, a table", exploration)
    report.add_argument("runs", type=Path, nargs="+", help="folders of runs, or of sweeps")
    report.add_argument("--output", type=Path, default=Path("report"), help="folder; ./report")
    report.add_argument(
        "--metric", default="reward", help="such as reward_adversary, of one group, or win_rate"
    )
    add(_list, "what can be swapped", own)
    return parser


def _own_modules() -> None:
    """Let modules in the working directory be imported."""
    if str(Path.cwd()) not in map(os.path.abspath, sys.path):
        sys.path.append(str(Path.cwd()))


@contextmanager
def _imports(run: Path, *, own: bool) -> Iterator[None]:
    """Import modules in the working directory too, or nothing of it and of the run."""
    if own:
        _own_modules()
    with nullcontext() if own else imports_outside(run):
        yield


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("1 or more")
    return number


def _train(arguments: list[str]) -> None:
    with _importing():
        import hydra
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode
        from omegaconf import DictConfig

        from torchrl_ob.experiments.config.help import write_help
        from torchrl_ob.experiments.config.optimizers import register_optimizers
        from torchrl_ob.experiments.config.overrides import (
            explain,
            find_config_dir,
            folder_name,
            read_override,
        )

        register_optimizers()

    began = False

    def task(config: DictConfig, _: Any = folder_name) -> float:  # a launcher's process imports it
        """What a sweeper looks for the best of."""
        nonlocal began
        began = True
        with _importing():  # of seconds, which a mistyped override need not wait for
            from torchrl_ob.experiments.run import run

        of_hydra = HydraConfig.get()
        try:
            folder = Path(of_hydra.runtime.output_dir)
            run(config, folder, dict(of_hydra.runtime.choices))
            if not _is_first_rank():
                return math.nan
            found = json.loads((folder / "evaluation.json").read_text())
            return float(found["deterministic_reward"][0])
        except (ExperimentError, ModuleNotFoundError) as error:
            if of_hydra.mode is RunMode.MULTIRUN:
                raise  # the other runs go on, and Hydra says which failed
            sys.exit(_line(error))

    logging.getLogger("torchrl").setLevel(logging.WARNING)  # it tells of every buffer it makes
    overrides = [x for x in (read_override(x, config_folder()) for x in arguments) if x]
    overrides += _overrides_of_rank(arguments)
    own = find_config_dir(arguments)
    if own is None and (own := os.environ.get(CONFIG_DIR)):
        overrides[:0] = ["--config-dir", own]
    sys.argv[1:] = overrides
    _own_modules()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come here, to be told in one line
    entry = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="train")
    try:
        if {"--help", "-h"} & {*arguments}:
            settings = [x for x in overrides if "=" in x and not x.startswith("-")]
            show(write_help(settings, config_folder(), own))
        else:
            entry(task)()
    except hydra.errors.HydraException as error:
        raise ExperimentError(explain(error, config_folder(), overrides)) from error
    except (ValueError, OSError) as error:
        if began or (isinstance(error, ValueError) and "Config group override" not in str(error)):
            raise
        remedy = "a group takes the name of a choice, as torchrl-ob list shows."
        if isinstance(error, OSError):
            remedy = "give another hydra.run.dir."
        raise ExperimentError(f"{error}: {remedy}") from error


def _is_first_rank() -> bool:
    """Whether this is the first process of torchrun, or the only one."""
    return os.environ.get("RANK", "0") == "0" or "TORCHELASTIC_RUN_ID" not in os.environ


def _overrides_of_rank(arguments: list[str]) -> list[str]:
    """A folder for Hydra in each process of torchrun but the first, which tells them its own."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return []
    if {"-m", "--multirun"} & {*arguments}:
        raise ExperimentError("torchrun starts the ranks of one run: take -m away, or torchrun.")
    if _is_first_rank():
        return []
    scratch = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    return [f"hydra.run.dir={scratch}"]


def _eval(run: Path, episodes: int | None, trust: bool, config_dir: Path | None) -> None:
    with _imports(run, own=trust or config_dir is not None):
        with _importing():
            from torchrl_ob.experiments.checkpoints import newest_checkpoint
            from torchrl_ob.experiments.evaluation import describe
            from torchrl_ob.experiments.saved import evaluate_run

        show(describe(evaluate_run(run, episodes, trust=trust, config_dir=config_dir)))
        show(f"of {newest_checkpoint(run)}")


def _render(
    run: Path, output: Path | None, exploration: str, trust: bool, config_dir: Path | None
) -> None:
    with _imports(run, own=trust or config_dir is not None):
        with _importing():
            from torchrl_ob.experiments.render import render_run

        show(render_run(run, output, exploration=exploration, trust=trust, config_dir=config_dir))


def _report(runs: list[Path], output: Path, exploration: str, metric: str) -> None:
    with _importing():
        from torchrl_ob.experiments.report import write_report

    show(write_report(runs, output, exploration=exploration, metric=metric))
    show(f"the report is in {output}")


def _list(config_dir: Path | None) -> None:
    from torchrl_ob.experiments.config.optimizers import OPTIMIZERS

    groups = {path.name for path in config_folder().iterdir() if path.is_dir()}
    if config_dir is not None and not config_dir.is_dir():
        raise ExperimentError(
            f"there is no folder {config_dir}, which is to hold your own configs."
        )
    for group in sorted(groups):
        folders = [x / group for x in (config_folder(), config_dir) if x is not None]
        choices = {path.stem for folder in folders for path in folder.glob("*.yaml")}
        if group == "optimizer":
            choices.update(OPTIMIZERS)
        show(f"{group}: {', '.join(sorted(choices))}")


if __name__ == "__main__":
    main()
