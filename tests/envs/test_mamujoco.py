"""Multi-Agent MuJoCo beside gymnasium-robotics stepped by hand, and trained on."""

import sys

import numpy as np
import pytest
import torch
from gymnasium_robotics import mamujoco_v1
from short_runs import configure, ignored_warnings, scalars
from torchrl.envs import check_env_specs

from torchrl_ob.envs.mamujoco import SCENARIOS, MaMujocoEnv
from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.envs.mamujoco import make_mamujoco
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.run import run

pytestmark = ignored_warnings
ROBOTS = [("Hopper", "3x1"), ("Swimmer", "2x1"), ("HalfCheetah", "6x1"), ("Walker2d", "2x3")]
UNEQUAL = [("Humanoid", "9|8"), ("Ant", "2x4d"), ("ManySegmentSwimmer", "2x2")]


def make(scenario="Hopper", agent_conf="3x1", num_envs=2, max_steps=50, seed=0, **options):
    options = {"num_envs": num_envs, "max_steps": max_steps, "seed": seed, **options}
    return make_mamujoco(scenario, agent_conf, **options)


@pytest.mark.parametrize(("scenario", "agent_conf"), ROBOTS + UNEQUAL)
def test_a_robot_is_the_one_of_gymnasium_robotics(scenario, agent_conf):
    env = MaMujocoEnv(scenario, agent_conf)
    check_env_specs(env)
    env.set_seed(3)
    td = env.rollout(30)
    bare = mamujoco_v1.parallel_env(scenario, agent_conf, agent_obsk=1)
    observations, _ = bare.reset(seed=3)
    names, n = bare.possible_agents, len(bare.possible_agents)
    bounds = td["agents", "action"].new_tensor(bare.action_space(names[0]).high[0])
    assert (td["agents", "action"].abs() <= bounds).all()
    assert td["agents", "action"].abs().max() > 0.9 * bounds
    for step in td:
        for k, (row, agent) in enumerate(zip(step["agents", "observation"], names, strict=True)):
            seen, filled, identity = (
                row[: len(observations[agent])],
                row[len(observations[agent]) : -n],
                row[-n:],
            )
            np.testing.assert_array_equal(seen, observations[agent].astype(np.float32))
            assert not filled.any()
            assert identity.argmax() == k
            assert identity.sum() == 1
        np.testing.assert_array_equal(step["state"], bare.state().astype(np.float32))
        sizes = [bare.action_space(agent).shape[0] for agent in names]
        actions = zip(names, step["agents", "action"].numpy(), sizes, strict=True)
        observations, rewards, terminated, truncated, _ = bare.step(
            {agent: action[:size] for agent, action, size in actions}
        )
        reward = np.float32(rewards[names[0]])
        assert step["next", "agents", "reward"].flatten().tolist() == [reward] * n
        assert step["next", "terminated"].item() == terminated[names[0]]
        assert step["next", "truncated"].item() == truncated[names[0]]


def test_observations_of_unequal_agents_are_filled_up_and_idle_actuators_do_nothing():
    env = MaMujocoEnv("Humanoid", "9|8")
    assert env.num_actuators == [9, 8]
    outcomes = []
    for idle in (-0.4, 0.4):
        env.set_seed(0)
        td = env.reset()
        td["agents", "action"] = torch.zeros(2, 9)
        td["agents", "action"][1, 8] = idle
        outcomes.append(env.step(td)["next", "state"])
        td["agents", "action"][0, 8] = idle  # another one, which does something
        outcomes.append(env.step(td)["next", "state"])
    assert outcomes[0].equal(outcomes[2])
    assert not outcomes[1].equal(outcomes[3])


def test_a_fall_terminates_and_a_limit_truncates():
    td = make("Hopper", "3x1", num_envs=4, max_steps=20).rollout(60, break_when_any_done=False)
    done, terminated, truncated = (td["next", key] for key in ("done", "terminated", "truncated"))
    assert terminated.any()
    assert truncated.any()
    assert done.equal(terminated | truncated)
    assert truncated.equal(td["next", "step_count"] == 20)
    heights = td["next", "state"][..., 0]
    assert (heights[~terminated.squeeze(-1)] > 0.7).all()  # of gymnasium's healthy_z_range
    td = make("HalfCheetah", "6x1", num_envs=1, max_steps=2000).rollout(1500)
    assert td.shape[1] == 1000  # gymnasium's own limit
    assert td["next", "truncated"][0, -1]
    assert not td["next", "terminated"].any()


def starts(env):
    return env.reset()["agents", "observation"]


def test_every_robot_has_a_seed_of_its_own_that_follows_from_one():
    first = starts(make(num_envs=3))
    assert not first[0].equal(first[1])
    assert not first[1].equal(first[2])
    assert starts(make(num_envs=3)).equal(first)
    assert not starts(make(num_envs=3, seed=1)).equal(first)
    env = make(num_envs=3)
    env.rollout(10)
    assert not starts(env).equal(first)
    env.set_seed(0)
    assert starts(env).equal(first)


def test_robots_in_processes_of_their_own_are_the_same():
    apart, together = make(parallel=True), make()
    try:
        td = together.rollout(5)
        state = apart.reset()
        for t in range(5):
            assert state["agents", "observation"].equal(td[:, t]["agents", "observation"])
            state["agents", "action"] = td[:, t]["agents", "action"]
            state = apart.step(state)["next"]
        assert state["agents", "episode_reward"].equal(
            td[:, -1]["next", "agents", "episode_reward"]
        )
    finally:
        apart.close()


@pytest.mark.parametrize("advantage", ["ob", "gae"])
def test_a_run_trains_and_resumes_with_new_episodes(advantage, tmp_path):
    choices = ("env=mamujoco", "env.num_envs=5", "evaluation.num_envs=2", f"advantage={advantage}")
    config = configure(*choices, "env.agent_conf=2x3")
    before = build(config, tmp_path / "untrained").actor.state_dict()
    after = run(config, tmp_path / "run").actor.state_dict()
    assert any(not before[key].equal(after[key]) for key in before)
    assert {str(path) for path in scalars(tmp_path / "run")} >= {"train/episode_reward.csv"}
    last = sorted((tmp_path / "run" / "checkpoints").iterdir())[0]
    resumed = configure(*choices, "env.agent_conf=2x3", f"resume={last}")
    with pytest.warns(UserWarning, match="episodes begin anew"):
        run(resumed, tmp_path / "resumed")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenario": "Hoper"}, "no scenario 'Hoper': did you mean 'Hopper'"),
        ({"agent_conf": "7x1"}, "agent_conf='7x1'.*UNKNOWN.*: take env.agent_conf=3x1$"),
        ({"scenario": "InvertedPendulum", "agent_conf": "2x1"}, "take env.agent_conf=null$"),
        ({"scenario_kwargs": {"gravity": 1}}, r"scenario_kwargs=\{'gravity': 1\}.*gravity"),
    ],
)
def test_what_cannot_work_is_told(options, message):
    with pytest.raises(ExperimentError, match=message):
        make(**options)


def test_what_is_missing_is_told_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
    with pytest.raises(ExperimentError, match=r"^[^\n]*pip install 'torchrl-ob\[mujoco\]'$"):
        make()
    with pytest.raises(ModuleNotFoundError, match=r"torchrl-ob\[mujoco\]"):
        MaMujocoEnv("Hopper", "3x1")


def test_every_scenario_is_known_to_gymnasium_robotics():
    for scenario, agent_conf in SCENARIOS.items():
        try:
            MaMujocoEnv(scenario, agent_conf).close()
        except IndexError:  # gymnasium-robotics 1.4.2 with mujoco 4.0
            assert scenario == "CoupledHalfCheetah"
