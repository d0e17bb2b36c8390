"""Returns with control variates: the same mean, without what Q knows of later actions."""

import itertools

import pytest
import torch
from games import make_actor, random_batch
from hypothesis import given
from hypothesis import strategies as st
from tensordict.nn import TensorDictModule
from torch import distributions as D
from torchrl.modules import IndependentNormal, TanhNormal, TruncatedNormal

from torchrl_ob import MapgAdvantage
from torchrl_ob.expectations.antithetic import antithetic_pair
from torchrl_ob.functional import control_variate, lambda_return

N, GAMMA = 2, 0.9


def slow_return(reward, next_value, value, done, terminated, lmbda):
    """The recursion as it is written in the paper, one step after the other."""
    result, following = [], None
    for t in reversed(range(len(reward))):
        last = following is None or bool(done[t]) or bool(terminated[t])
        ahead = 0 if last else lmbda * (following - value[t + 1])
        alive = 0.0 if terminated[t] else 1.0
        following = reward[t] + GAMMA * alive * (next_value[t] + ahead)
        result.insert(0, following)
    return torch.stack(result)


@given(steps=st.integers(1, 9), lmbda=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_it_is_the_recursion_of_the_paper(steps, lmbda, seed):
    torch.manual_seed(seed)
    reward, next_value, value = torch.randn(3, steps, dtype=torch.double)
    terminated = torch.rand(steps) < 0.2
    done = terminated | (torch.rand(steps) < 0.2)
    decay = {"gamma": GAMMA, "lmbda": lmbda, "time_dim": 0}
    added = control_variate(next_value, value, done, terminated, **decay)
    found = lambda_return(reward + added, next_value, done, terminated, **decay)
    torch.testing.assert_close(
        found, slow_return(reward, next_value, value, done, terminated, lmbda)
    )


@pytest.mark.parametrize("true_critic", [True, False])
def test_the_mean_is_that_of_the_plain_return_and_a_true_critic_leaves_no_later_noise(true_critic):
    """Two steps, three actions in each, by enumeration."""
    torch.manual_seed(0)
    second = torch.randn(3, dtype=torch.double).softmax(-1)  # probabilities of the second action
    reward = torch.randn(3, dtype=torch.double)
    later = torch.randn(3, 3, dtype=torch.double)  # of the second action, after the first
    q = later if true_critic else torch.randn(3, 3, dtype=torch.double)
    state_value = q @ second
    end = torch.tensor([False, True])
    decay = {"gamma": GAMMA, "lmbda": 1.0, "time_dim": 0}
    plain, varied = torch.zeros(2, 3, 3, dtype=torch.double)
    for a, b in itertools.product(range(3), repeat=2):
        rewards = torch.stack([reward[a], later[a, b]])
        next_value = torch.stack([state_value[a], torch.zeros(())])
        value = torch.stack([torch.tensor(7.0, dtype=torch.double), q[a, b]])
        added = control_variate(next_value, value, end, end, **decay)
        plain[a, b] = lambda_return(rewards, next_value, end, end, **decay)[0]
        varied[a, b] = lambda_return(rewards + added, next_value, end, end, **decay)[0]
    torch.testing.assert_close(varied @ second, plain @ second)
    spread = (varied - (varied @ second).unsqueeze(-1)).square() @ second
    assert (spread < 1e-24).all() == true_critic


@pytest.mark.parametrize("kind", [IndependentNormal, TanhNormal])
def test_a_pair_mirrors_its_noise_and_each_is_a_draw(kind):
    torch.manual_seed(0)
    loc, scale = torch.tensor([0.3, -0.5]), torch.tensor([0.4, 0.9])
    wide = kind(loc.expand(40_000, 2).double(), scale.expand(40_000, 2).double())
    pair = antithetic_pair(wide)
    before = pair.atanh() if kind is TanhNormal else pair
    torch.testing.assert_close(before.mean(0), loc.double().expand(40_000, 2), rtol=0, atol=1e-5)
    draws = wide.sample()
    for action in pair:
        torch.testing.assert_close(action.mean(0), draws.mean(0), rtol=0, atol=0.02)
        torch.testing.assert_close(action.std(0), draws.std(0), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    "dist",
    [
        D.Categorical(logits=torch.zeros(5000, 3)),
        TruncatedNormal(torch.zeros(5000, 1), torch.ones(5000, 1), low=-1, high=1),
    ],
)
def test_other_distributions_give_independent_draws(dist):
    torch.manual_seed(0)
    one, other = antithetic_pair(dist).double().flatten(1)
    assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.05


class Linear(torch.nn.Module):
    """Q = (c_i + c . all actions) for every agent."""

    def forward(self, action):
        return (action.sum((-1, -2), keepdim=True) * torch.tensor([[1.0], [2.0]]) + 3).to(action)


def test_the_state_value_of_a_linear_critic_is_exact():
    torch.manual_seed(0)
    loc, scale = torch.randn(N, 2), torch.rand(N, 2) + 0.2
    actor = make_actor("independent_normal", [loc, scale])
    critic = TensorDictModule(Linear(), [("agents", "action")], [("agents", "q")])
    advantage = MapgAdvantage(actor_network=actor, value_network=critic, gamma=GAMMA, lmbda=0.5)
    td = random_batch([4, 6], torch.randn(4, 6, N, 2))
    value = advantage.team.v(td)
    expected = loc.sum() * torch.tensor([[1.0], [2.0]]) + 3
    torch.testing.assert_close(value, expected.expand(4, 6, N, 1))


def test_the_advantage_takes_the_actions_of_the_batch_for_its_control_variates():
    torch.manual_seed(0)
    actor = make_actor("independent_normal", [torch.randn(N, 2), torch.rand(N, 2) + 0.2])
    critic = TensorDictModule(Linear(), [("agents", "action")], [("agents", "q")])
    advantage = MapgAdvantage(
        actor_network=actor,
        value_network=critic,
        gamma=GAMMA,
        lmbda=0.7,
        bootstrap="control_variate",
    )
    advantage.set_keys(reward=("agents", "reward"))
    td = random_batch([4, 6], torch.randn(4, 6, N, 2))
    td["next", "terminated"] = torch.zeros(4, 6, 1, dtype=torch.bool)
    td["next", "done"] = torch.rand(4, 6, 1) < 0.3
    found = advantage(td)["value_target"]
    next_value = advantage.team.v(td["next"])  # of a linear critic, without noise
    value = critic(td.select(("agents", "action")))["agents", "q"]
    for env, agent in itertools.product(range(4), range(N)):
        expected = slow_return(
            td["next", "agents", "reward"][env, :, agent, 0],
            next_value[env, :, agent, 0],
            value[env, :, agent, 0],
            td["next", "done"][env, :, 0],
            td["next", "terminated"][env, :, 0],
            0.7,
        )
        torch.testing.assert_close(found[env, :, agent, 0], expected)
