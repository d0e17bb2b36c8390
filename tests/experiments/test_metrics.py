"""What a run logs: the numbers, their names, and when they are taken."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from short_runs import configure, ignored_warnings, scalars
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.evaluation import Evaluation
from torchrl_ob.experiments.loop import estimate, improve, measure, train
from torchrl_ob.experiments.metrics import (
    as_numbers,
    critic_metrics,
    make_stopwatch,
    name_report,
    reward_metrics,
)

pytestmark = ignored_warnings
DOUBLE = torch.float64


def learner(critic, group="a"):
    keys = SimpleNamespace(value_target=(group, "value_target"))
    module = TensorDictModule(critic, [(group, "x")], [(group, "value")])
    return SimpleNamespace(
        group=group, critic=module, loss=SimpleNamespace(tensor_keys=keys), streams=None
    )


def batch_of(x, target, group="a"):
    return TensorDict({group: {"x": x, "value_target": target}}, x.shape[:2])


def test_explained_variance_is_that_of_every_agent_over_the_steps():
    x, noise = (torch.randn(3, 4, 2, 1, dtype=DOUBLE) for _ in range(2))
    target = 2 * x + noise * torch.tensor([0.1, 3.0]).reshape(2, 1)
    expected = 0
    for agent in range(2):  # the obvious loop
        g = [float(v) for v in target[:, :, agent].flatten()]
        q = [2 * float(v) for v in x[:, :, agent].flatten()]
        rest = [a - b for a, b in zip(g, q, strict=True)]
        spread = [sum((v - sum(z) / 12) ** 2 for v in z) for z in (rest, g)]
        expected += (1 - spread[0] / spread[1]) / 2
    for chunk_size in (1, 5, 100):
        found = critic_metrics([learner(lambda x: 2 * x)], batch_of(x, target), chunk_size)
        assert found["critic/explained_variance"].item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("critic", "target", "expected"),
    [
        (lambda x: x + 5, lambda x: x, 1),  # but for a constant
        (torch.zeros_like, lambda x: x, 0),
        (lambda x: 3 * x, lambda x: x, -3),
        (torch.zeros_like, torch.ones_like, math.nan),  # nothing varies
    ],
)
def test_explained_variance_of_known_critics(critic, target, expected):
    x = torch.randn(5, 4, 3, 1, dtype=DOUBLE)
    batch = batch_of(x, target(x)).update(batch_of(x, x, "b"))
    found = critic_metrics([learner(critic), learner(lambda x: x, "b")], batch, 7)
    assert found["critic/explained_variance_a"].item() == pytest.approx(expected, nan_ok=True)
    assert found["critic/explained_variance_b"].item() == 1
    assert "value" not in batch["a"].keys()  # noqa: SIM118


def test_lengths_are_of_episodes_that_end():
    done = torch.tensor([[False, True, False], [True, False, True]]).unsqueeze(-1)
    steps = torch.tensor([[6, 7, 1], [4, 1, 2]]).unsqueeze(-1)
    following = {"done": done, "step_count": steps}
    following |= {"a": {"reward": torch.ones(2, 3, 2, 1), "episode_reward": torch.ones(2, 3, 2, 1)}}
    batch = TensorDict({"next": following}, [2, 3])
    found = reward_metrics(batch, {"a": ("a", "reward")})
    assert found["train/episode_length"].item() == pytest.approx((7 + 4 + 2) / 3)
    batch["next", "done"] = torch.zeros_like(done)
    assert set(reward_metrics(batch, {"a": ("a", "reward")})) == {"train/reward"}


def test_an_evaluation_counts_the_steps_of_the_first_episode(monkeypatch):
    from torchrl_ob.experiments.envs.vmas import make_vmas

    env, lengths = make_vmas("balance", num_envs=3, max_steps=9, seed=0), [2, 5, 9]
    rollout = env.rollout

    def ends_early(*arguments, **options):
        batch = rollout(*arguments, **options)
        for which, length in enumerate(lengths):
            batch["next", "done"][which, length - 1] = True
        return batch

    monkeypatch.setattr(env, "rollout", ends_early)
    evaluation = Evaluation(env, None, max_steps=9, interval=1, seed=0)
    assert evaluation.episodes("stochastic")["episode_length"].tolist() == lengths


def test_numbers_are_fetched_together_and_whole():
    tensors = {"a": torch.tensor(0.1), "b/c": torch.tensor(0.1, dtype=DOUBLE), "n": torch.tensor(7)}
    found = as_numbers({"x": 0.3, **tensors})
    assert list(found) == ["x", "a", "b/c", "n"]
    assert found == {"x": 0.3, **{name: x.item() for name, x in tensors.items()}}


class Waits(TorchDispatchMode):
    """Counts what would wait for a GPU: numbers that Python reads, and shapes that depend on values."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.split(".")[0]
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero"):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


def test_what_a_batch_tells_waits_for_no_device(tmp_path):
    parts = build(configure("env.scenario=balance", "trainer.num_epochs=1"), tmp_path)
    batch = next(iter(parts.collector))
    estimate(parts, batch)
    report = TensorDict(loss_critic=torch.ones(()), entropy=torch.ones(()))
    with Waits() as waits:
        measure(parts, batch)
        name_report(report)
    assert waits.seen == []
    with Waits() as waits:
        found = as_numbers(name_report(report))
    assert len(waits.seen) == len(found) == 2  # of what is on the CPU by then


def test_a_stopwatch_counts_from_the_last_look(monkeypatch):
    times = iter([1.0, 3.5, 4.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    lap = make_stopwatch()
    assert [lap(), lap()] == [2.5, 0.5]


def test_what_losses_report_is_named_by_what_it_is():
    report = TensorDict(loss_objective_hound=1.0, loss=2.0, kl_approx=3.0, many=torch.ones(2))
    assert {name: x.item() for name, x in name_report(report).items()} == {
        "loss/objective_hound": 1,
        "loss/loss": 2,
        "train/kl_approx": 3,
    }


def test_a_run_logs_under_five_names_with_its_schedule_and_seconds(tmp_path):
    parts = build(configure("env.scenario=simple_tag", "loss=mappo", "env.num_envs=20"), tmp_path)
    train(parts)
    parts.close()
    metrics = {str(path.with_suffix("")): text for path, text in scalars(tmp_path).items()}
    assert {name.split("/")[0] for name in metrics} == {"train", "eval", "loss", "critic"}
    assert metrics["train/learning_rate"] == "200,0.001\n400,0.0005\n"
    assert metrics["train/optim_steps"] == "200,4.0\n400,8.0\n"
    assert {"critic/explained_variance_agent", "loss/critic_adversary"} <= metrics.keys()
    timers = (tmp_path / "metrics" / "scalars" / "timer").glob("*.csv")
    found = {path.stem: path.read_text().splitlines() for path in timers}
    assert {name: len(rows) for name, rows in found.items()} == {
        "collection": 2,
        "update": 2,
        "evaluation": 3,
    }
    assert all(float(row.split(",")[1]) > 0 for rows in found.values() for row in rows)


def test_the_critic_is_judged_before_it_learns_from_the_batch(tmp_path):
    parts = build(configure("env.scenario=balance", "trainer.num_epochs=30"), tmp_path)
    batch = next(iter(parts.collector))
    estimate(parts, batch)
    before = measure(parts, batch)["critic/explained_variance"]
    improve(parts, batch)
    assert measure(parts, batch)["critic/explained_variance"] > before + 0.1
    for parameter in parts.critic.parameters():
        nn.init.zeros_(parameter)
    assert measure(parts, batch)["critic/explained_variance"].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("battle", [False, True])
def test_the_progress_bar_shows_the_last_evaluation_too(battle, tmp_path, capsys, monkeypatch):
    parts = build(configure("env.scenario=balance", "progress_bar=true"), tmp_path)
    evaluations = iter([-1.5, 0.25, 7.0])
    found = {"eval/deterministic_win_rate": 0.5} if battle else {}
    monkeypatch.setattr(
        parts.evaluation,
        "metrics",
        lambda: {"eval/deterministic_reward": torch.tensor(next(evaluations)), **found},
    )
    train(parts)
    rewards = scalars(tmp_path)[Path("train/episode_reward.csv")]
    last = float(rewards.splitlines()[-1].split(",")[1])
    told = capsys.readouterr().err
    assert f"reward={last:.2f}" in told
    assert "evaluation=7.00" in told
    assert ("won=0.50" in told) == battle
