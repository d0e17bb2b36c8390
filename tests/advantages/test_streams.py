"""A team's reward split into a stream for each agent: what the split keeps, when it is unbiased, and when it is left out."""

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
REWARD = ("next", "agents", "reward")


def make_streams(splits=True, **options):
    """Streams of random models, which are not fitted unless ``num_epochs`` says so."""
    options = {"action_encoding": "categorical", "hidden_dim": 16, "num_epochs": 0} | options
    streams = RewardStreams(N, A, OBS, **options)
    streams.explained.copy_(torch.tensor([0.0, 1.0] if splits else [0.5, 1.0]))
    return streams


def make(splits=True, seed=0, critic=None, streams=None, **options):
    torch.manual_seed(seed)
    actor = make_actor("categorical", [torch.randn(N, A)])
    critic = critic or JointQCritic(N, A, OBS, action_encoding="categorical", hidden_dim=8)
    networks = {"actor_network": actor, "value_network": critic, **DECAY, **options}
    streams = streams or make_streams(splits)
    found = [StreamAdvantage(streams=streams, **networks), ObAdvantage(**networks)]
    for advantage in found:
        advantage.set_keys(reward=("agents", "reward"))
    return *found, actor, critic


def team_batch(*size, seed=1):
    torch.manual_seed(seed)
    td = random_batch(size, torch.randint(A, (*size, N)), OBS)
    td[REWARD] = td[REWARD].mean(-2, keepdim=True).expand_as(td[REWARD]).clone()
    td["next", "done"][:, 3] = True
    td["next", "terminated"][:1, 3] = True
    return td


def seeded(advantage, td):
    torch.manual_seed(5)
    return advantage(td)


def test_a_reward_that_is_not_split_gives_the_optimal_baseline():
    streams, ob, _, _ = make(splits=False)
    td = team_batch(4, 6)
    found, expected = seeded(streams, td.clone()), seeded(ob, td.clone())
    for key in ("advantage", "value_target", ("agents", "baseline")):
        assert torch.equal(found[key], expected[key])


def slow_streams(streams, td, active=None):
    """The streams as the formula says, one agent after the other."""
    inputs = streams._inputs(td, active)
    usual, rare, _ = (x.detach() for x in streams._terms(inputs))
    terms = (usual + rare) * streams.reward_norm.scale()
    return torch.stack(
        [
            td[REWARD][..., i, :] + terms[..., i, :] - sum(terms[..., j, :] for j in range(N)) / N
            for i in range(N)
        ],
        -2,
    )


def test_it_is_the_optimal_baseline_on_the_streams():
    streams, ob, _, _ = make()
    td = team_batch(4, 6)
    found = seeded(streams, td.clone())
    assert torch.equal(found[REWARD], td[REWARD])  # the batch keeps the team's
    own = slow_streams(streams.streams, td.copy().set("next", streams.following(td)))
    assert (own - td[REWARD]).abs().mean() > 0.01
    expected = seeded(ob, td.clone().set(REWARD, own))
    for key in ("advantage", "value_target", ("agents", "baseline")):
        torch.testing.assert_close(found[key], expected[key])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("some", [False, True])
def test_the_mean_of_the_streams_is_the_reward_of_the_team_for_any_model(dtype, some):
    streams = make_streams(num_epochs=1, num_minibatches=3).to(dtype)
    td = team_batch(4, 6).reshape(-1).apply(lambda x: x.to(dtype) if x.is_floating_point() else x)
    active = torch.rand(24, N) < 0.7 if some else None
    streams.fit(td, td[REWARD], active)
    streams.explained.copy_(torch.tensor([0.0, 1.0]))
    own = streams(td, td[REWARD], active)
    assert own.dtype == dtype
    torch.testing.assert_close(own, slow_streams(streams, td, active))
    torch.testing.assert_close(own.mean(-2), td[REWARD][:, 0])


def one_step(paid, streams=None):
    """All joint actions of a game of one step, whose agents earn ``paid[i, a_i]``, and the streams of an exact model."""
    advantage, _, actor, _ = make(critic=FunctionCritic(lambda action: action.float()))
    actions = torch.cartesian_prod(*[torch.arange(A)] * N)
    td = random_batch((len(actions), 1), actions.unsqueeze(1), OBS)
    for entry in (td["agents"], td["next", "agents"]):
        entry["observation"] = torch.ones_like(entry["observation"])
    earned = paid[torch.arange(N), actions]
    td[REWARD] = earned.mean(-1).reshape(-1, 1, 1, 1).expand(-1, 1, N, 1).clone()
    td["next", "done"][:] = td["next", "terminated"][:] = True
    streams = advantage.streams

    def exact(inputs):
        terms = paid[torch.arange(N), inputs["agents", "action"]].unsqueeze(-1)
        terms = terms / streams.reward_norm.scale()
        return 0.25 * terms, 0.75 * terms, torch.full_like(terms, torch.nan)

    streams._terms = exact
    streams.explained.copy_(torch.tensor([0.0, 1.0]))
    streams.fit = lambda *_: streams.reward_norm.update(td[REWARD][:, 0, 0])
    advantage(td)
    log_prob = actor.get_dist(td).log_prob(td["agents", "action"])[:, 0]  # [J, N]
    return td, log_prob, earned, actor


def mean_gradient(log_prob, signal, actor):
    probability = log_prob.sum(-1, keepdim=True).exp().detach()
    objective = (probability * log_prob * signal.detach()).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(objective, actor.parameters())])


def test_an_exact_model_points_where_the_team_s_gradient_does_without_the_noise_of_the_others():
    """With r = mean_j r_j(a_j) agent i's stream is r_i(a_i): n times the team's gradient, and nothing of the others."""
    paid = torch.randn(N, A, generator=torch.Generator().manual_seed(3))
    td, log_prob, earned, actor = one_step(paid)
    found = mean_gradient(log_prob, td["advantage"][:, 0, :, 0], actor)
    log_prob = actor.get_dist(td).log_prob(td["agents", "action"])[:, 0]
    torch.testing.assert_close(found, N * mean_gradient(log_prob, td[REWARD][:, 0, :, 0], actor))
    own = td["value_target"][:, 0, :, 0]
    torch.testing.assert_close(own, earned)
    taken = td["agents", "action"][:, 0]
    for i, a in itertools.product(range(N), range(A)):
        mine = td["advantage"][:, 0, i, 0][taken[:, i] == a]
        torch.testing.assert_close(mine, mine[:1].expand_as(mine))


def test_each_model_is_fitted_as_its_formula_says_over_the_agents_that_take_part():
    streams, td = make_streams(), team_batch(4, 6).reshape(-1)
    active, target = torch.rand(24, N) < 0.7, torch.randn(24, 1, 1).expand(-1, N, 1)
    inputs = streams._inputs(td, active)
    usual, rare, alone = streams._terms(inputs)
    steps = range(24)
    absolute = [(usual[k].mean(0) - target[k, 0]).abs() for k in steps]
    by_one = [
        (alone[k, i] - target[k, i]).square() for k in steps for i in range(N) if active[k, i]
    ]
    by_all = [((usual[k] + rare[k]).mean(0) - target[k, 0]).square() for k in steps]
    expected = torch.stack([torch.stack(x).mean() for x in (absolute, by_one, by_all)])
    losses = streams._losses(inputs, target)
    torch.testing.assert_close(losses, expected)
    # each loss moves one model alone
    for loss, moved in zip(losses, (streams.usual, streams.alone, streams.rare), strict=True):
        gradient = torch.autograd.grad(
            loss, list(streams.parameters()), retain_graph=True, allow_unused=True
        )
        found = {
            id(p)
            for p, g in zip(streams.parameters(), gradient, strict=True)
            if g is not None and g.any()
        }
        assert found
        assert found <= {*map(id, moved.parameters())}


def transitions(seed, size=2_000):
    torch.manual_seed(seed)
    agents = {"observation": torch.randn(size, N, OBS), "action": torch.randint(A, (size, N))}
    following = {"agents": {"observation": agents["observation"]}}
    return TensorDict({"agents": agents, "next": following}, [size])


def fitted(reward, *, num_batches=2, active=None, **options):
    """Streams that are fitted to batches of a team's reward, a function of the batch ``[N, n, 1]``; and the last of them."""
    streams = make_streams(hidden_dim=64, num_epochs=15, num_minibatches=20, **options)
    streams.explained.zero_()
    for seed in range(num_batches):
        td = transitions(seed)
        streams.fit(td, reward(td), active)
    return streams, td


def earned_apart(td):
    return td["agents", "observation"][..., :1] * (2 * td["agents", "action"].unsqueeze(-1) - 1)


def test_what_agents_earn_apart_is_split_and_the_dead_earn_nothing():
    torch.manual_seed(0)
    active = torch.rand(2_000, N) < 0.7

    def reward(td):
        earned = earned_apart(td) * active.unsqueeze(-1)
        return earned.mean(-2, keepdim=True).expand(-1, N, 1)

    streams, td = fitted(reward, active=active)
    assert streams.splits
    own, earned = streams(td, reward(td), active), earned_apart(td)
    for i in range(N):
        alive = active[:, i]
        pair = torch.stack([own[alive, i, 0], earned[alive, i, 0]])
        assert torch.corrcoef(pair)[0, 1] > 0.95
        assert 0.9 < own[alive, i].std() / earned[alive, i].std() < 1.1
        assert own[~alive, i].std() < 0.2 * own[alive, i].std()
    report = streams.report
    assert report["critic/reward_split"] == 1
    assert report["critic/reward_explained"] > 0.9
    assert 0 < report["critic/reward_explained_alone"] < 0.5


def test_rare_large_rewards_do_not_hide_what_most_steps_pay():
    """One step in a hundred costs an agent fifty times what the others earn; u is what credits the other ninety-nine."""

    def earned(td):
        usual, chance = earned_apart(td), td["agents", "observation"][..., 1:2]
        return torch.where(chance > 2.3, -50.0, usual)

    streams, td = fitted(lambda td: earned(td).mean(-2, keepdim=True).expand(-1, N, 1))
    paid = earned(td)
    team = paid.mean(-2, keepdim=True).expand(-1, N, 1)
    streams.explained.copy_(torch.tensor([0.0, 1.0]))
    own = streams(td, team) - team
    usual = (paid > -50).all(-2).squeeze(-1)
    apart = (paid - team)[usual].flatten()
    slope = (own[usual].flatten() * apart).sum() / apart.square().sum()
    assert slope > 0.5
    streams._terms = lambda inputs, terms=streams._terms: [0 * (x := terms(inputs))[0], *x[1:]]
    own = streams(td, team) - team
    assert (own[usual].flatten() * apart).sum() / apart.square().sum() < 0.5 * slope


def test_what_every_agent_observes_is_not_split():
    """One load that all see: each agent's observations explain the reward as well as all together."""

    def reward(td):
        load = td["agents", "observation"][:, :1, :1]
        for entry in (td["agents"], td["next", "agents"]):
            entry["observation"] = torch.cat(
                [load.expand(-1, N, 1), entry["observation"][..., 1:]], -1
            )
        return load.square().expand(-1, N, 1)

    streams, td = fitted(reward)
    assert not streams.splits
    assert streams.report["critic/reward_explained_alone"] > 0.8
    paid = reward(td)
    assert torch.equal(streams(td, paid), paid)


@pytest.mark.parametrize(
    "reward",
    [lambda td: torch.randn(2_000, 1, 1).expand(-1, N, 1), lambda td: torch.ones(2_000, N, 1)],
    ids=["noise", "constant"],
)
def test_what_no_model_explains_is_not_split(reward):
    """The share that is explained is that of a batch before the fit to it: what is learned by heart does not count."""
    streams, _ = fitted(reward)
    assert not streams.splits
    assert streams.explained.isfinite().all()
    assert all(x.isfinite().all() for x in streams.parameters())


def test_wrong_input_is_refused_before_the_fit():
    found, *_ = make()
    before = copy.deepcopy(found.streams.state_dict())
    td = team_batch(4, 6)
    td[REWARD] += torch.arange(N).float().unsqueeze(-1)
    with pytest.raises(
        RuntimeError, match=r"rewards differ.*env.shared_reward=true.*advantage=ob\."
    ):
        found(td)
    td[REWARD] = torch.full_like(td[REWARD], torch.nan)
    with pytest.raises(RuntimeError, match=r"the reward .* is not finite"):
        found(td)
    for name, entry in found.streams.state_dict().items():
        if isinstance(entry, torch.Tensor):
            assert torch.equal(entry, before[name])
    critic = JointQCritic(N, A, OBS, action_encoding="categorical", backbone="additive")
    with pytest.raises(ValueError, match=r'one value for the team.*backbone="pooled"'):
        make(critic=critic)


def test_padding_changes_nothing_that_is_valid():
    torch.manual_seed(0)
    td = team_batch(2, 8)
    for name in ("done", "terminated"):
        td["next", name][:] = (torch.arange(8) == 4).unsqueeze(-1)
    td["collector", "traj_ids"] = torch.arange(2).unsqueeze(-1) * 2 + (torch.arange(8) > 4)
    split = split_trajectories(td[:1].reshape(-1))
    valid = split["collector", "mask"]
    assert not valid.all()
    streams, *_ = make(bootstrap="expected", streams=make_streams(num_epochs=1))
    frozen = copy.deepcopy(streams)
    expected = seeded(frozen, td[:1].clone())["advantage"]
    found = seeded(streams, split)["advantage"]
    torch.testing.assert_close(found[valid], expected.flatten(0, 1))
    assert (found[~valid] == 0).all()


def test_what_follows_a_termination_is_not_read():
    td, found = team_batch(4, 6), []
    streams, *_ = make(streams=make_streams(num_epochs=1))
    for content in (0.0, torch.nan):
        td["next", "agents", "observation"][0, 3] = content
        found.append(seeded(copy.deepcopy(streams), td.clone())["advantage"])
    assert torch.equal(*found)


def test_no_gradient_and_no_parameter_reaches_the_loss():
    found, _, actor, critic = make(streams=make_streams(num_epochs=2))
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
    first, *_ = make(streams=make_streams(num_epochs=3))
    second, *_ = make(seed=0, streams=make_streams(num_epochs=3))
    torch.manual_seed(3)
    first(team_batch(4, 6))
    second.streams.load_state_dict(copy.deepcopy(first.streams.state_dict()))
    first, second = (seeded(x, team_batch(4, 6, seed=2)) for x in (first, second))
    assert torch.equal(first["advantage"], second["advantage"])
