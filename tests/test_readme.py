"""What the README shows runs."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()


def run(name, scope):
    example = re.search(rf"<!-- {name} -->\n```python\n(.*?)```", README, re.DOTALL)
    exec(example.group(1), scope)
    return scope


@pytest.fixture(scope="module")
def scope():
    return run("readme-example", {})


def test_the_example_runs(scope):
    assert scope["batch"]["advantage"].shape == (8, 100, 3, 1)
    assert scope["losses"]["loss_objective"].isfinite()


@pytest.mark.filterwarnings("ignore:the critic ignores the action")  # it is not trained
def test_the_diagnostics_run_on_it(scope, capsys):
    run("readme-diagnostics", scope)
    assert "baselines can remove at most" in capsys.readouterr().out
    run("readme-branching", scope)
    assert scope["branches"].returns.shape == (2, 16, 8, 8, 3)


def test_the_dueling_critic_is_fitted_on_it(scope):
    found = run("readme-dueling", dict(scope))
    assert found["losses"]["loss_objective"].isfinite()
    assert found["critic"].effect_units.scale > 0
    assert found["report"]["critic/effect_explained"] == 0  # measured before the fit


def test_the_groups_learn_from_advantages_of_their_own(scope):
    run("readme-groups", scope)
    for group, n in (("adversary", 3), ("agent", 1)):
        assert scope["rollout"][group, "advantage"].shape == (8, 100, n, 1)
    assert all(found["loss_objective"].isfinite() for found in scope["terms"])
    assert len(scope["parameters"]) < sum(
        len(list(loss.parameters())) for loss in scope["losses"].values()
    )


def test_files_it_names_exist():
    root = Path(__file__).parent.parent
    for name in re.findall(
        r"`((?:tutorials|benchmarks|docs)/[\w./]+)`|\]\((docs/[\w./]+)\)", README
    ):
        assert (root / (name[0] or name[1])).exists(), name
