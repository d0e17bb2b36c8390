"""How sphinx-gallery runs the tutorials: their order, and what one leaves behind for the next."""

from pathlib import Path
from typing import Any

import torch

ORDER = (
    "matrix_game_ob",
    "vmas_navigation_ob",
    "when_ob_pays",
    "variance_on_vmas",
    "dueling_critic",
    "compare_advantages",
)


def order(filename: str) -> tuple[int, str]:
    """Where a tutorial stands in the gallery; those that are not listed come last, by name."""
    name = Path(filename).stem
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def reset_torch(gallery_conf: dict[str, Any], filename: str) -> None:
    """Undo what a tutorial set for its whole process."""
    torch.set_default_dtype(torch.float32)
