"""Names of the folders of a sweep's runs, which a file system takes whatever the overrides are."""

from __future__ import annotations

import hashlib

from omegaconf import OmegaConf

__all__ = ["folder_name"]

LONGEST = 200
"""In bytes. File systems take 255; the rest is for what is written beside a folder of that name."""


def folder_name(overrides: str) -> str:
    """The overrides of a run as the name of its folder.

    Names that are too long are cut, and a slash is a dash; a hash of the whole then tells such names apart.

    Args:
        overrides: such as ``"advantage=ob,seed=0"``.

    Example:
        >>> from torchrl_ob.experiments.folder_names import folder_name
        >>> folder_name("advantage=ob,seed=0")
        'advantage=ob,seed=0'
        >>> folder_name("env.scenario=games/mine.py,seed=0")
        'env.scenario=games-mine.py,seed=0-d244caae'
    """
    name = overrides.replace("/", "-").replace("\0", "-")
    kept = name.encode()[:LONGEST].decode(errors="ignore")
    if kept == overrides and overrides not in (".", ".."):
        return overrides
    return f"{kept}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"


# where this is imported, in the processes of a launcher too, configs can say ${folder_name:...}
OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
