"""Importing what a config names: an own module too, and the cause where that fails."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from torchrl_ob.experiments.errors import ExperimentError, first_line, nearest

__all__ = ["load_file", "load_module", "load_object"]

PACKAGES = ("mpe2", "pettingzoo", "tensorboard", "vmas", "wandb")
"""What can be installed of the modules that the configs of this package name."""


def load_module(name: str, key: str, named: str = "") -> ModuleType:
    """The module of a name, of the working directory or installed.

    Args:
        name: such as ``"mpe2.simple_tag_v3"`` or ``"my_game"``.
        key: of the config, for the message.
        named: what stands there, where that is more than the module.

    Raises:
        ExperimentError: in one line: that there is no such module, with the names nearest to it, or what fails in it and where.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise ExperimentError(
            f"{key} must be the name of a module, such as package.module, got {name!r}."
        )
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ExperimentError(
            f"{key}={named or name} cannot be imported: {_reason(name, error)}"
        ) from error


def load_object(name: str, key: str) -> Any:
    """What a dotted name stands for: a module, or a class or a function of one.

    Args:
        name: such as ``"torch.optim.Adam"`` or ``"my_game.make_env"``.
        key: of the config, for the message.

    Raises:
        ExperimentError: in one line.

    Example:
        >>> from torchrl_ob.experiments.config.modules import load_object
        >>> load_object("torch.optim.adam", "optimizer._target_").__name__
        'torch.optim.adam'
    """
    first, *rest = name.split(".")
    found: Any = load_module(first, key, name)
    path = first
    for part in rest:
        path = f"{path}.{part}"
        if hasattr(found, part):
            found = getattr(found, part)
        elif isinstance(found, ModuleType) and _exists(path):
            found = load_module(path, key, name)
        else:
            choices = [x for x in dir(found) if not x.startswith("_")] + _list_modules(found)
            raise ExperimentError(
                f"{key}={name}: {path.rpartition('.')[0]} has no {part!r}{_near(part, choices)}."
            )
    return found


def load_file(path: Path, key: str) -> ModuleType:
    """The module that a file defines.

    Args:
        path: of a ``.py`` file.
        key: of the config, for the message.

    Raises:
        ExperimentError: in one line: that there is no such file, or what fails in it and where.
    """
    if not path.is_file():
        others = [str(x) for x in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ExperimentError(
            f"{key}={path}: there is no such file in {Path.cwd()}{_near(str(path), others)}."
        )
    name = f"{path.stem}_{abs(hash(path.resolve())):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ExperimentError(f"{key}={path} cannot be imported: {_reason(name, error)}") from error
    return module


def _reason(name: str, error: Exception) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and f"{name}.".startswith(f"{missing}."):
        return _not_there(missing)
    remedy = f": pip install {missing}" if missing in PACKAGES else ""
    return f"{_place(error)}{type(error).__name__}: {first_line(error)}{remedy}"


def _not_there(missing: str) -> str:
    package, _, name = missing.rpartition(".")
    if package:
        modules = _list_modules(importlib.import_module(package))
        return f"{package} has no {name!r}: {nearest(name, modules) if modules else 'it is not a package.'}"
    if missing in PACKAGES:
        return f"pip install {missing}"
    near = _near(missing, [x.name for x in pkgutil.iter_modules([str(Path.cwd())])])
    return f"there is no module {missing!r} in {Path.cwd()} or among the installed packages{near}."


def _place(error: Exception) -> str:
    """The line of a user's file where an import failed."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: "
    frames = traceback.extract_tb(error.__traceback__)
    # neither this file nor Python's own import
    own = [x for x in frames if x.filename != __file__ and "importlib" not in x.filename]
    return f"{os.path.relpath(own[-1].filename)}, line {own[-1].lineno}: " if own else ""


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent is no package
        return False


def _list_modules(package: Any) -> list[str]:
    return [x.name for x in pkgutil.iter_modules(getattr(package, "__path__", []))]


def _near(name: str, choices: list[str]) -> str:
    near = nearest(name, choices)
    return f": {near[:-1]}" if near.startswith("did you mean") else ""
