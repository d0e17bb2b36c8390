"""What the README and the pages of the site show runs."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from pipelines import ignore_trainer_warnings

from torchrl_ob.train import main

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
ELSEWHERE = ("getting_started", "load_policy", "own_parts")  # the last in a test of the command
PAGES = sorted(
    page.relative_to(ROOT)
    for page in ROOT.glob("docs/**/*.md")
    if "```python" in page.read_text() and page.stem not in ELSEWHERE
)


def run(page, scope):
    """Run the examples of a page from top to bottom."""
    for example in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        exec(example, scope)
    return scope


@pytest.fixture(scope="module")
def started():
    """What the reader of a page has from the page *Getting started*."""
    return run("docs/getting_started.md", {})


def test_the_first_example_runs_and_prints(capsys):
    scope = run("README.md", {})
    assert scope["batch"]["advantage"].shape == (8, 100, 3, 1)
    assert scope["loss"].value_estimator is scope["advantage"]
    assert all(x.isfinite().all() for x in scope["losses"].values())
    assert len(re.findall(r"reward .*, advantage \d", capsys.readouterr().out)) == 3


@ignore_trainer_warnings
@pytest.mark.filterwarnings("ignore:the critic ignores the action")  # it is not trained
@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_examples_of_a_page_run(page, started, capsys):
    scope = run(page, dict(started))
    check = CHECKS.get(page.stem)
    if check is not None:
        check(scope, capsys.readouterr().out)


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_the_commands_of_a_page_run_and_what_they_train_is_loaded(started, tmp_path, monkeypatch):
    page = ROOT / "docs" / "how_to" / "resume_sweep_report.md"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.splitlines():
            small = line.replace("experiment=navigation", "experiment=[navigation,smoke]")
            monkeypatch.setattr(sys, "argv", shlex.split(small))
            main()
    assert len(list(tmp_path.glob("runs/sweep/**/metrics.png"))) == 4
    assert (tmp_path / "runs/mine/evaluation.json").exists()
    assert "| navigation | ob | 2 |" in (tmp_path / "runs/report/report.md").read_text()
    scope = run("docs/how_to/load_policy.md", dict(started))
    assert scope["played"].shape == (10, 100)
    parameters = (scope[name].parameters() for name in ("policy", "again"))
    assert all(x.equal(y) for x, y in zip(*parameters, strict=True))


def check_diagnostics(scope, out):
    assert "baselines can remove at most" in out
    assert scope["branches"].returns.shape == (2, 16, 8, 8, 3)
    assert re.search(r"tensor\(673\.", out)


def check_critics(scope, out):
    assert all(x.isfinite().all() for x in scope["terms"].values())
    values = scope["of_team"].team.q(scope["team_batch"])
    assert values.equal(values[..., :1, :].expand_as(values))  # one for the team
    assert scope["quality"].slope.value.isfinite().all()


def check_groups(scope, out):
    for group, n in (("adversary", 3), ("agent", 1)):
        assert scope["rollout"][group, "advantage"].shape == (8, 100, n, 1)
    assert all(found["loss_objective"].isfinite() for found in scope["terms"])
    assert len(scope["parameters"]) < sum(
        len(list(loss.parameters())) for loss in scope["losses"].values()
    )


def check_own_baseline(scope, out):
    assert scope["own_loss"].value_estimator is scope["difference"]
    assert scope["moved"][0] < 1e-5
    assert scope["moved"][1:].min() > scope["moved"][0]


def check_own_critic(scope, out):
    assert scope["batch"]["agents", "baseline"].shape == (8, 100, 3, 1)
    assert all(x.isfinite().all() for x in scope["losses"].values())
    assert scope["batch"]["agents", "state_action_value"].shape == (8, 100, 3, 1)
    trajectories, features = scope["trajectories"], scope["features"]
    assert trajectories["advantage"].isfinite().all()
    for critic in (scope["remembering"], scope["averaging"]):
        encoded = critic.encode(trajectories)
        torch.testing.assert_close(encoded["next", *features][:, :-1], encoded[features][:, 1:])


def check_memory(scope, out):
    collected = scope["collected"]
    assert not collected["is_init"][:, 0].any()  # the second batch goes on within episodes
    assert collected["agents", "critic_hidden"][:, 0].abs().sum() > 0
    assert all(x.isfinite().all() for x in scope["terms"].values())


def check_own_distribution(scope, out):
    assert scope["by_autodiff"].shape == (8, 100, 3, 1)
    assert scope["registered"].isfinite().all()  # and equal, as the page asserts


def check_value_norm(scope, out):
    assert scope["normed_loss"].value_norm is scope["normed_critic"].value_norm
    assert all(x.isfinite().all() for x in scope["losses"].values())


def check_trainer(scope, out):
    assert scope["trainer"].collected_frames == 2_400
    assert scope["trainer"]._optim_count >= 3 * 4 * 4  # batches, epochs, minibatches


def check_benchmarl(scope, out):
    ours, theirs = (
        {"vmas": {"navigation": {name: {"seed_0": {"step_0": {"return": [0.0]}}}}}}
        for name in ("ob", "mappo")
    )
    assert set(scope["merge"]([ours, theirs])["vmas"]["navigation"]) == {"ob", "mappo"}


CHECKS = {
    "diagnostics": check_diagnostics,
    "critics": check_critics,
    "groups_and_masks": check_groups,
    "own_baseline": check_own_baseline,
    "own_critic": check_own_critic,
    "memory": check_memory,
    "own_distribution": check_own_distribution,
    "value_norm": check_value_norm,
    "trainer": check_trainer,
    "benchmarl": check_benchmarl,
}


def test_the_readme_stays_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_to_files(page):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text()):
        assert (ROOT / link).exists(), link
