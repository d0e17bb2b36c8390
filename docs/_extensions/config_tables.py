"""The directive ``config-tables``: tables of every option of ``torchrl-ob train``, read from ``configs/``."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from torchrl_ob.experiments.config.help import Option, list_options, read_package, read_remark

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def options(text: str) -> Iterator[Option]:
    """The numbers and words of a config with their dotted names, lists of defaults and Hydra's own left out."""
    for option in list_options(text):
        first, last = option.name.split(".")[0], option.name.split(".")[-1]
        if option.value and first not in ("defaults", "hydra") and not last.startswith("_"):
            yield option


def inherits(text: str) -> bool:
    """Whether a config starts from another of its group."""
    return bool(re.search(r"^  - (?!_self_)\w+$", text.partition("defaults:")[2], re.MULTILINE))


def row(*cells: str) -> str:
    """A row of a table."""
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """A table as markdown."""
    return [row(*header), row(*("---" for _ in header)), *(row(*cells) for cells in rows), ""]


def markdown() -> str:
    """All tables: the options of every run; then the choices of each group, and the options of its choices."""
    train = (CONFIGS / "train.yaml").read_text()
    chosen = dict(re.findall(r"^  - (\w+): (\w+)$", train, re.MULTILINE))
    lines = ["### Every run", "", *_options(train, "")]
    for group in sorted(x.name for x in CONFIGS.iterdir() if x.is_dir()):
        texts = {path.stem: path.read_text() for path in sorted((CONFIGS / group).glob("*.yaml"))}
        rows, tables = [], {}
        for name, text in texts.items():
            default = " (default)" if name == chosen.get(group) else ""
            changes = "" if group == "experiment" else _changes(text)
            rows.append(
                (f"`{name}`{default}", " ".join(filter(None, (read_remark(text), changes))))
            )
            if group != "experiment" and not inherits(text):
                prefix = read_package(text, group)
                tables.setdefault(tuple(_options(text, prefix)), []).append(f"`{group}={name}`")
        lines += [f"### {group}", "", *table((f"`{group}=`", "what it is"), rows)]
        for found, names in tables.items():
            if found:
                lines += [f"Options of {', '.join(names)}:", "", *found]
    return "\n".join(lines)


def _options(text: str, prefix: str) -> list[str]:
    rows = [(f"`{prefix}{x.name}`", f"`{x.value}`", x.comment) for x in options(text)]
    return table(("option", "default", "meaning"), rows) if rows else []


def _changes(text: str) -> str:
    """What a config that starts from another changes in it."""
    if not inherits(text):
        return ""
    return ", ".join(
        f"`{x.name}={x.value}`" + f" ({x.comment})" * bool(x.comment) for x in options(text)
    )


class ConfigTables(SphinxDirective):
    """Puts the tables where it stands."""

    def run(self) -> list[nodes.Node]:
        """Parse them as part of the page."""
        for path in CONFIGS.rglob("*.yaml"):
            self.env.note_dependency(str(path))
        return self.parse_text_to_nodes(markdown(), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("config-tables", ConfigTables)
    return {"parallel_read_safe": True}
