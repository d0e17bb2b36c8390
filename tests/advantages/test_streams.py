"""A team's reward split into a stream for each agent: what is unbiased when, and what the noise is."""

import copy
import itertools

import pytest
import torch
from games import FunctionCritic, make_actor, random_batch
from tensordict import TensorDict
from torchrl.collectors.utils import split_trajectories
from torchrl.objectives import ClipPPOLoss

from torchrl_ob import JointQCritic, ObAdvantage, RewardStreams, StreamAdvantage

N, A, OBS = 3, 2, 4
DECAY = {"gamma": 0.9, "lmbda": 0.8}


def make(kind="categorical", share=0.0, seed=0, streams=None, **options):
    torch.manual_seed(seed)
    actor = make_actor(kind, [torch.randn(N, A)])
    critic = JointQCritic(N, A, OBS, action_encoding="categorical", hidden_dim=8)
    streams = streams or RewardStreams(
        N, A, OBS, action_encoding="categorical", hidden_dim=16, num_steps=0, value_epochs=0
    )
    networks = {"actor_network": actor, "value_network": critic, **DECAY, **options}
    found = [StreamAdvantage(streams=streams, share=share, **networks), ObAdvantage(**networks)]
    for advantage in found:
        advantage.set_keys(reward=("agents", "reward"))
    return *found, actor, critic


def team_batch(*size, seed=1):
    torch.manual_seed(seed)
    td = random_batch(size, torch.randint(A, (*size, N)), OBS)
    reward = td["next", "agents", "reward"]
    td["next", "agents", "reward"] = reward.mean(-2, keepdim=True).expand_as(reward).clone()
    td["next", "done"][:, 3] = True
    td["next", "terminated"][:1, 3] = True
    return td


def test_the_whole_share_is_the_optimal_baseline_whatever_the_streams_are():
    streams, ob, _, _ = make(share=1.0)
    td = team_batch(4, 6)
    torch.manual_seed(5)
    found = streams(td.clone())
    torch.manual_seed(5)
    expected = ob(td.clone())
    for key in ("advantage", "value_target", ("agents", "baseline")):
        torch.testing.assert_close(found[key], expected[key])


def test_a_share_is_a_line_between_the_split_and_the_whole():
    td, found = team_batch(4, 6), {}
    for share in (0.0, 0.25, 1.0):
        streams, *_ = make(share=share)
        torch.manual_seed(5)
        found[share] = streams(td.clone())["advantage"]
    torch.testing.assert_close(found[0.25], 0.75 * found[0.0] + 0.25 * found[1.0])
    assert not torch.allclose(found[0.0], found[1.0], atol=0.1)


def slow_split(streams, td):
    """The split alone as the formulas say, one step after the other."""
    reward = td["next", "agents", "reward"]
    inputs = streams._features(td)
    terms = streams._terms(inputs, None).detach() * streams.reward_norm.scale()
    own = torch.empty_like(reward)
    for i in range(N):
        others = sum(terms[..., j, :] for j in range(N) if j != i) / N
        own[..., i, :] = reward[..., i, :] - others
    following = td["next"].select(("agents", "observation"))
    value, ahead = streams.values(td).detach(), streams.values(following).detach()
    done, terminated = td["next", "done"], td["next", "terminated"]
    result = torch.empty_like(own)
    for b, t in itertools.product(range(len(td)), reversed(range(td.shape[1]))):
        alive = 0.0 if terminated[b, t] else 1.0
        last = bool(done[b, t]) or t == td.shape[1] - 1
        later = ahead[b, t] if last else 0.2 * ahead[b, t] + 0.8 * result[b, t + 1]
        result[b, t] = own[b, t] + 0.9 * alive * later
    return result - value


def test_the_split_is_the_slow_one():
    streams, *_ = make()
    td = team_batch(4, 6)
    streams.streams.fit_values = lambda *_: None  # its units, too, stay as they are
    streams(td)
    torch.testing.assert_close(td["advantage"], slow_split(streams.streams, td))


def one_step(reward, share):
    """All joint actions of a game of one step as a batch, with their probabilities and the advantage of each."""
    advantage, _, actor, _ = make(share=share)
    actions = torch.cartesian_prod(*[torch.arange(A)] * N)
    td = random_batch((len(actions), 1), actions.unsqueeze(1), OBS)
    for entry in (td["agents"], td["next", "agents"]):
        entry["observation"] = torch.ones_like(entry["observation"])
    paid = torch.stack([reward(action) for action in actions]).reshape(-1, 1, 1, 1)
    td["next", "agents", "reward"] = paid.expand(-1, 1, N, 1).clone()
    td["next", "done"][:] = td["next", "terminated"][:] = True
    log_prob = actor.get_dist(td).log_prob(td["agents", "action"])[:, 0]  # [J, N]
    probability = log_prob.sum(-1).exp().detach()
    return advantage, td, log_prob, probability, actor


def mean_gradient(log_prob, probability, signal, actor):
    objective = (probability.unsqueeze(-1) * log_prob * signal.detach()).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(objective, actor.parameters())])


@pytest.mark.parametrize("interact", [False, True])
def test_in_one_step_the_split_is_unbiased_whatever_the_model_is(interact):
    """The terms of the others do not depend on the own action, also where their actions act on one another."""
    table = torch.randn([A] * N, generator=torch.Generator().manual_seed(2)) * 3
    paid = torch.randn(N, A, generator=torch.Generator().manual_seed(3))

    def reward(action):
        if interact:
            return table[tuple(action)]
        return paid[torch.arange(N), action].sum()

    advantage, td, log_prob, probability, actor = one_step(reward, 0.0)
    advantage(td)
    found = mean_gradient(log_prob, probability, td["advantage"][:, 0, :, 0], actor)
    log_prob = actor.get_dist(td).log_prob(td["agents", "action"])[:, 0]
    true = td["next", "agents", "reward"][:, 0, :, 0]
    torch.testing.assert_close(found, mean_gradient(log_prob, probability, true, actor))


def test_an_exact_model_leaves_no_noise_of_the_others():
    """With r = mean_j f_j(a_j) the own reward is f_i(a_i) / n and a constant: it varies with the own action alone."""
    paid = torch.randn(N, A, generator=torch.Generator().manual_seed(3))
    advantage, td, *_ = one_step(lambda action: paid[torch.arange(N), action].mean(), 0.0)
    taken = td["agents", "action"]
    exact = paid[torch.arange(N), taken].unsqueeze(-1)
    streams = advantage.streams
    streams._terms = lambda inputs, active: (
        exact.reshape(*inputs.shape, N, 1) / streams.reward_norm.scale()
    )
    advantage(td)
    for i, a in itertools.product(range(N), range(A)):
        mine = td["advantage"][:, 0, i, 0][taken[:, 0, i] == a]
        torch.testing.assert_close(mine, mine[:1].expand_as(mine))


def test_the_fit_finds_who_earned_what_and_the_dead_earn_nothing():
    torch.manual_seed(0)
    size = 2_000
    agents = {
        "observation": torch.randn(size, N, OBS),
        "action": torch.randint(A, (size, N)),
    }
    td = TensorDict(
        {"agents": agents, "next": {"agents": {"observation": agents["observation"]}}}, [size]
    )
    active = torch.rand(size, N) < 0.7
    earned = agents["observation"][..., :1] * (2 * agents["action"].unsqueeze(-1) - 1)
    team = (earned * active.unsqueeze(-1)).mean(-2, keepdim=True).expand(-1, N, 1)
    streams = RewardStreams(N, A, OBS, action_encoding="categorical", hidden_dim=64)
    streams.fit_rewards(td, team, active)
    own = streams.own_rewards(td, team, active)
    for i in range(N):
        alive = active[:, i]
        pair = torch.stack([own[alive, i, 0], earned[alive, i, 0]])
        assert torch.corrcoef(pair)[0, 1] > 0.95
        assert own[~alive, i].std() < 0.2 * own[alive, i].std()
    assert streams(td)["critic/reward_explained"] > 0.9


def test_what_is_paid_to_each_is_taken_as_it_is():
    streams = RewardStreams(N, A, OBS, action_encoding="categorical", known=True, value_epochs=0)
    found, ob, _, _ = make(streams=streams)
    td = team_batch(4, 6)
    paid = torch.randn(4, 6, N, 1)
    td["next", "agents", "reward"] = paid.clone()
    torch.manual_seed(5)
    found(td)
    assert torch.equal(td["next", "agents", "reward"], paid)  # the batch is not changed
    of_team = td.clone()
    of_team["next", "agents", "reward"] = paid.mean(-2, keepdim=True).expand_as(paid)
    torch.manual_seed(5)
    torch.testing.assert_close(td["value_target"], ob(of_team)["value_target"])
    torch.testing.assert_close(
        streams.own_rewards(td.flatten(), paid.flatten(0, 1)), paid.flatten(0, 1) / N
    )


def test_rewards_that_differ_are_refused():
    found, *_ = make()
    td = team_batch(4, 6)
    td["next", "agents", "reward"] += torch.arange(N).float().unsqueeze(-1)
    with pytest.raises(RuntimeError, match=r"rewards differ.*env.shared_reward=true.*known=True"):
        found(td)
    with pytest.raises(ValueError, match=r"share must be in \[0, 1\], got 2"):
        make(share=2)


def test_padding_changes_nothing_that_is_valid():
    torch.manual_seed(0)
    td = team_batch(2, 8)
    td["collector", "traj_ids"] = torch.arange(2).unsqueeze(-1) * 2 + (torch.arange(8) > 3)
    split = split_trajectories(td[:1].reshape(-1))
    valid = split["collector", "mask"]
    streams, *_ = make(bootstrap="expected")
    frozen = copy.deepcopy(streams)
    expected = frozen(td[:1].clone())["advantage"]
    found = streams(split)["advantage"]
    torch.testing.assert_close(found[valid], expected.flatten(0, 1))
    assert (found[~valid] == 0).all()


def test_no_gradient_and_no_parameter_reaches_the_loss():
    found, _, actor, critic = make()
    found.streams.num_steps = found.streams.value_epochs = 2
    loss = ClipPPOLoss(actor, critic)
    loss.make_value_estimator(found)
    before = [p.clone() for p in loss.parameters()]
    td = team_batch(4, 6)
    found(td)
    assert not td["advantage"].requires_grad
    assert all(p.grad is None for p in loss.parameters())
    assert all(torch.equal(x, y) for x, y in zip(before, loss.parameters(), strict=True))
    assert not {*map(id, loss.parameters())} & {*map(id, found.streams.parameters())}


def test_a_restored_state_goes_on_to_the_same_numbers():
    first, *_ = make()
    second, *_ = make(seed=0)
    for advantage in (first, second):
        advantage.streams.num_steps = advantage.streams.value_epochs = 3
    torch.manual_seed(3)
    first(team_batch(4, 6))
    second.streams.load_state_dict(copy.deepcopy(first.streams.state_dict()))
    found = []
    for advantage in (first, second):
        td = team_batch(4, 6, seed=2)
        torch.manual_seed(4)
        found.append(advantage(td)["advantage"])
    assert torch.equal(*found)


def test_it_runs_on_a_critic_of_ones_own():
    actor = make_actor("categorical", [torch.randn(N, A)])
    critic = FunctionCritic(lambda action: action.float())
    streams = RewardStreams(N, A, OBS, action_encoding="categorical", hidden_dim=8, num_steps=2)
    found = StreamAdvantage(streams=streams, actor_network=actor, value_network=critic, **DECAY)
    found.set_keys(reward=("agents", "reward"))
    assert found(team_batch(4, 6))["advantage"].isfinite().all()
