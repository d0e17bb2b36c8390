"""Metrics during training: what is logged, when, and that training does not notice."""

import pytest
import torch
from pipelines import collect, ignore_trainer_warnings, make_pipeline, make_trainer
from torchrl.objectives import ClipPPOLoss
from torchrl.record import CSVLogger

from torchrl_ob import ObAdvantage
from torchrl_ob.diagnostics import (
    VarianceLogger,
    critic_quality,
    gradient_variance,
    plot_live,
    plot_ratios,
    plot_terms,
    plot_variance,
    variance_metrics,
    variance_terms,
)


def make_parts(continuous=True):
    env, actor, critic, loss = make_pipeline(ClipPPOLoss, continuous)
    advantage = ObAdvantage(actor_network=actor, value_network=critic, gamma=0.99, lmbda=0.9)
    loss.make_value_estimator(advantage)
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key, action=env.action_key)
    return env, actor, loss, advantage


@pytest.fixture(scope="module")
def measured_batch():
    env, actor, _, advantage = make_parts()
    return advantage, collect(env, actor)


def test_metrics_are_what_the_diagnostics_say(measured_batch):
    advantage, batch = measured_batch
    metrics = variance_metrics(advantage, batch)
    measured = gradient_variance(advantage, batch, num_draws=4)
    quality = critic_quality(advantage, batch, num_draws=4)
    for name, variance in measured.variance.items():
        for agent, value in enumerate(variance.value.tolist()):
            assert metrics.pop(f"variance/{name}/agent_{agent}") == pytest.approx(value)
    for name in ("none", "v", "coma"):
        ratio = measured.ratio[name].value.item()
        assert metrics.pop(f"variance/{name}_over_ob") == pytest.approx(ratio)
    assert metrics.pop("critic/q_spread") == pytest.approx(quality.q_spread.value.mean().item())
    explained = quality.explained_variance.value.mean().item()
    assert metrics.pop("critic/explained_variance") == pytest.approx(explained)
    assert not metrics


@ignore_trainer_warnings
def test_hook_logs_at_its_interval_and_the_picture_reads_it(tmp_path):
    env, actor, loss, advantage = make_parts()
    logger = CSVLogger("run", log_dir=str(tmp_path))
    trainer = make_trainer(env, actor, loss, advantage, num_batches=5, logger=logger)
    VarianceLogger(advantage, interval=2).register(trainer)
    trainer.train()
    scalars = tmp_path / "run" / "scalars"
    rows = (scalars / "variance" / "coma_over_ob.csv").read_text().split()
    assert [int(row.split(",")[0]) for row in rows] == [40, 120, 200]  # batches 1, 3 and 5
    assert len(list((scalars / "variance" / "ob").glob("agent_*.csv"))) == 3
    figure = plot_live(tmp_path / "run")
    lines = {line.get_label(): line for panel in figure.axes for line in panel.get_lines()}
    assert set(lines) == {
        *(f"{name}_over_ob" for name in ("none", "v", "coma")),
        "q_spread",
        "explained_variance",
    }
    assert lines["coma_over_ob"].get_xdata() == pytest.approx([40, 120, 200])
    drawn = lines["coma_over_ob"].get_ydata()
    assert drawn == pytest.approx([float(row.split(",")[1]) for row in rows])


@ignore_trainer_warnings
def test_training_is_the_same_with_and_without_metrics():
    weights = []
    for with_metrics in (False, True):
        env, actor, loss, advantage = make_parts()
        trainer = make_trainer(env, actor, loss, advantage, num_batches=3)
        if with_metrics:
            VarianceLogger(advantage, interval=1).register(trainer)
        trainer.train()
        weights.append([p.clone() for p in loss.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@ignore_trainer_warnings
def test_hook_goes_on_counting_after_a_restart(measured_batch):
    advantage, batch = measured_batch
    hook = VarianceLogger(advantage, interval=2)
    assert hook(batch) is not None
    resumed = VarianceLogger(advantage, interval=2)
    resumed.load_state_dict(hook.state_dict())
    assert resumed(batch) is None
    assert resumed(batch) is not None
    with pytest.raises(ValueError, match="interval must be 1 or more, got 0"):
        VarianceLogger(advantage, interval=0)


def test_pictures_show_the_numbers(measured_batch, tmp_path):
    advantage, batch = measured_batch
    measured = gradient_variance(advantage, batch)
    figure = plot_variance(measured)
    heights = [[bar.get_height() for bar in bars] for bars in bar_groups(figure)]
    for row, variance in zip(heights, measured.variance.values(), strict=True):
        assert row == pytest.approx(variance.value.tolist())
    terms = variance_terms(advantage, batch)
    figure = plot_terms(terms, baseline="coma")
    *_, own, later = bar_groups(figure)
    assert [bar.get_height() for bar in own] == pytest.approx(
        terms.own["coma"].value.clamp(min=0).tolist()
    )
    assert [bar.get_height() for bar in later] == pytest.approx(
        terms.later["coma"].value.clamp(min=0).tolist()
    )
    figure = plot_ratios({4: measured, 2: measured})
    line = next(x for x in figure.axes[0].get_lines() if x.get_label() == "v")
    assert list(line.get_xdata()) == [2, 4]
    assert line.get_ydata() == pytest.approx([measured.ratio["v"].value.item()] * 2)
    figure.savefig(tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


def bar_groups(figure):
    return [c for c in figure.axes[0].containers if hasattr(c, "patches")]


def test_the_picture_has_a_row_for_each_group_of_agents(tmp_path):
    for group, value in (("cats", 2), ("mice", 3)):
        for name in ("variance/v_over_ob", "variance/ob/agent_0", "critic/q_spread"):
            path = tmp_path / "scalars" / group / f"{name}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"10,{value}\n20,{value}\n")
    panels = plot_live(tmp_path).axes
    drawn = [(x.get_title(), [y.get_ydata()[0] for y in x.get_lines()]) for x in panels]
    assert drawn == [
        ("cats: variance over OB's", [2]),
        ("cats: critic", [2]),
        ("mice: variance over OB's", [3]),
        ("mice: critic", [3]),
    ]


def test_picture_of_an_empty_folder_says_what_it_wants(tmp_path):
    with pytest.raises(FileNotFoundError, match="the folder of the experiment"):
        plot_live(tmp_path)


def test_pictures_without_matplotlib_say_what_to_install(measured_batch, monkeypatch):
    measured = gradient_variance(*measured_batch)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"torchrl-ob\[plots\]"):
        plot_variance(measured)
