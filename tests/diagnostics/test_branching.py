"""Branching: copies step as the environment does, and what branches tell is the truth."""

import random
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from games import make_actor
from hypothesis import given
from hypothesis import strategies as st
from tensordict import TensorDict
from torchrl.data import Categorical, Composite, Unbounded
from torchrl.envs import (
    Compose,
    EnvBase,
    ExplorationType,
    InitTracker,
    RewardSum,
    StepCounter,
    TransformedEnv,
    set_exploration_type,
)
from torchrl.envs.libs.vmas import VmasEnv
from vmas.simulator.core import Agent, Sphere, World
from vmas.simulator.scenario import BaseScenario

from torchrl_ob._actors import build_policy, policy_parameters
from torchrl_ob._rng import isolated_rng
from torchrl_ob.diagnostics.branching.branches import (
    branch,
    branch_returns,
    visited_states,
)
from torchrl_ob.diagnostics.branching.clone import clone_vmas
from torchrl_ob.diagnostics.branching.copies import deep_copy
from torchrl_ob.diagnostics.branching.truth import (
    critic_fit,
    nested_variance,
    true_baselines,
    true_headroom,
)
from torchrl_ob.diagnostics.exact.estimators import coma_baseline, optimal_baseline
from torchrl_ob.expectations import action_candidates
from torchrl_ob.policies import policy_from_env

pytestmark = pytest.mark.filterwarnings("ignore:Force limits not specified")

RANDOM_DYNAMICS = {"football", "asym_joint", "road_traffic"}
SLOW = {"pollock", "joint_passage"}  # like others, with more agents or more joints
SCENARIOS = sorted(set(VmasEnv.available_envs) - RANDOM_DYNAMICS - SLOW)


def vmas(scenario, num_envs=4, num_steps=7, **kwargs):
    """An environment at a nonzero time, and its tensordict."""
    torch.manual_seed(0)
    env = VmasEnv(scenario, num_envs=num_envs, seed=0, **kwargs)
    td = env.reset()
    for _ in range(num_steps):
        td = env.step_mdp(env.step(env.rand_action(td)))
    return env, td


def uniform(env):
    """The uniformly random policy."""

    def policy(td):
        for key in env.action_keys:
            space = env.full_action_spec_unbatched[key].space
            if hasattr(space, "n"):
                shape = env.full_action_spec_unbatched[key].shape
                action = torch.randint(space.n, (*td.batch_size, *shape))
            else:
                low, high = space.low, space.high
                action = low + (high - low) * torch.rand(*td.batch_size, *low.shape)
            td.set(key, action)
        return td

    return policy


def assert_same_steps(env, td, copies, index, num_steps, **tolerance):
    mine, theirs = td.clone(), td[index].clone()
    for _ in range(num_steps):
        mine = env.rand_action(mine)
        for key in env.action_keys:
            theirs.set(key, mine.get(key)[index])
        mine, theirs = env.step(mine), copies.step(theirs)
        for key in mine["next"].keys(True, True):
            expected, found = mine["next"].get(key)[index], theirs["next"].get(key)
            torch.testing.assert_close(found, expected, equal_nan=True, **tolerance, msg=str(key))
        mine, theirs = env.step_mdp(mine), copies.step_mdp(theirs)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_copies_of_every_scenario_step_as_it_does(scenario):
    env, td = vmas(scenario)
    everywhere, index = torch.arange(4), torch.tensor([3, 0, 0, 2, 1])
    same, wide = clone_vmas(env, everywhere), clone_vmas(env, index)
    # rounding depends on the size of the batch, and joints let it grow from step to step
    assert_same_steps(deep_copy(env), td, wide, index, 3, rtol=1e-3, atol=1e-4)
    assert_same_steps(env, td, same, everywhere, 15, rtol=0, atol=0)


@pytest.mark.parametrize("scenario", ["flocking", "give_way"])  # the first acts through a closure
def test_a_deep_copy_steps_alone(scenario):
    env, td = vmas(scenario)
    alone, aside = deep_copy(env), deep_copy(env)
    for _ in range(5):
        aside.step(env.rand_action(td.clone()))
    everywhere = torch.arange(4)
    torch.manual_seed(1)
    steps = [alone.step(env.rand_action(td.clone()))["next"] for _ in range(5)]
    torch.manual_seed(1)
    for expected in steps:
        found = env.step(env.rand_action(td.clone()))["next"]
        assert (found == expected).all()
    assert_same_steps(env, td, alone, everywhere, 3, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("scenario", "kwargs"),
    [
        ("navigation", {"continuous_actions": False}),
        ("simple_spread", {"continuous_actions": False, "categorical_actions": False}),
        ("navigation", {"n_agents": 4, "max_steps": 9}),  # as many agents as environments
        ("give_way", {"group_map": {"left": ["agent_0"], "right": ["agent_1"]}}),
        ("discovery", {"n_agents": 2, "use_agent_lidar": True, "targets_respawn": False}),
    ],
)
@pytest.mark.parametrize("num_copies", [1, 4, 9])
def test_copies_keep_the_options_of_the_environment(scenario, kwargs, num_copies):
    env, td = vmas(scenario, **kwargs)
    index = torch.arange(num_copies) * 3 % 4
    copies = clone_vmas(env, index)
    assert copies.full_action_spec_unbatched == env.full_action_spec_unbatched
    assert_same_steps(env, td, copies, index, 5, rtol=0, atol=0)


def test_a_copy_of_a_fresh_environment_and_a_copy_of_a_copy():
    env, td = vmas("balance", num_steps=0)
    copies = clone_vmas(env, torch.tensor([1, 1, 3, 0, 2]))
    again = clone_vmas(copies, torch.tensor([0, 2]))
    assert_same_steps(env, td, again, torch.tensor([1, 3]), 3, rtol=1e-4, atol=1e-5)


def test_transforms_are_copied_and_their_state_comes_with_the_tensordict():
    base, _ = vmas("navigation")
    env = TransformedEnv(base, Compose(RewardSum(), StepCounter(max_steps=9)))
    td = env.reset()
    for _ in range(6):
        td = env.step_mdp(env.step(env.rand_action(td)))
    index = torch.tensor([2, 2, 0, 1, 3])
    copies = clone_vmas(env, index)
    assert_same_steps(env, td, copies, index, 5, rtol=0, atol=0)
    assert env.step(env.rand_action(td))["next", "step_count"].unique().tolist() == [7]


class Drawn(BaseScenario):
    """An agent moves; options give it what is hard to copy."""

    def make_world(self, batch_dim, device, **kwargs):
        self.options = kwargs
        world = World(batch_dim, device)
        noise = kwargs.get("u_noise", 0.0)
        for name in "ab":
            agent = Agent(name=name, shape=Sphere(), u_noise=noise, collide=False)
            world.add_agent(agent)
        self.history = []
        return world

    def reset_world_at(self, env_index=None):
        if env_index is None:  # which agent leads is drawn once for all environments
            self.leader = self.world.agents[int(torch.randint(2, ()))]
            self.gain, self.count = random.random(), 0
            self.bonus = torch.rand(self.world.batch_dim)
            self.alias = self.bonus
            secret = torch.rand(self.world.batch_dim)
            self.secret = lambda: secret

    def post_step(self):
        self.alias.mul_(0.9)  # moves the bonus too
        self.count += 1
        if self.options.get("history"):
            self.history.append(self.bonus.clone())

    def observation(self, agent):
        return agent.state.pos

    def reward(self, agent):
        reward = self.gain * self.leader.state.pos.sum(-1) + self.bonus + self.count
        return reward + self.secret() if self.options.get("secret") else reward


@pytest.mark.parametrize("seed", range(4))
def test_objects_drawn_at_random_and_shared_tensors_are_copied(seed):
    env = VmasEnv(Drawn(), num_envs=3, seed=seed)
    env.reset()
    td = env.reset()
    for _ in range(4):
        td = env.step_mdp(env.step(env.rand_action(td)))
    index = torch.tensor([2, 0, 1, 1])
    assert_same_steps(env, td, clone_vmas(env, index), index, 3, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"u_noise": 1.0}, r"'Drawn' cannot be branched.*dynamics are random"),
        ({"secret": True}, r"'Drawn' cannot be branched.*'reward'.*lacks part of its state"),
        ({"history": True}, r"'Drawn' cannot be copied.*scenario\.history"),
    ],
)
def test_refuses_what_cannot_be_copied_by_name(kwargs, message):
    env = VmasEnv(Drawn(), num_envs=3, seed=0, **kwargs)
    td = env.reset()
    for _ in range(3):
        td = env.step_mdp(env.step(env.rand_action(td)))
    actions = torch.zeros(3, 2, 2, 2)
    with pytest.raises(ValueError, match=message):
        branch_returns(env, td, uniform(env), actions, horizons=[2], gamma=1.0, num_continuations=2)


def test_refuses_a_scenario_with_random_opponents_by_name():
    env, td = vmas("football", num_steps=2)
    actions = torch.zeros(4, 2, 3, 2)
    with pytest.raises(ValueError, match=r"'football' cannot be branched.*random"):
        branch_returns(env, td, uniform(env), actions, horizons=[1], gamma=1.0, num_continuations=2)


def test_refuses_other_environments_with_a_remedy():
    with pytest.raises(TypeError, match=r"Team.*Hand over a function clone"):
        clone_vmas(Team(2), torch.tensor([0]))
    env, _ = vmas("navigation")
    from torchrl.envs.libs.vmas import VmasWrapper

    with pytest.raises(ValueError, match="Build it as VmasEnv"):
        clone_vmas(VmasWrapper(env._env), torch.tensor([0]))


def random_states(env):
    return [
        torch.get_rng_state().numpy(),
        *np.random.get_state()[1:3],  # noqa: NPY002
        random.getstate(),
        env.vmas_random_state[0].numpy(),
        env.vmas_random_state[1][1].copy(),
        env.vmas_random_state[2],
    ]


def test_environment_and_random_states_are_left_as_they_were():
    env, td = vmas("balance")
    twin = clone_vmas(env, torch.arange(4))
    states, given = random_states(env), td.clone()
    with isolated_rng(3, env):
        np.random.rand(3)  # noqa: NPY002
        random.random()
    at, visited = visited_states(env, uniform(env), num_states=3, max_steps=4)
    branch(
        at,
        visited,
        uniform(env),
        num_actions=3,
        num_continuations=2,
        horizons=[3],
        gamma=1.0,
    )
    branch(env, td, uniform(env), num_actions=3, num_continuations=2, horizons=[3], gamma=1.0)
    for before, after in zip(states, random_states(env), strict=True):
        np.testing.assert_equal(after, before)
    assert (td == given).all()
    assert_same_steps(env, td, twin, torch.arange(4), 5, rtol=0, atol=0)


def test_states_are_restored_when_the_block_fails():
    env, _ = vmas("navigation")
    states = random_states(env)

    def fail():
        with isolated_rng(0, env):
            env.rollout(2)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    for before, after in zip(states, random_states(env), strict=True):
        np.testing.assert_equal(after, before)


def test_visited_states_have_all_ages():
    base, _ = vmas("navigation", num_envs=2)
    env = TransformedEnv(base, StepCounter())
    at, states = visited_states(env, uniform(base), num_states=60, max_steps=5)
    assert at.batch_size == states.batch_size == (60,)
    ages = states["step_count"].flatten()
    assert set(ages.tolist()) == set(range(6))
    torch.testing.assert_close(ages.bincount() / 60, torch.full((6,), 1 / 6), atol=0.15, rtol=0)
    again = visited_states(env, uniform(base), num_states=60, max_steps=5)[1]
    assert (states == again).all()
    assert_same_steps(
        at, states, clone_vmas(at, torch.arange(60)), torch.arange(60), 2, rtol=0, atol=0
    )


def test_a_policy_that_remembers_goes_on_from_what_it_has_seen():
    env, _ = vmas("navigation", n_agents=3)
    actor = policy_from_env(env, cell="gru", memory_size=8)
    env = TransformedEnv(env, Compose(InitTracker(), actor[0][0].make_tensordict_primer()))

    def policy(td):
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            return actor(td)

    at, states = visited_states(env, policy, num_states=4, max_steps=6)
    assert states["agents", "hidden"].flatten(1).abs().sum(-1).count_nonzero() > 2
    first = policy(states.clone())["agents", "action"].detach().unsqueeze(1)
    options = {"horizons": [5], "gamma": 1.0, "num_continuations": 3}
    found = branch_returns(at, states, policy, first, **options)[0, :, 0]
    with torch.no_grad():
        rollout = at.rollout(5, policy, tensordict=states, auto_reset=False)
    expected = rollout["next", "agents", "reward"].squeeze(-1).double().sum(1)
    torch.testing.assert_close(found, expected.unsqueeze(1).expand_as(found))


class Team(EnvBase):
    """Two agents choose among three actions; the reward is a table's entry plus a state's number.

    The episode terminates, or is truncated, at ``end`` where that is given.
    """

    TABLE = torch.tensor([[2.0, 1.0, 0.0], [-3.0, 5.0, 2.0], [4.0, 0.0, -6.0]])

    def __init__(self, num_envs, end=None, how="terminated", team_reward=False):
        super().__init__(batch_size=[num_envs])
        self.end, self.how, self.team_reward = end, how, team_reward
        shape = (num_envs, 2)
        self.observation_spec = Composite(
            {"agents": Composite({"observation": Unbounded((*shape, 1))}, shape=shape)},
            shape=(num_envs,),
        )
        self.action_spec = Composite(
            {"agents": Composite({"action": Categorical(3, shape)}, shape=shape)},
            shape=(num_envs,),
        )
        reward = {"reward": Unbounded((num_envs, 1))}
        if not team_reward:
            reward = {"agents": Composite({"reward": Unbounded((*shape, 1))}, shape=shape)}
        self.reward_spec = Composite(reward, shape=(num_envs,))
        flag = Categorical(2, (num_envs, 1), dtype=torch.bool)
        self.done_spec = Composite(
            {"done": flag, "terminated": flag.clone(), "truncated": flag.clone()},
            shape=(num_envs,),
        )
        self.time = torch.zeros(num_envs, dtype=torch.long)

    def _flags(self):
        end = self.time >= (self.end or 10**9)
        flags = {"done": end, "terminated": end & False, "truncated": end & False}
        flags[self.how] = end
        return {name: flag.unsqueeze(-1) for name, flag in flags.items()}

    def _observe(self):
        observation = self.time.float().reshape(-1, 1, 1).expand(-1, 2, 1).clone()
        return {"agents": TensorDict({"observation": observation}, (len(self.time), 2))}

    def _reset(self, tensordict=None, **kwargs):
        due = torch.ones_like(self.time, dtype=torch.bool)
        if tensordict is not None and "_reset" in tensordict:
            due = tensordict["_reset"].squeeze(-1)
        self.time = torch.where(due, 0, self.time)
        return TensorDict({**self._observe(), **self._flags()}, self.batch_size)

    def _step(self, tensordict):
        own, other = tensordict["agents", "action"].unbind(-1)
        reward = self.TABLE[own, other] + 10 * self.time
        self.time = self.time + 1
        out = {**self._observe(), **self._flags()}
        if self.team_reward:
            out["reward"] = reward.unsqueeze(-1)
        else:
            out["agents"]["reward"] = torch.stack([reward, -2 * reward], -1).unsqueeze(-1)
        return TensorDict(out, self.batch_size)

    def _set_seed(self, seed):
        pass


def clone_team(env, index):
    copies = Team(len(index), env.end, env.how, env.team_reward)
    copies.time = env.time[index].clone()
    return copies


LOGITS = torch.tensor([[0.3, -0.2, 0.6], [0.5, 0.1, -0.8]])
PROBS = [row.softmax(-1).double() for row in LOGITS]
ACTOR = make_actor("categorical", [LOGITS]).requires_grad_(False)
MEAN = float(PROBS[0] @ Team.TABLE.double() @ PROBS[1])
VARIANCE = float(PROBS[0] @ Team.TABLE.double().square() @ PROBS[1]) - MEAN**2
TEAM = {"clone": clone_team, "gamma": 0.9}


def test_headroom_of_a_known_game():
    env = Team(40)
    branches = branch(
        env,
        env.reset(),
        ACTOR,
        num_actions=40,
        num_continuations=4,
        horizons=[1, 2, 3],
        **TEAM,
    )
    for returns, noise in zip(branches.returns, [0.0, 0.81, 0.81 + 0.81**2], strict=True):
        headroom = true_headroom(returns, confidence=0.999)
        assert (headroom.low - 1e-6 <= 1 / (1 + noise)).all()
        assert (headroom.high + 1e-6 >= 1 / (1 + noise)).all()
        action, rest = nested_variance(returns)
        scale = torch.tensor([1.0, 4.0], dtype=torch.double) * VARIANCE
        torch.testing.assert_close(action.mean(0), scale, rtol=0.1, atol=0.0)
        torch.testing.assert_close(rest.mean(0), noise * scale, rtol=0.1, atol=1e-6)


def test_true_baselines_and_values_of_a_known_game():
    env = Team(2)
    states = env.reset()
    env.time = torch.tensor([0, 3])
    actions = torch.tensor([[0, 2], [1, 1]])
    found = true_baselines(
        env,
        states,
        ACTOR,
        actions,
        action_candidates(build_policy(ACTOR, policy_parameters(ACTOR, states))),
        horizons=[1, 2],
        num_continuations=2000,
        **TEAM,
    )
    table = Team.TABLE.double()
    for state, (own, other) in enumerate(actions.tolist()):
        now, after = 10.0 * env.time[state], 10.0 * (env.time[state] + 1)
        for horizon, future in enumerate([0.0, 0.9 * (MEAN + after)]):
            q = table + now + future
            for agent, taken in enumerate([(0, other), (own, 0)]):
                scale, atol = [1.0, -2.0][agent], [1e-5, 0.3][horizon]
                for baseline, estimate in (
                    (coma_baseline, found.coma),
                    (optimal_baseline, found.optimal),
                ):
                    truth = baseline(q, PROBS, agent).expand(3, 3)[taken] * scale
                    assert float(estimate[horizon, state, agent]) == pytest.approx(
                        float(truth), abs=atol
                    )
                values = (q[:, other] if agent == 0 else q[own]) * scale
                torch.testing.assert_close(
                    found.values[horizon, state, agent], values, rtol=0, atol=2 * atol
                )


@pytest.mark.parametrize(("how", "counted"), [("terminated", 2), ("truncated", 5)])
@pytest.mark.parametrize("team_reward", [False, True])
def test_termination_ends_the_rewards_and_a_time_limit_does_not(how, counted, team_reward):
    env = Team(3, end=2, how=how, team_reward=team_reward)
    actions = torch.zeros(3, 2, 2, dtype=torch.long)
    policy = lambda td: td.set(("agents", "action"), torch.zeros(*td.batch_size, 2).long())  # noqa: E731
    returns = branch_returns(
        env, env.reset(), policy, actions, horizons=[5], num_continuations=2, **TEAM
    )
    expected = sum(0.9**t * (2.0 + 10 * t) for t in range(counted))
    torch.testing.assert_close(returns[..., 0], torch.full_like(returns[..., 0], expected))
    ratio = 1.0 if team_reward else -2.0
    torch.testing.assert_close(returns[..., 1], ratio * returns[..., 0])


def test_horizons_are_prefixes_of_one_run_and_chunks_cut_nothing():
    env = Team(3)
    actions = torch.randint(3, (3, 5, 2))
    run = {"num_continuations": 2, **TEAM}
    both = branch_returns(env, env.reset(), ACTOR, actions, horizons=[4, 1], **run)
    last = branch_returns(env, env.reset(), ACTOR, actions, horizons=[1], **run)
    torch.testing.assert_close(both[1:], last)
    first = Team.TABLE[actions[..., 0], actions[..., 1]].double()
    torch.testing.assert_close(last[0, ..., 0], first.unsqueeze(-1).expand(3, 5, 2))
    chunked = branch_returns(env, env.reset(), ACTOR, actions, horizons=[1], max_branches=7, **run)
    torch.testing.assert_close(chunked, last)
    undiscounted = branch_returns(
        env,
        env.reset(),
        ACTOR,
        actions,
        horizons=[3],
        num_continuations=1,
        gamma=0.0,
        clone=clone_team,
    )
    torch.testing.assert_close(undiscounted[0, ..., 0, 0], first)


def test_the_policy_is_sampled_even_outside_a_collector():
    env = Team(1)
    branches = branch(
        env, env.reset(), ACTOR, num_actions=60, num_continuations=2, horizons=[2], **TEAM
    )
    assert len(branches.actions.flatten(0, 1).unique(dim=0)) == 9
    assert nested_variance(branches.returns).noise.min() > 0


def test_of_several_groups_one_is_branched_and_the_others_follow_the_policy():
    env, td = vmas("simple_push")
    run = {"num_actions": 3, "num_continuations": 4, "horizons": [1], "gamma": 1.0}
    with pytest.raises(KeyError, match=r"action_key must be one of.*'adversary'.*got None"):
        branch(env, td, uniform(env), **run)
    branches = branch(env, td, uniform(env), action_key=("adversary", "action"), **run)
    assert branches.actions.shape == (4, 3, 1, 2)
    assert branches.returns.shape == (1, 4, 3, 4, 1)
    assert (nested_variance(branches.returns[0]).noise > 0).all()


def test_a_clone_that_loses_state_is_refused():
    env = Team(3)
    states = env.reset()
    sizes = {"num_actions": 2, "num_continuations": 2, "horizons": [1], "gamma": 1.0}
    env.time += 2
    forgets = lambda env, index: Team(len(index))  # noqa: E731
    with pytest.raises(ValueError, match=r"'Team' cannot be branched.*lacks part of its state"):
        branch(env, states, ACTOR, **sizes, clone=forgets)
    env.time = torch.tensor([1, 2, 3])
    mixes = lambda env, index: clone_team(env, index if len(index) == 3 else index.flip(0))  # noqa: E731
    with pytest.raises(ValueError, match=r"'Team' cannot be branched.*lacks part of its state"):
        branch(env, states, ACTOR, **sizes, clone=mixes)
    narrow = lambda env, index: Team(1)  # noqa: E731
    with pytest.raises(ValueError, match=r"batch size \[1\] for an index of shape \[3\]"):
        branch(env, states, ACTOR, **sizes, clone=narrow)


@pytest.mark.parametrize("num_changed", [2, 3])
def test_one_state_in_twenty_may_depend_on_its_company(num_changed):
    def changed(env, index):
        copies = clone_team(env, index)
        if len(index) != 40:
            copies.time[index < num_changed] += 2
        return copies

    env = Team(40)
    states = env.reset()
    sizes = {"num_actions": 2, "num_continuations": 2, "horizons": [1], "gamma": 1.0}
    refuses = pytest.raises(ValueError, match=r"'Team' cannot be branched.*lacks part of its state")
    with refuses if num_changed > 2 else nullcontext():
        branch(env, states, ACTOR, **sizes, clone=changed)


def test_wrong_shapes_and_keys_are_named():
    env = Team(3)
    states, run = env.reset(), {"horizons": [1], "num_continuations": 2, **TEAM}
    with pytest.raises(ValueError, match=r"\[2, 4, 2\]; expected .* \[3, 'M1', 2\]"):
        branch_returns(env, states, ACTOR, torch.zeros(2, 4, 2).long(), **run)
    with pytest.raises(ValueError, match="1 or more"):
        branch_returns(env, states, ACTOR, torch.zeros(3, 4, 2).long(), **run | {"horizons": [0]})
    with pytest.raises(KeyError, match=r"action_key must be one of.*'agents', 'action'"):
        branch_returns(env, states, ACTOR, torch.zeros(3, 4, 2).long(), action_key="a", **run)
    with pytest.raises(KeyError, match=r"reward_key must be one of.*'agents', 'reward'"):
        branch_returns(env, states, ACTOR, torch.zeros(3, 4, 2).long(), reward_key="r", **run)
    with pytest.raises(ValueError, match=r"\[3, 4, 3\]; expected .* \[3, 'M1', 2\]"):
        branch_returns(env, states, ACTOR, torch.zeros(3, 4, 3).long(), **run)
    with pytest.raises(ValueError, match=r"M1, M2, n\].*\[3, 4, 1, 2\]"):
        nested_variance(torch.zeros(3, 4, 1, 2))
    with pytest.raises(ValueError, match=r"q has shape \[3, 4, 2, 1\]"):
        critic_fit(torch.zeros(3, 4, 2, 1), torch.zeros(3, 4, 5, 2))


@given(seed=st.integers(0, 2**31), offset=st.floats(-1e3, 1e3))
def test_nested_variance_is_unbiased_by_enumeration(seed, offset):
    """Over all samples of two joint actions of three, with two continuations of two each."""
    generator = torch.Generator().manual_seed(seed)
    outcome = torch.randn(3, 2, dtype=torch.double, generator=generator) + offset
    pi = torch.rand(3, dtype=torch.double, generator=generator).softmax(-1)
    p = torch.rand(3, 2, dtype=torch.double, generator=generator).softmax(-1)
    samples = torch.cartesian_prod(torch.arange(3), *[torch.arange(2)] * 2)
    weight = pi[samples[:, 0]] * p[samples[:, 0], samples[:, 1]] * p[samples[:, 0], samples[:, 2]]
    group = outcome[samples[:, :1], samples[:, 1:]]  # [12, M2]
    first, second = torch.cartesian_prod(torch.arange(12), torch.arange(12)).unbind(-1)
    returns = torch.stack([group[first], group[second]], 1).unsqueeze(-1)
    action, noise = nested_variance(returns)
    weight = weight[first] * weight[second]
    q = (p * outcome).sum(-1)
    true_action = pi @ (q - pi @ q).square()
    true_noise = pi @ (p * (outcome - q.unsqueeze(-1)).square()).sum(-1)
    torch.testing.assert_close(weight @ action.squeeze(-1), true_action, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(weight @ noise.squeeze(-1), true_noise, rtol=1e-6, atol=1e-8)


@given(
    scale=st.floats(0.2, 3.0),
    blur=st.floats(0.0, 2.0),
    noise=st.floats(0.1, 3.0),
    continuations=st.integers(2, 5),
)
def test_critic_fit_recovers_what_the_critic_was_made_of(scale, blur, noise, continuations):
    """Q = scale (true + blur e): R² = 1 / (1 + blur²) whatever the noise of the returns."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, 1, dtype=torch.double, generator=generator)  # noqa: E731
    true, states = draw(400, 16), 50 * draw(400, 1)
    returns = (true + states).unsqueeze(2) + noise * draw(400, 16, continuations)
    q = scale * (true + blur * draw(400, 16)) + 70 * draw(400, 1)
    fit = critic_fit(q, returns)
    r2, captured = 1 / (1 + blur**2), 2 * scale - scale**2 * (1 + blur**2)
    wide = 1.0 + noise**2
    assert float(fit.r2.value) == pytest.approx(r2, abs=0.06 * wide)
    assert float(fit.captured.value) == pytest.approx(
        captured, abs=0.1 * wide * (1 + scale**2) * (1 + blur**2)
    )
    assert fit.captured.value <= fit.r2.value + 1e-9
    assert fit.r2.low <= fit.r2.value <= fit.r2.high


def test_one_state_may_hide_what_a_critic_sees_elsewhere():
    """A critic that is blind in each agent's own state of huge effect, and sees all others."""
    torch.manual_seed(0)
    true = torch.randn(50, 8, 2, dtype=torch.double)
    q = true.clone()
    for agent, state in enumerate((3, 7)):
        true[state, :, agent] *= 100
        q[state, :, agent] = 0
    returns = true.unsqueeze(2) + 1e-3 * torch.randn(50, 8, 2, 2).double()
    everywhere, typical = critic_fit(q, returns), critic_fit(q, returns, leave_out=0.02)
    assert (everywhere.r2.value < 0.05).all()
    assert (typical.r2.value > 0.99).all()
    assert (typical.captured.value > 0.99).all()
    # what is left out does not count, whatever the critic says of it
    q[3, :, 0], q[7, :, 1] = 1e3 * torch.randn(8), 1e3 * torch.randn(8)
    again = critic_fit(q, returns, leave_out=0.02)
    torch.testing.assert_close(again.r2.value, typical.r2.value)
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match="leave_out must be from 0 to below 1"):
            critic_fit(q, returns, leave_out=share)


def test_a_critic_that_ignores_the_action_sees_nothing():
    fit = critic_fit(torch.ones(20, 8, 2), torch.randn(20, 8, 3, 2))
    assert fit.r2.value.tolist() == fit.captured.value.tolist() == [0.0, 0.0]


def test_headroom_is_unmoved_by_shift_and_scale():
    returns = torch.randn(30, 6, 4, 2, dtype=torch.double) + torch.randn(30, 6, 1, 2).double()
    headroom = true_headroom(returns)
    torch.testing.assert_close(true_headroom(5 * returns + 100).value, headroom.value)
    assert (headroom.low < headroom.value).all()
    assert (headroom.value < headroom.high).all()
    assert (true_headroom(returns, confidence=0.5).high < headroom.high).all()
