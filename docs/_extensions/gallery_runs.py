"""How sphinx-gallery runs the tutorials: their order, what one leaves behind for the next, and their pictures."""

import shutil
from pathlib import Path
from typing import Any

import torch
from sphinx_gallery.scrapers import figure_rst

ORDER = (
    "matrix_game_ob",
    "vmas_navigation_ob",
    "vmas_trainer_ob",
    "discrete_and_masks",
    "groups_simple_tag",
    "remember_the_cue",
    "own_baseline_and_critic",
    "when_ob_pays",
    "variance_on_vmas",
    "critic_accuracy",
    "compare_advantages",
)
PICTURES = ("*.png", "*/*.png", "*/*.gif", "*/report/*.png")  # in the folder runs
_shown: dict[Path, float] = {}
"""When each picture that was shown, or was there before the tutorial, was written."""


def order(filename: str) -> tuple[int, str]:
    """Where a tutorial stands in the gallery; those that are not listed come last, by name."""
    name = Path(filename).stem
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


def reset(gallery_conf: dict[str, Any], filename: str) -> None:
    """Undo what a tutorial set for its whole process, and note which pictures are there before the next."""
    torch.set_default_dtype(torch.float32)
    _new_pictures(Path(gallery_conf["examples_dirs"][0]))


def saved_pictures(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Show the pictures that a block of code has saved."""
    shown = []
    for picture in _new_pictures(Path(block_vars["src_file"]).parent):
        path = Path(block_vars["image_path_iterator"].next()).with_suffix(picture.suffix)
        shown.append(str(shutil.copy(picture, path)))
    return figure_rst(shown, gallery_conf["src_dir"])


def _new_pictures(folder: Path) -> list[Path]:
    written = {
        path: path.stat().st_mtime
        for pattern in PICTURES
        for path in sorted((folder / "runs").resolve().glob(pattern))
    }
    new = [path for path, time in written.items() if _shown.get(path) != time]
    _shown.update(written)
    return new
