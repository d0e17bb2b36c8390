"""What autodoc leaves out: fields of named tuples, which the docstring of their class describes."""

from typing import Any

from sphinx.application import Sphinx


def skip(app: Sphinx, what: str, name: str, item: Any, skipped: bool, options: Any) -> bool | None:
    """Whether a member is left out; ``None`` leaves it to autodoc."""
    return True if type(item).__name__ == "_tuplegetter" else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the choice."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True}
