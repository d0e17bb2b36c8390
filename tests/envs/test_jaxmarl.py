"""JaxMARL through TorchRL: the numbers of JaxMARL itself, without a copy, and whole runs on SMAX."""

import sys

import pytest
import torch
from hydra import compose, initialize_config_dir
from torchrl.collectors import Collector
from torchrl.envs import ExplorationType, check_env_specs, set_exploration_type
from torchrl.envs.utils import step_mdp

from torchrl_ob.envs import jaxmarl as wrapping
from torchrl_ob.envs._dlpack import jax_device, to_jax, to_torch
from torchrl_ob.envs._jaxmarl_batch import make_keys
from torchrl_ob.envs.jaxmarl import JaxMARLEnv, JaxMARLWrapper
from torchrl_ob.experiments.collectors import ResumableCollector
from torchrl_ob.experiments.envs.smax import make_smax
from torchrl_ob.experiments.envs.teams import team_env
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.evaluation import Evaluation
from torchrl_ob.experiments.run import run
from torchrl_ob.policies import policy_from_env
from torchrl_ob.train import config_folder

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
]

LIMIT = 16
BATTLE = {"num_allies": 3, "num_enemies": 2, "max_steps": LIMIT}
MPE = "MPE_simple_spread_v3"


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """What JAX compiles is kept for the next environment of the same sizes."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture(scope="module")
def battles():
    """Three marines against two, in five environments."""
    return JaxMARLEnv("HeuristicEnemySMAX", num_envs=5, seed=0, **BATTLE)


@pytest.fixture(scope="module")
def spread():
    return JaxMARLEnv(MPE, num_envs=4, seed=0)


@pytest.fixture(scope="module")
def one_hot():
    return JaxMARLEnv(MPE, num_envs=4, categorical_actions=False)


def attack(tensordict):
    """Shoot where that is possible, and else walk to the enemies' side, in the order of JaxMARL."""
    mask = tensordict["agents", "action_mask"]
    shot = mask[..., 5:].any(-1)
    target = 5 + mask[..., 5:].to(torch.uint8).argmax(-1)
    east = torch.where(mask[..., 1], 1, 4)
    return tensordict.set(("agents", "action"), torch.where(shot, target, east))


def episodes(env, steps=60, policy=attack):
    return env.rollout(steps, policy, break_when_any_done=False)


def test_battles_are_what_their_specs_say(battles):
    check_env_specs(battles)
    assert battles.group_map == {"agents": ["ally_0", "ally_1", "ally_2"]}
    batch = battles.rollout(3)
    shapes = {
        key: tuple(batch[key].shape[2:]) for key in battles.full_observation_spec.keys(True, True)
    }
    assert shapes == {
        ("agents", "observation"): (3, 4 * 13 + 10),
        ("agents", "action_mask"): (3, 5 + 2),
        ("agents", "mask"): (3,),
        "state": (5 * 12,),
        ("info", "battle_won"): (1,),
    }


@pytest.mark.parametrize("kind", ["spread", "one_hot", "continuous"])
def test_other_environments_are_what_their_specs_say(kind, request):
    if kind == "continuous":
        env = JaxMARLEnv(MPE, num_envs=4, action_type="Continuous")
    else:
        env = request.getfixturevalue(kind)
    check_env_specs(env)
    last = {"spread": (), "one_hot": (5,), "continuous": (5,)}[kind]
    assert env.full_action_spec[env.action_key].shape == (4, 3, *last)
    names = env.rollout(2).keys(True, True)
    assert not {"state", ("agents", "action_mask"), ("info", "battle_won")} & set(names)


def loop(env, seed, k, actions):
    """One environment by JaxMARL itself, step by step: what is shown after each, as numbers."""
    import jax

    raw, agents = env._env, env.group_map["agents"]
    key, own = jax.random.split(jax.random.fold_in(jax.random.PRNGKey(seed), k))
    seen, state = raw.reset(own)
    found = [(stacked(seen, agents), torch.zeros(len(agents)), torch.ones(len(agents)), 0)]
    for action in actions.tolist():
        key, own = jax.random.split(key)
        chosen = dict(zip(agents, map(jax.numpy.asarray, action), strict=True))
        seen, state, reward, dones, _ = raw.step_env(own, state, chosen)
        alive = 1 - stacked(dones, agents)
        found.append((stacked(seen, agents), stacked(reward, agents), alive, int(dones["__all__"])))
    return found


def stacked(by_agent, agents):
    return torch.stack([torch.tensor(by_agent[agent].tolist()).float() for agent in agents])


@pytest.mark.parametrize("name", ["battles", "spread"])
def test_the_numbers_are_those_of_a_plain_loop(name, request):
    env = request.getfixturevalue(name)
    env.set_seed(7)
    torch.manual_seed(0)
    batch = env.rollout(12, break_when_any_done=True)
    for k in range(2):
        actions = batch["agents", "action"][k]
        first, *rest = loop(env, 7, k, actions)
        torch.testing.assert_close(batch["agents", "observation"][k, 0], first[0])
        for step, (seen, reward, alive, done) in enumerate(rest):
            after = batch["next"][k, step]
            torch.testing.assert_close(after["agents", "observation"], seen, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(after["agents", "reward"].squeeze(-1), reward)
            assert after["agents", "mask"].tolist() == alive.bool().tolist()
            assert after["done"].item() == done


def taken_are_available(batch):
    action, mask = batch["agents", "action"], batch["agents", "action_mask"]
    return mask.gather(-1, action.unsqueeze(-1)).all()


def test_random_actions_and_those_of_a_policy_are_available(battles):
    torch.manual_seed(0)
    random = episodes(battles, policy=None)
    assert not random["agents", "mask"].all()  # some die, and have no choice
    assert taken_are_available(random)
    team = make_smax("3m", num_envs=4, max_steps=20, seed=0)
    check_env_specs(team)
    assert taken_are_available(episodes(team, policy=None))
    states = episodes(team, policy=None)["state"][..., : 6 * 10].unflatten(-1, (6, 10))
    assert states[..., 1:3].max() < 1  # positions in the map
    assert states[..., 1:3].max(-2).values.median() > 0.4
    with set_exploration_type(ExplorationType.RANDOM), torch.no_grad():
        assert taken_are_available(episodes(battles, policy=policy_from_env(battles, num_cells=8)))


def test_one_hot_actions_act_as_integers_do(spread, one_hot):
    action = torch.randint(5, (4, 3))
    found = []
    for env, form in ((spread, action), (one_hot, torch.nn.functional.one_hot(action, 5))):
        env.set_seed(3)
        found.append(env.step(env.reset().set(("agents", "action"), form))["next", "agents"])
    assert found[0]["observation"].equal(found[1]["observation"])
    other = spread.step(spread.reset().set(("agents", "action"), (action + 1) % 5))
    assert not other["next", "agents", "observation"].equal(found[0]["observation"])


@pytest.fixture(scope="module")
def played(battles):
    """Steps with the health of all units after each, as the simulation has it."""
    battles.set_seed(1)
    steps, now = [], battles.reset()
    for _ in range(80):
        torch.manual_seed(len(steps))
        now = attack(now) if len(steps) < 40 else battles.rand_action(now)
        steps.append(battles.step(now)["next"].clone())
        state = battles.simulator_state()
        steps[-1]["health"] = state["['state'].state.unit_health"]
        steps[-1]["time"] = state["['state'].state.step"]
        now = battles.maybe_reset(step_mdp(now))
    return torch.stack(steps, 1)


class TestBattles:
    def test_the_dead_are_masked_and_can_only_stop(self, played):
        alive = played["health"][..., :3] > 0
        assert not alive.all()
        assert played["agents", "mask"].equal(alive)
        stop = torch.zeros(7, dtype=torch.bool).index_fill(0, torch.tensor(4), True)
        assert played["agents", "action_mask"][~alive].eq(stop).all()
        assert not played["agents", "observation"][~alive].any()
        assert played["agents", "observation"][alive].any(-1).all()

    def test_a_battle_is_won_where_all_enemies_are_dead_and_an_ally_is_not(self, played):
        allies, enemies = (x.gt(0).any(-1) for x in played["health"].split([3, 2], -1))
        won = played["info", "battle_won"].squeeze(-1)
        assert won.equal(allies & ~enemies)
        assert won.any()
        bonus = played["agents", "reward"].squeeze(-1) > 1  # the damage of a step is less
        assert bonus.equal(won.unsqueeze(-1).expand_as(bonus))

    def test_a_time_limit_is_no_end_and_a_decision_is_one(self, played):
        allies, enemies = (x.gt(0).any(-1) for x in played["health"].split([3, 2], -1))
        decided = ~(allies & enemies)
        late = (played["time"] == LIMIT + 1) & ~decided  # SMAX looks before it counts the step
        assert played["terminated"].squeeze(-1).equal(decided)
        assert played["truncated"].squeeze(-1).equal(late)
        assert played["done"].squeeze(-1).equal(late | decided)
        assert late.any()
        assert decided.any()


def test_the_limit_of_a_team_comes_before_that_of_the_simulator(battles):
    battles.set_seed(0)
    torch.manual_seed(0)
    following = team_env(battles, max_steps=LIMIT).rollout(60, break_when_any_done=False)["next"]
    last = following["step_count"] == LIMIT
    assert following["step_count"].max() == LIMIT
    assert following["done"].equal(following["terminated"] | last)
    assert following["truncated"].any()


def test_a_partial_reset_leaves_the_others_alone(battles):
    battles.set_seed(2)
    last = episodes(battles, 4)[:, -1]["next"]
    before = battles.simulator_state()
    mask = torch.tensor([True, False, True, False, False]).unsqueeze(-1)
    shown = battles.reset(last.clone().set("_reset", mask))
    after = battles.simulator_state()
    for name, was in before.items():
        assert after[name][[1, 3, 4]].equal(was[[1, 3, 4]]), name
    assert after["['state'].state.step"].tolist() == [0, 4, 0, 4, 4]
    assert not after["['key']"][[0, 2]].eq(before["['key']"][[0, 2]]).all()
    for key in (("agents", "observation"), ("agents", "action_mask"), "state"):
        assert shown[key][[1, 3, 4]].equal(last[key][[1, 3, 4]])
    assert not shown["agents", "observation"][[0, 2]].equal(last["agents", "observation"][[0, 2]])


def test_the_seed_decides_the_episodes(battles):
    found = []
    for seed in (4, 4, 5):
        battles.set_seed(seed)
        found.append(episodes(battles, 40))
    assert (found[0] == found[1]).all()
    assert not found[0]["state"].equal(found[2]["state"])
    starts = found[0]["state"][:, 0]
    assert len(starts.unique(dim=0)) == 5  # each environment has its own
    cpu = jax_device(torch.device("cpu"))
    assert make_keys(2**32 - 1, 3, cpu).tolist() == make_keys(2**32 - 1, 5, cpu)[:3].tolist()


def test_tensors_cross_without_a_copy_in_both_directions(battles, monkeypatch):
    crossed = {"to_jax": [], "to_torch": []}
    for name, function in (("to_jax", to_jax), ("to_torch", to_torch)):

        def spy(thing, name=name, function=function):
            crossed[name].append((thing, function(thing)))
            return crossed[name][-1][1]

        monkeypatch.setattr(wrapping, name, spy)
    now = attack(battles.reset())
    crossed["to_torch"].clear()
    after = battles.step(now)["next"]
    ((action, array),) = crossed["to_jax"]
    assert action.data_ptr() == now["agents", "action"].data_ptr() == array.unsafe_buffer_pointer()
    addresses = {x.unsafe_buffer_pointer() for x, _ in crossed["to_torch"]}
    shown = [after[key] for key in after.keys(True, True) if key != ("agents", "action")]
    assert {x.data_ptr() for x in shown} == addresses
    assert len(addresses) == 9
    import jax

    state = jax.tree.leaves(battles._simulation["state"])
    assert not addresses & {x.unsafe_buffer_pointer() for x in state}


def test_nobody_writes_into_what_is_shared(battles, monkeypatch):
    handed = []

    def remember(array):
        handed.append((array, to_torch(array).clone()))
        return to_torch(array)

    monkeypatch.setattr(wrapping, "to_torch", remember)
    collector = Collector(battles, attack, frames_per_batch=200, total_frames=400)
    batches = [batch.clone() for batch in collector]
    assert batches[0]["next", "done"].any(0).squeeze(-1).sum() > 2  # there were partial resets
    assert all(to_torch(array).equal(copy) for array, copy in handed)


class TestResume:
    def collector(self, seed):
        env = make_smax("3m", num_envs=4, max_steps=20, seed=seed)
        torch.manual_seed(0)
        policy = policy_from_env(env, num_cells=8)
        return ResumableCollector(env, policy, frames_per_batch=120, total_frames=240)

    def test_the_next_batch_is_the_same_bit_for_bit(self, tmp_path):
        first, second = self.collector(0), self.collector(1)
        batches = iter(first)
        next(batches)
        torch.save(first.state_dict(), tmp_path / "state.pt")
        torch.manual_seed(1)
        expected = next(batches).clone()
        second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        torch.manual_seed(1)
        found = next(iter(second))
        assert set(found.keys(True, True)) == set(expected.keys(True, True))
        for key in expected.exclude("collector").keys(True, True):  # where it numbers episodes
            assert found[key].equal(expected[key]), key

    def test_nothing_is_compiled_again(self, battles):
        battles.reset()
        battles.load_simulator_state(battles.simulator_state())
        episodes(battles, 20)
        assert [function._cache_size() for function in battles._batch] == [1, 1, 1]

    def test_a_state_is_a_copy_and_that_of_another_environment_is_refused(self, battles, spread):
        battles.reset()
        state = battles.simulator_state()
        kept = {name: x.clone() for name, x in state.items()}
        battles.load_simulator_state(state)
        for x in (*state.values(), *battles.simulator_state().values()):
            x.zero_()
        assert all(x.equal(kept[name]) for name, x in battles.simulator_state().items())
        spread.reset()
        with pytest.raises(ValueError, match=r"must be \[4, .*the state has \[5, "):
            spread.load_simulator_state(kept)
        with pytest.raises(ValueError, match="has no more"):
            battles.load_simulator_state({**kept, "more": torch.zeros(5)})
        with pytest.raises(ValueError, match=r"unit_alive.* has nothing"):
            battles.load_simulator_state(
                {name: x for name, x in kept.items() if "unit_alive" not in name}
            )


def configure(*overrides):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        smoke = ("experiment=smoke", "env=smax", "progress_bar=false", "device=cpu")
        sizes = ("env.num_envs=4", "evaluation.num_envs=4")
        return compose("train", [*smoke, *sizes, *overrides])


def test_a_run_with_the_optimal_baseline_trains_and_resumes_to_the_same_numbers(tmp_path):
    def scalars():
        paths = [x for x in tmp_path.rglob("scalars/**/*.csv") if x.parent.name != "timer"]
        return {path.name: path.read_text() for path in paths}

    parts = run(configure(), tmp_path)
    metrics = scalars()
    assert type(parts.advantage).__name__ == "ObAdvantage"
    assert {"objective.csv", "deterministic_win_rate.csv"} <= metrics.keys()
    sorted((tmp_path / "checkpoints").iterdir())[-1].unlink()
    again = run(configure("resume=auto"), tmp_path)
    assert scalars() == metrics
    for key, x in parts.actor.state_dict().items():
        assert x.equal(again.actor.state_dict()[key])


def test_evaluation_counts_the_battles_won(battles):
    def some_attack(tensordict):
        attack(tensordict)["agents", "action"][2:] = 4
        return tensordict

    env = team_env(battles, max_steps=LIMIT)
    evaluation = Evaluation(env, some_attack, max_steps=LIMIT, interval=1, seed=0)
    counted = evaluation.episodes("deterministic")["win_rate"].tolist()
    env.set_seed(0)
    following = env.rollout(LIMIT, some_attack, break_when_any_done=False)["next"]
    for k, won in enumerate(counted):
        end = following["done"][k].squeeze(-1).nonzero()[0]
        assert won == following["info", "battle_won"][k, end].item()
    assert counted == [1, 1, 0, 0, 0]


def test_what_cannot_be_wrapped_is_said():
    with pytest.raises(ValueError, match=r"observations .* differ in size .*adversary_0 \[16\]"):
        JaxMARLEnv("MPE_simple_tag_v3")
    with pytest.raises(ValueError, match=r"no environment 'SMACS', only .*SMAX"):
        JaxMARLEnv("SMACS")
    with pytest.raises(TypeError, match="must be a JaxMARL environment, got 3"):
        JaxMARLWrapper(3)
    with pytest.raises(RuntimeError, match=r"JAX has no device meta here.*device=cpu"):
        jax_device(torch.device("meta"))
    assert MPE in JaxMARLEnv.available_envs
    options = {"num_envs": 2, "max_steps": 5, "seed": 0}
    with pytest.raises(ExperimentError, match="no map '3s_vs_5s': did you mean '3s_vs_5z'"):
        make_smax("3s_vs_5s", **options)
    with pytest.raises(ExperimentError, match=r"refuses map '3m' .*unexpected keyword.*'armour'"):
        make_smax("3m", **options, scenario_kwargs={"armour": 1})


def test_without_jaxmarl_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jaxmarl", None)
    with pytest.raises(ExperimentError, match=r"^SMAX needs jaxmarl: .*'torchrl-ob\[smax\]'$"):
        make_smax("3m", num_envs=1, max_steps=1, seed=0)


def test_what_jaxmarl_does_to_the_streams_as_it_is_imported_is_undone(capfd):
    before = sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__
    with wrapping._streams_kept():
        print("Importing ...")
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # as jaxmarl.environments.mabrax
        print("Skipping")
    assert before == (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    assert capfd.readouterr().out == ""
