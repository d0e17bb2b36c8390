"""StarCraft II by a stand-in for smacv2: masks, ends, seeds, games that run, and training."""

import sys

import numpy as np
import pytest
import torch
from short_runs import configure, ignored_warnings, scalars
from smacv2_stand_in import MOVES, NO_OP, StarCraft2Env, install
from torchrl.envs import check_env_specs

from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.envs.smacv2 import (
    Battle,
    give_an_action,
    have_a_choice,
    make_smacv2,
)
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.run import run

pytestmark = ignored_warnings
SMAC = ("env=smacv2", "env.parallel=false", "env.num_envs=5", "evaluation.num_envs=3")


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path)


def make(map_name="3m", num_envs=4, max_steps=30, seed=0, **options):
    options = {"parallel": False, **options}
    return make_smacv2(map_name, num_envs=num_envs, max_steps=max_steps, seed=seed, **options)


def test_specs():
    env = make()
    check_env_specs(env)
    assert StarCraft2Env.running == 4


def test_random_battles_are_those_of_the_game_itself():
    env = make()
    td = env.rollout(40, break_when_any_done=False)
    mask, action = td["agents", "action_mask"], td["agents", "action"]
    assert mask.gather(-1, action.unsqueeze(-1)).all()
    assert (~mask[:, 0, :, MOVES:]).all()
    dead = mask[..., NO_OP]
    assert dead.any()
    assert td["agents", "mask"].equal(~dead)  # the living can always move
    for k in range(4):
        game = StarCraft2Env("3m", StarCraft2Env.started_with[k], True)
        game.episode_limit = 30
        observations, state = game.reset()
        for t in range(40):
            step = td[k, t]
            assert step["agents", "observation"].equal(torch.tensor(np.array(observations)).float())
            assert step["state"].equal(torch.tensor(state).float())
            reward, done, info = game.step(step["agents", "action"].tolist())
            assert step["next", "reward"].item() == pytest.approx(reward)
            assert step["next", "done"].item() == step["next", "terminated"].item() == done
            assert step["next", "info", "battle_won"].item() == info["battle_won"]
            observations, state = game.get_obs(), game.get_state()
            if done:
                observations, state = game.reset()
    assert td["next", "done"].any()


def test_a_limit_is_no_end_and_a_victory_is_one():
    env = make(max_steps=2)  # too short for anybody to fall
    last = env.rollout(2)[:, -1]["next"]
    assert last["truncated"].all()
    assert last["done"].all()
    assert not last["terminated"].any()
    env = make()
    td = env.reset()
    while not td["done"].any():
        td["agents", "action"] = td["agents", "action_mask"].int().flip(-1).argmax(-1)
        td["agents", "action"] = td["agents", "action_mask"].shape[-1] - 1 - td["agents", "action"]
        td = env.step(td)["next"]
    won = td["info", "battle_won"]
    assert won.any()
    assert td["terminated"].squeeze(-1)[won].all()
    assert not td["truncated"].any()


def test_every_game_has_a_seed_of_its_own_that_follows_from_one():
    def seeds(seed):
        make(seed=seed).reset()
        return StarCraft2Env.started_with[-4:]

    assert len(set(seeds(0))) == 4
    assert seeds(0) == seeds(0)
    assert not set(seeds(0)) & set(seeds(1))


def test_no_more_games_run_than_there_are_environments():
    env = make(num_envs=2)
    assert StarCraft2Env.running == 0
    env.reset()
    env.reset()  # before a battle has ended, where smacv2 would start another
    assert StarCraft2Env.running == 2
    env.rollout(40, break_when_any_done=False)
    games = len(StarCraft2Env.started_with)
    env.set_seed(0)
    env.reset()
    assert len(StarCraft2Env.started_with) == games  # the same seed leaves them running
    env.set_seed(1)
    env.reset()
    assert len(StarCraft2Env.started_with) == games + 2
    assert StarCraft2Env.running == 2
    env.close()
    assert StarCraft2Env.running == 0


def test_a_map_that_draws_its_units_has_the_same_limit():
    env = Battle("10gen_terran", max_steps=7, capability_config={"n_units": 5, "n_enemies": 5})
    assert env.rollout(1)["agents", "observation"].shape == (1, 5, 3)
    assert env._env.env.episode_limit == 7
    env.close()


def test_agents_without_an_action_are_given_all_and_are_not_active():
    mask = torch.tensor([[[1, 1, 0], [0, 1, 0], [0, 0, 0]]]).bool()
    assert have_a_choice(mask).tolist() == [[True, False, False]]
    assert give_an_action(mask).int().tolist() == [[[1, 1, 0], [0, 1, 0], [1, 1, 1]]]


@pytest.mark.parametrize("advantage", ["ob", "gae"])
def test_a_run_trains_and_logs_battles_won(advantage, tmp_path):
    config = configure(*SMAC, f"advantage={advantage}")
    before = build(config, tmp_path / "untrained").actor.state_dict()
    after = run(config, tmp_path / "run").actor.state_dict()
    assert any(not before[key].equal(after[key]) for key in before)
    names = {str(path) for path in scalars(tmp_path / "run")}
    assert {"train/win_rate.csv", "eval/stochastic_win_rate.csv"} <= names


def test_capabilities_reach_the_game_as_plain_values(tmp_path):
    capabilities = "++env.scenario_kwargs={capability_config: {n_units: 5, n_enemies: 5}}"
    parts = build(configure(*SMAC, "env.map_name=10gen_terran", capabilities), tmp_path)
    assert parts.collector.env.rollout(2).shape == (5, 2)
    parts.close()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["env.map_name=2s3y"], "smacv2 has no map '2s3y': did you mean '2s3z'"),
        (["++env.scenario_kwargs={difculty: 7}"], "refuses map '3m'.*difculty"),
        (["env.parallel=2"], "env.parallel must be true or false"),
    ],
)
def test_what_cannot_work_is_told(overrides, message, tmp_path):
    with pytest.raises(ExperimentError, match=message):
        run(configure(*SMAC, *overrides), tmp_path / "run")


def test_what_is_missing_is_told_with_where_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("SC2PATH", str(tmp_path / "elsewhere"))
    with pytest.raises(ExperimentError, match=r"elsewhere: install the game.*SC2PATH"):
        make()
    monkeypatch.setitem(sys.modules, "smacv2.env.starcraft2.maps.smac_maps", None)
    with pytest.raises(ExperimentError, match=r"needs smacv2.*oxwhirl/smacv2"):
        make()
