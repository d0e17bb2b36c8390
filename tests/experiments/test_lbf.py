"""Level-Based Foraging beside lbforaging stepped by hand, and trained on."""

import copy
import subprocess
import sys

import gymnasium
import lbforaging  # noqa: F401  # registers its tasks
import numpy as np
import pytest
from short_runs import configure, ignored_warnings, scalars
from torchrl.envs import check_env_specs

from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.envs.lbf import make_lbf
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.render import render_run
from torchrl_ob.experiments.run import run

pytestmark = ignored_warnings
TASK = "Foraging-8x8-2p-3f-v3"


def make(task=TASK, num_envs=3, max_steps=50, seed=0, **options):
    return make_lbf(task, num_envs=num_envs, max_steps=max_steps, seed=seed, **options)


@pytest.mark.parametrize("task", [TASK, "Foraging-2s-10x10-3p-3f-coop-v3"])
def test_a_field_is_the_one_of_lbforaging(task):
    env = make(task, num_envs=1)
    check_env_specs(env)
    env.set_seed(3)
    td = env.rollout(120, break_when_any_done=False)[0]
    bare = gymnasium.make(task, disable_env_checker=True).unwrapped
    observations, _ = bare.reset(seed=3)
    for step in td:
        np.testing.assert_array_equal(step["agents", "observation"], np.stack(observations))
        observations, rewards, ended, _, _ = bare.step(step["agents", "action"].tolist())
        assert step["next", "agents", "reward"].flatten().tolist() == pytest.approx(rewards)
        assert step["next", "done"].item() == ended
        is_cut = ended and bare.field.any()
        assert step["next", "truncated"].item() == is_cut
        assert step["next", "terminated"].item() == (ended and not is_cut)
        if ended:
            for player in bare.players:
                player.position = None  # see the next test
            observations, _ = bare.reset()
    assert td["next", "done"].any()


def test_starts_follow_from_the_seed_and_not_from_where_an_episode_ended():
    env = make(num_envs=20)
    first = env.reset()["agents", "observation"]
    assert len({tuple(row.flatten().tolist()) for row in first}) == 20
    for _ in range(3):
        env.rollout(7)
        assert not env.reset()["agents", "observation"].equal(first)
        env.set_seed(0)
        assert env.reset()["agents", "observation"].equal(first)
    assert make(num_envs=20).reset()["agents", "observation"].equal(first)
    assert not make(num_envs=20, seed=1).reset()["agents", "observation"].equal(first)


@pytest.mark.parametrize("limit", [10, 80])
def test_the_limit_is_that_of_the_config_and_cuts_an_episode(limit):
    td = make("Foraging-15x15-2p-4f-coop-v3", max_steps=limit).rollout(200)
    assert td.shape[1] == limit
    assert td["next", "truncated"][:, -1].all()
    assert not td["next", "terminated"].any()
    assert gymnasium.spec(TASK).kwargs["max_episode_steps"] == 50  # the registry is left alone


def test_all_the_food_ends_an_episode_and_its_rewards_sum_to_one():
    env = make("Foraging-5x5-2p-1f-v3", num_envs=40)
    td = env.rollout(50, break_when_any_done=False)
    ended = td["next", "terminated"].squeeze(-1)
    assert ended.any()
    episode = td["next", "agents", "episode_reward"].squeeze(-1).sum(-1)
    assert episode[ended].numpy() == pytest.approx(1.0)
    cut = td["next", "truncated"].squeeze(-1) & ~ended
    assert not episode[cut].any()  # of one food, nothing or all


def test_a_shared_reward_is_the_mean_of_the_team():
    own, shared = (make("Foraging-5x5-3p-1f-v3", 30, shared_reward=x) for x in (False, True))
    td, state = own.rollout(30), shared.reset()
    for t in range(td.shape[1]):
        state["agents", "action"] = td[:, t]["agents", "action"]
        state = shared.step(state)["next"]
        mean = td[:, t]["next", "agents", "reward"].mean(-2, keepdim=True)
        assert state["agents", "reward"].allclose(mean.expand(-1, 3, -1))
    assert td["next", "agents", "reward"].any()


@pytest.mark.parametrize("advantage", ["ob", "gae"])
def test_a_run_trains(advantage, tmp_path):
    config = configure("env=lbf", "evaluation.num_envs=5", f"advantage={advantage}")
    before = build(config, tmp_path / "untrained").actor.state_dict()
    after = run(config, tmp_path / "run").actor.state_dict()
    assert any(not before[key].equal(after[key]) for key in before)
    first = scalars(tmp_path / "run")
    run(copy.deepcopy(config), tmp_path / "again")
    assert scalars(tmp_path / "again") == first
    with pytest.raises(ExperimentError, match=r"again is not of VMAS, and render draws VMAS"):
        render_run(tmp_path / "again")


def test_a_run_that_is_resumed_does_not_see_its_first_starts_again(tmp_path):
    runs = [build(configure("env=lbf"), tmp_path) for _ in range(2)]
    first, second = (parts.collector for parts in runs)
    start = second._carrier["agents", "observation"].clone()
    assert first._carrier["agents", "observation"].equal(start)
    next(iter(first))
    for _ in range(2):
        with pytest.warns(UserWarning, match="episodes begin anew"):
            second.load_state_dict(first.state_dict())
        again = second._carrier["agents", "observation"].clone()
        assert not again.flatten(1).eq(start.flatten(1)).all(-1).any()
        assert not second._carrier["step_count"].any()
    with pytest.warns(UserWarning, match="episodes begin anew"):
        second.load_state_dict(first.state_dict())
    assert second._carrier["agents", "observation"].equal(again)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "Foraging-8x8-2p-3f-v2"}, "no task 'Foraging-8x8-2p-3f-v2': did you mean"),
        ({"task": "pong"}, "no task 'pong': there are .* such as 'Foraging-"),
        ({"scenario_kwargs": {"sigt": 2}}, r"scenario_kwargs=\{'sigt': 2\}: .*sigt"),
    ],
)
def test_what_cannot_work_is_told(options, message):
    with pytest.raises(ExperimentError, match=message):
        make(**options)


def test_arguments_reach_the_field():
    env = make(scenario_kwargs={"sight": 1})
    assert env.base_env._envs[0]._env.unwrapped.sight == 1


def test_what_is_missing_is_told_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "lbforaging", None)
    with pytest.raises(ExperimentError, match=r"^[^\n]*pip install 'torchrl-ob\[lbf\]'$"):
        make()


def test_python_ends_though_fields_in_processes_are_open():
    code = """
from torchrl_ob.experiments.envs.lbf import make_lbf
env = make_lbf("Foraging-5x5-2p-1f-v3", num_envs=1, max_steps=5, seed=0, parallel=True)
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
