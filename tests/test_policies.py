"""Policies built from specs act in their environment, each agent on its own observation."""

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs import ExplorationType, VmasEnv, set_exploration_type
from torchrl.modules import OneHotCategorical, TanhNormal

from torchrl_ob import FactoredCategorical
from torchrl_ob.policies import policy_from_env

KINDS = {
    "continuous": ({}, TanhNormal),
    "categorical": ({"continuous_actions": False}, torch.distributions.Categorical),
    "one_hot": ({"continuous_actions": False, "categorical_actions": False}, OneHotCategorical),
    "factors": ({"continuous_actions": False, "multidiscrete_actions": True}, FactoredCategorical),
    "one_hot_factors": (
        {
            "continuous_actions": False,
            "multidiscrete_actions": True,
            "categorical_actions": False,
        },
        FactoredCategorical,
    ),
}


def make_env(kind="continuous"):
    return VmasEnv("balance", num_envs=4, n_agents=3, **KINDS[kind][0])


@pytest.mark.parametrize("share_params", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_policy_acts_in_its_environment(kind, share_params):
    env = make_env(kind)
    policy = policy_from_env(env, share_params=share_params, num_cells=8)
    with set_exploration_type(ExplorationType.RANDOM):
        batch = env.rollout(50, policy, break_when_any_done=False)
    assert env.full_action_spec["agents"].is_in(batch[:, 0]["agents"].select("action"))
    dist = policy.get_dist(batch.select(*policy.in_keys))
    assert isinstance(dist, KINDS[kind][1])
    action = batch["agents", "action"]
    log_prob = batch["agents", "action_log_prob"]
    torch.testing.assert_close(dist.log_prob(action), log_prob, rtol=1e-3, atol=1e-3)
    assert batch["agents", "action"].flatten(0, 1).double().std(0).min() > 0  # it explores


def test_continuous_actions_fill_their_bounds():
    env = make_env()
    policy = policy_from_env(env, num_cells=8)
    with set_exploration_type(ExplorationType.RANDOM):
        action = env.rollout(200, policy, break_when_any_done=False)["agents", "action"]
    space = env.full_action_spec_unbatched["agents", "action"].space
    assert (action >= space.low).all()
    assert (action <= space.high).all()
    assert action.amax() > 0.8 * space.high.max()
    assert action.amin() < 0.8 * space.low.min()


@pytest.mark.parametrize("share_params", [True, False])
def test_agents_act_on_their_own_observation(share_params):
    torch.manual_seed(0)
    env = make_env()
    policy = policy_from_env(env, share_params=share_params, num_cells=8)
    observation = torch.randn(3, 16)
    other = observation.clone()
    other[1] += 1
    loc = [
        policy.get_dist_params(TensorDict({"agents": {"observation": x}}))["agents", "loc"]
        for x in (observation, other)
    ]
    moved = (loc[0] != loc[1]).any(-1)
    assert moved.tolist() == [False, True, False]
    same = policy.get_dist_params(
        TensorDict({"agents": {"observation": observation[:1].expand(3, -1)}})
    )["agents", "loc"]
    assert torch.equal(same[0], same[1]) is share_params


def test_what_is_missing_is_said():
    env = make_env()
    with pytest.raises(KeyError, match=r"no \('blue', 'observation'\)"):
        policy_from_env(env, group="blue")
