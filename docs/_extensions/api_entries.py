"""The entries of the API reference: which members autodoc leaves out, and the arguments of a class."""

import inspect
from typing import Any

from sphinx.application import Sphinx


def skip(app: Sphinx, what: str, name: str, item: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out fields of named tuples, which the docstring of their class describes; ``None`` keeps a member."""
    return True if type(item).__name__ == "_tuplegetter" else None


def arguments(
    app: Sphinx,
    what: str,
    name: str,
    item: Any,
    options: Any,
    shown: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """The arguments of a class, where a metaclass of TorchRL or tensordict hides them."""
    if what != "class" or shown != "(*args, **kwargs)":
        return shown, returns
    signature = inspect.signature(item.__init__)
    plain = [x.replace(annotation=x.empty) for x in list(signature.parameters.values())[1:]]
    return str(inspect.Signature(plain)), returns


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the choices."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", arguments)
    return {"parallel_read_safe": True}
