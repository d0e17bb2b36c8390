"""The config of a run's folder, which may come from anyone: nothing of it is called that is not listed here."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from torchrl_ob.experiments.config.settings import read_choice, walk
from torchrl_ob.experiments.errors import ExperimentError, first_line
from torchrl_ob.experiments.folders import read_text

__all__ = ["TRUSTED", "load_config", "read_config"]

MAKERS = ("lbf", "mamujoco", "pettingzoo", "smacv2", "smax", "vmas")
TRUSTED = {
    "env": frozenset(f"torchrl_ob.experiments.envs.{name}.make_{name}" for name in MAKERS),
    "policy": frozenset({"torchrl_ob.policies.policy_from_env"}),
}
"""What a run's folder may name, and where: the choices of ``configs/env`` and ``configs/policy``."""

TRANSFORMS = frozenset(
    f"torchrl.envs.transforms.{name}"
    for name in (
        "ClipTransform",
        "DoubleToFloat",
        "FiniteTensorDictCheck",
        "ObservationNorm",
        "RewardClipping",
        "RewardScaling",
        "SignTransform",
        "TimeMaxPool",
        "VecNormV2",
    )
)
"""Of an environment's ``transforms``: they compute, and nothing else."""

READ = (*TRUSTED, "evaluation", "seed", "device")
GAME = re.compile(r"(mpe2|pettingzoo)(\.\w+)*\.\w+_v\d+")
ACTIVATIONS = frozenset(f"torch.nn.{name}" for name in ("ELU", "GELU", "ReLU", "SiLU", "Tanh"))
GET_CLASS = "hydra.utils.get_class"
LARGEST = 2**18
DEEPEST = 40


def read_config(
    folder: Path, *, trust: bool = False, config_dir: Path | str | None = None
) -> DictConfig:
    """What of a run's config its actor and its evaluation are built from.

    Args:
        folder: of the run.
        trust: whether what it names may be called, whatever it is.
        config_dir: a folder of the user's own configs: what they name at the same key may be called too.

    Returns:
        The config, in which nothing is left to resolve.

    Raises:
        ExperimentError: where there is none, for what :func:`load_config` refuses, and, without
            ``trust``, where it names a target beyond :data:`TRUSTED`, or code by the name of a module.
    """
    path = folder / "config.yaml"
    if not path.exists():
        raise ExperimentError(f"{folder} is not the folder of a run: it has no config.yaml.")
    config = {key: value for key, value in load_config(path).items() if key in READ}
    if missing := [key for key in READ if key not in config]:
        raise ExperimentError(f"{path} is not the config of a run: it has no {', '.join(missing)}.")
    foreign = [] if trust else sorted({*_foreign_targets(config), *_foreign_modules(config)})
    if foreign and config_dir is not None:
        own = _own_settings(Path(config_dir))
        foreign = [x for x in foreign if x not in own]
    if foreign:
        raise ExperimentError(
            f"{path} names code that is not torchrl_ob's own: {', '.join(map(_shown, foreign))}. Read it, and where you "
            "would run it, add trust=True (in the command --trust), or config_dir=... (--config-dir ...), the folder of your "
            "own configs that name it."
        )
    return OmegaConf.create(config)


def load_config(path: Path) -> dict[str, Any]:
    """A config that a run has saved.

    Args:
        path: of ``config.yaml``.

    Returns:
        Its plain content.

    Raises:
        ExperimentError: where it is no file, too large, no YAML of plain data, no mapping, or has an
            interpolation: what a run saves is resolved.
    """
    text = read_text(path, LARGEST)
    try:
        _require_plain(text)
        loaded = OmegaConf.load(io.StringIO(text))
        content = OmegaConf.to_container(loaded, resolve=False)
    except ExperimentError as error:
        raise ExperimentError(f"{path} {error}") from error
    except Exception as error:  # whichever way it is broken
        raise ExperimentError(f"{path} is not the config of a run: {first_line(error)}.") from error
    if not isinstance(content, dict) or not content:
        raise ExperimentError(f"{path} is not the config of a run: it has no keys.")
    for key, value in walk(content):
        if "${" in key or (isinstance(value, str) and "${" in value):
            raise ExperimentError(
                f"{path} has an interpolation, {_shown(f'{key}={value}')}, and what a run saves has none."
            )
    return {str(key): value for key, value in content.items()}


def _require_plain(text: str) -> None:
    """No aliases, which grow tenfold with every line, and no depth that a reader would drown in."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ExperimentError("has aliases, and what a run saves has none.")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ExperimentError(f"is nested more than {DEEPEST} deep.")


def _foreign_targets(config: Mapping[str, Any]) -> Iterator[str]:
    """Targets beyond the listed ones, and listed ones elsewhere than at the head of their group."""
    for key, target in walk(config):
        group, _, name = key.rpartition(".")
        listed = TRUSTED.get(group, frozenset())
        if group == "policy.activation_class" and _is_activation(config["policy"]):
            listed = frozenset({GET_CLASS})
        if re.fullmatch(r"env\.transforms\[\d+\]", group):
            listed = TRANSFORMS
        if name == "_target_" and not (isinstance(target, str) and target in listed):
            yield f"{key}={target!r}"


def _foreign_modules(config: Mapping[str, Any]) -> Iterator[str]:
    """Names that an environment imports: of a game, and of a scenario where it is a path."""
    env = config.get("env")
    if not isinstance(env, dict):
        return
    task = env.get("task")
    if str(env.get("_target_")).endswith(".make_pettingzoo") and not (
        isinstance(task, str) and GAME.fullmatch(task)
    ):
        yield f"env.task={task!r}"
    scenario = env.get("scenario")
    if scenario is not None and not (isinstance(scenario, str) and scenario.isidentifier()):
        yield f"env.scenario={scenario!r}"


def _own_settings(config_dir: Path) -> set[str]:
    """The settings of a user's own configs, as ``key=value``."""
    if not config_dir.is_dir():
        raise ExperimentError(
            f"there is no folder {config_dir}, which is to hold your own configs."
        )
    return {
        f"{key}={value!r}"
        for path in config_dir.rglob("*.yaml")
        for key, value in read_choice(path).items()
        if key.endswith("._target_") or not isinstance(value, dict | list)
    }


def _is_activation(policy: Mapping[str, Any]) -> bool:
    """Whether the class of its activation is one of torch's by name, and nothing more."""
    names = [{"_target_": GET_CLASS, "path": path} for path in ACTIVATIONS]
    return policy.get("activation_class") in names


def _shown(text: str) -> str:
    """On one line, and with no word to the terminal."""
    return text[:200] if text.isprintable() else ascii(text[:200])
