"""What the README shows runs."""

import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_runs():
    example = re.search(r"<!-- readme-example -->\n```python\n(.*?)```", README, re.DOTALL)
    scope = {}
    exec(example.group(1), scope)
    assert scope["batch"]["advantage"].shape == (8, 100, 3, 1)
    assert scope["losses"]["loss_objective"].isfinite()


def test_files_it_names_exist():
    root = Path(__file__).parent.parent
    for name in re.findall(
        r"`((?:tutorials|benchmarks|docs)/[\w./]+)`|\]\((docs/[\w./]+)\)", README
    ):
        assert (root / (name[0] or name[1])).exists(), name
