"""Critics that remember: advantages are those of a slow loop that encodes every prefix of every episode."""

import pytest
import torch
from games import random_batch
from small_teams import ALL, OBS, N, make, make_team
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.modules import GRUModule, LSTMModule, ProbabilisticActor, set_recurrent_mode
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import MultiAgentGAE

from torchrl_ob import (
    JointQCritic,
    MultiAgentGRU,
    MultiAgentLSTM,
    ObAdvantage,
    RecurrentCritic,
    StateValue,
    diagnostics,
)
from torchrl_ob.critics.groups import join_critics
from torchrl_ob.experiments.gae import multi_agent_gae

H = 6
CELLS = {"gru": (MultiAgentGRU, torch.gru_cell), "lstm": (MultiAgentLSTM, torch.lstm_cell)}
FEATURES, VALUE = ("agents", "critic_features"), ("agents", "state_action_value")
V = ("agents", "state_value")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def make_memory(cell="gru", group="agents", dtype=torch.float32, **options):
    cls = CELLS[cell][0]
    return cls(
        N,
        OBS,
        H,
        in_key=(group, "observation"),
        out_key=(group, "critic_features"),
        state_keys=[(group, f"critic_{name}") for name in cls.states],
        dtype=dtype,
        **options,
    )


def make_critic(cell="gru", discrete=False, group="agents", dtype=torch.float32, **options):
    head = {"action_dim": 5, "action_encoding": "categorical"} if discrete else {"action_dim": 2}
    head = JointQCritic(
        N,
        observation_dim=H,
        observation_key=(group, "critic_features"),
        action_key=(group, "action"),
        hidden_dim=16,
        **head,
    )
    return RecurrentCritic(make_memory(cell, group, dtype, **options), head.to(dtype))


def make_batch(critic, *batch, discrete=False, group="agents", dtype=torch.float32, states=True):
    """Trajectories with ends at random places; the state before the first step is of an episode under way."""
    action = (
        torch.randint(5, (*batch, N)) if discrete else torch.rand(*batch, N, 2, dtype=dtype) - 0.5
    )
    td = random_batch(batch, action, OBS, group, dtype)
    done = torch.rand(*batch, 1) < 0.3
    td["next", "done"], td["next", "terminated"] = done, done & (torch.rand(*batch, 1) < 0.5)
    starts = done.roll(1, 1)
    starts[:, 0] = torch.rand(batch[0], 1) < 0.5 if states else True
    td["is_init"] = starts
    goes_on = ~done[:, :-1, :, None]
    observation = td[group, "observation"]
    following = td["next", group, "observation"]
    following[:, :-1] = torch.where(goes_on, observation[:, 1:], following[:, :-1])
    following[td["next", "terminated"].squeeze(-1)] = torch.nan  # nothing follows
    if states:
        for key in critic.state_keys:
            td[key] = torch.full((*batch, N, 1, H), torch.nan, dtype=dtype)
            td[key][:, 0] = torch.randn(batch[0], N, 1, H, dtype=dtype)
    return td


def encode_slowly(memory, td, group="agents"):
    """Features of every step and of its next state: PyTorch's cell along the prefix of each."""
    cell = CELLS["gru" if isinstance(memory, MultiAgentGRU) else "lstm"][1]
    weights = [getattr(memory, f"{x}_l0") for x in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    td, observation = td.clone(), td[group, "observation"]

    def run(b, t, last):
        start = max([k for k in range(t + 1) if td["is_init"][b, k]], default=0)
        first = [td.get(key, None) for key in memory.state_keys]
        zero = td["is_init"][b, start] or first[0] is None
        state = [observation.new_zeros(N, H) if zero else x[b, 0, :, 0] for x in first]
        for x in [*observation[b, start : t + 1], *last]:
            state = cell(x, state[0] if len(state) == 1 else state, *weights)
            state = [state] if isinstance(state, torch.Tensor) else list(state)
        return state[0]

    def fill(following):
        rows = [
            torch.stack(
                [run(b, t, [following[b, t]] if following is not None else []) for t in range(T)]
            )
            for b in range(B)
        ]
        return torch.stack(rows)

    B, T = td.shape
    td[group, "critic_features"] = fill(None)
    td["next", group, "critic_features"] = fill(td["next", group, "observation"])
    return td


def results(advantage, td, mode=False):
    torch.manual_seed(1)
    with set_recurrent_mode(mode):
        found = advantage(td.clone())
    keys = advantage.out_keys
    return [found[key] for key in keys]


BOOTSTRAPS = ["sampled", "expected", "control_variate"]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
@pytest.mark.parametrize("mode", [False, True])
def test_advantages_are_those_of_a_slow_loop(kind, cell, discrete, bootstrap, mode):
    dtype = torch.float64
    actor, _ = make_team(discrete, dtype=dtype)
    critic = make_critic(cell, discrete, dtype=dtype)
    td = make_batch(critic, 3, 6, discrete=discrete, dtype=dtype)
    found = results(make(kind, actor, critic, bootstrap=bootstrap), td, mode)
    slow = encode_slowly(critic.memory, td)
    expected = results(make(kind, actor, critic.head, bootstrap=bootstrap), slow)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    forgetful = td.clone()
    forgetful["is_init"][:, 1:] = False
    moved = results(make(kind, actor, critic, bootstrap=bootstrap), forgetful)
    assert not torch.allclose(moved[0], expected[0], atol=1e-4)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("mode", [False, True])
def test_gae_with_a_memory_is_that_of_a_slow_loop(cell, mode):
    dtype, gamma, lmbda = torch.float64, 0.5, 0.75  # TorchRL rounds others to single precision
    head = StateValue(N, H, observation_key=FEATURES, hidden_dim=16).to(dtype)
    critic = RecurrentCritic(make_memory(cell, dtype=dtype), head)
    td = make_batch(critic, 3, 6, dtype=dtype)
    slow = encode_slowly(critic.memory, td)
    v, following = (head(x)[V] for x in (slow, slow["next"]))
    done, terminated = (td["next", name].unsqueeze(-1) for name in ("done", "terminated"))
    residual = td["next", "agents", "reward"] - v
    residual = residual + gamma * torch.where(terminated, 0, following)
    expected = torch.zeros_like(v)
    for t in reversed(range(6)):
        later = expected[:, t + 1] if t < 5 else 0
        expected[:, t] = residual[:, t] + gamma * lmbda * torch.where(done[:, t], 0, later)
    gae = multi_agent_gae(actor_network=None, value_network=critic, gamma=gamma, lmbda=lmbda)
    gae.set_keys(reward=("agents", "reward"), value=V)
    before = td.clone()
    with set_recurrent_mode(mode):
        found = gae(td)
    torch.testing.assert_close(found["advantage"], expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(found["value_target"], expected + v, atol=1e-12, rtol=0)
    assert not found["advantage"].requires_grad
    assert set(found.keys(True, True)) - set(before.keys(True, True)) == set(gae.out_keys[:2])
    whole = MultiAgentGAE(value_network=critic, gamma=gamma, lmbda=lmbda)
    whole.set_keys(reward=("agents", "reward"), value=V)
    td["next"].update(before.select("is_init", *critic.state_keys))
    with pytest.raises(TypeError, match=r"give them its head and the encoded batch"):
        whole(td)


@pytest.mark.filterwarnings("ignore:the critic ignores the action:UserWarning")
@pytest.mark.parametrize(
    "measure",
    [
        diagnostics.gradient_variance,
        diagnostics.variance_terms,
        diagnostics.excess_variance,
        diagnostics.headroom,
        diagnostics.critic_quality,
        diagnostics.variance_metrics,
    ],
)
def test_what_is_measured_is_that_of_a_slow_loop(measure):
    actor, _ = make_team(dtype=torch.float64)
    critic = make_critic(dtype=torch.float64)
    td = make_batch(critic, 8, 6, dtype=torch.float64)
    td["next", "agents", "observation"].nan_to_num_()
    slow = encode_slowly(critic.memory, td)
    found, expected = (
        measure(make(ObAdvantage, actor, net), batch)
        for net, batch in ((critic, td), (critic.head, slow))
    )
    found, expected = (x if isinstance(x, dict) else x._asdict() for x in (found, expected))
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-6, equal_nan=True)


def test_single_precision_and_signals_of_the_critic():
    actor, _ = make_team()
    critic = make_critic()
    td = make_batch(critic, 3, 6)
    slow = encode_slowly(critic.memory, td)
    for options in ({}, {"signal": "critic"}, {"chunk_size": 1}):
        found = results(make(ObAdvantage, actor, critic, **options), td)
        expected = results(make(ObAdvantage, actor, critic.head, **options), slow)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_episodes_without_stored_states():
    actor, _ = make_team()
    critic = make_critic("lstm")
    td = make_batch(critic, 3, 6, states=False)
    found = results(make(ObAdvantage, actor, critic), td)
    expected = results(make(ObAdvantage, actor, critic.head), encode_slowly(critic.memory, td))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_time_may_be_the_first_dimension():
    actor, _ = make_team(dtype=torch.float64)
    critic = make_critic(dtype=torch.float64)
    td = make_batch(critic, 4, 4, dtype=torch.float64)
    options = {"bootstrap": "control_variate", "signal": "critic"}
    usual = results(make(ObAdvantage, actor, critic, **options), td)[2]
    turned = make(ObAdvantage, actor, critic, time_dim=0, **options)
    found = results(turned, td.transpose(0, 1).contiguous())[2]
    torch.testing.assert_close(found.transpose(0, 1), usual, atol=1e-12, rtol=0)
    one = results(make(ObAdvantage, actor, critic, time_dim=0, **options), td[2])[2]
    torch.testing.assert_close(one, usual[2], atol=1e-12, rtol=0)


def test_the_dead_and_padding_move_nothing():
    actor, _ = make_team(dtype=torch.float64)
    critic = make_critic(dtype=torch.float64)
    td = make_batch(critic, 3, 6, dtype=torch.float64)
    td["agents", "mask"] = torch.rand(3, 6, N) < 0.7
    td["collector", "mask"] = torch.arange(6).expand(3, 6) < torch.tensor([[6], [4], [2]])
    for part in (td, td["next"]):
        part["agents", "observation"][1, 4:] = torch.nan
    found = results(make(ObAdvantage, actor, critic), td)
    assert found[0][~td["agents", "mask"]].abs().sum() == 0
    for b, length in enumerate([6, 4, 2]):
        alone = td[b : b + 1, :length].exclude("collector")
        torch.manual_seed(1)
        advantage = make(ObAdvantage, actor, critic, bootstrap="control_variate")
        expected = [x[0] for x in results(advantage, alone)][2]
        torch.testing.assert_close(found[2][b, :length], expected, atol=1e-12, rtol=0)


def test_the_input_is_left_as_it_was():
    actor, _ = make_team()
    critic = make_critic()
    td = make_batch(critic, 3, 6)
    before = td.clone()
    make(ObAdvantage, actor, critic)(td)
    new = set(td.keys(True, True)) - set(before.keys(True, True))
    assert new == {"advantage", "value_target", ("agents", "baseline")}
    for key, value in before.items(True, True):
        torch.testing.assert_close(td[key], value, equal_nan=True)


def test_several_groups_each_remember():
    groups = ["red", "blue"]
    actors = {g: make_team(group=g, dtype=torch.float64)[0] for g in groups}
    parts = {
        g: make_critic("gru" if g == "red" else "lstm", group=g, dtype=torch.float64)
        for g in groups
    }
    critics = join_critics(parts)
    td = make_batch(parts["red"], 3, 6, group="red", dtype=torch.float64)
    other = make_batch(parts["blue"], 3, 6, group="blue", dtype=torch.float64)
    other["next"] = other["next"].select("blue")
    del other["is_init"]
    td.update(other)
    last = td["next", "terminated"].squeeze(-1)
    td["next", "blue", "observation"].nan_to_num_()
    td["next", "blue", "observation"][last] = torch.nan
    slow = encode_slowly(
        parts["blue"].memory, encode_slowly(parts["red"].memory, td, "red"), "blue"
    )
    heads = join_critics({g: parts[g].head for g in groups})
    for g, other in (groups, groups[::-1]):
        options = {"other_actors": [actors[other]], "group": g}
        found = results(make(ObAdvantage, actors[g], critics[g], **options), td)
        expected = results(make(ObAdvantage, actors[g], heads[g], **options), slow)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


# ---- with a recurrent actor ---------------------------------------------------------------------


def recurrent_actor(num_actions=3, dtype=torch.float64):
    memory = MultiAgentGRU(N, OBS, H, dtype=dtype)
    net = TensorDictModule(
        nn.Linear(H, num_actions, dtype=dtype), [("agents", "features")], [("agents", "logits")]
    )
    return ProbabilisticActor(
        TensorDictSequential(memory, net),
        in_keys=[("agents", "logits")],
        out_keys=[("agents", "action")],
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True,
    )


def remembering_team(*batch):
    """Actor and critic that remember, and a batch whose states are those that they had."""
    actor, dtype = recurrent_actor(), torch.float64
    head = JointQCritic(
        N, 3, H, action_encoding="categorical", observation_key=FEATURES, hidden_dim=16
    )
    critic = RecurrentCritic(make_memory(dtype=dtype), head.to(dtype))
    td = make_batch(critic, *batch, discrete=True, dtype=dtype, states=False)
    td["next", "agents", "observation"].nan_to_num_()
    td["agents", "action"] = torch.randint(3, (*batch, N))
    for key in (("agents", "hidden"), ("agents", "critic_hidden")):
        td[key] = torch.zeros(*batch, N, 1, H, dtype=dtype)
    with torch.no_grad(), set_recurrent_mode(True):
        for net in (actor.module[0][0], critic.memory):
            along = net(td.clone())
            for key in net.out_keys[1:]:
                td[key] = along[key]
                after = along[key][:, :-1].masked_fill(td["is_init"][:, 1:, :, None, None], 0)
                td[key[1:]][:, 1:] = after
        td["agents", "logits"] = actor.get_dist(td.clone()).logits
    td["next", "is_init"] = torch.zeros_like(td["is_init"])
    return actor, critic, td


@pytest.mark.parametrize("kind", ALL)
def test_the_expected_gradient_is_that_without_a_baseline(kind):
    actor, critic, td = remembering_team(1, 5)
    td["is_init"][:, 1:], td["next", "done"][:] = False, False
    joint = torch.cartesian_prod(*[torch.arange(3)] * N)
    every = td.expand(len(joint), 5).clone()
    every["agents", "action"][:, -1] = joint
    with set_recurrent_mode(True):  # the score runs back through the whole history
        dist = actor.get_dist(every.clone())
    log_prob = dist.log_prob(every["agents", "action"])[:, -1]
    weight = log_prob.detach().sum(-1, keepdim=True).exp()
    torch.testing.assert_close(weight.sum(), torch.ones((), dtype=torch.float64))
    every["agents", "logits"] = dist.logits.detach()

    def gradient(advantage):
        found = make(advantage, actor, critic, signal="critic")(every.clone())["advantage"]
        objective = (weight * log_prob * found[:, -1].squeeze(-1)).sum()
        grads = torch.autograd.grad(objective, list(actor.parameters()), retain_graph=True)
        return torch.cat([g.flatten() for g in grads])

    plain = gradient(ALL[-1])
    assert plain.abs().max() > 1e-4
    torch.testing.assert_close(gradient(kind), plain, atol=1e-14, rtol=1e-9)


def test_the_baseline_depends_on_the_others_actions_alone():
    actor, critic, td = remembering_team(2, 5)
    advantage = make(ObAdvantage, actor, critic)
    before = advantage(td.clone())["agents", "baseline"]
    td["agents", "action"][0, 3, 1] = (td["agents", "action"][0, 3, 1] + 1) % 3
    moved = (advantage(td.clone())["agents", "baseline"] - before).abs() > 1e-9
    expected = torch.zeros_like(moved)
    expected[0, 3, 0], expected[0, 3, 2] = True, True
    assert torch.equal(moved, expected)


@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
def test_the_mode_of_the_caller_makes_no_difference(bootstrap):
    actor, critic, td = remembering_team(3, 6)
    advantage = make(ObAdvantage, actor, critic, bootstrap=bootstrap)
    assert td["is_init"][:, 1:].any()
    assert all(map(torch.equal, results(advantage, td, False), results(advantage, td, True)))


@pytest.mark.slow
def test_an_advantage_compiles_as_one_graph():
    actor, critic, td = remembering_team(3, 5)
    advantage = make(ObAdvantage, actor, critic, signal="critic")  # the return draws actions
    plain = advantage(td.clone())
    torch._dynamo.reset()
    compiled = torch.compile(advantage, fullgraph=True, backend="aot_eager")
    found = compiled(td.clone())
    for key in ("advantage", ("agents", "baseline")):
        torch.testing.assert_close(found[key], plain[key], atol=1e-12, rtol=0)


@pytest.fixture
def loss_and_batch():
    actor, critic, td = remembering_team(4, 6)
    td = make(ObAdvantage, actor, critic)(td)
    with torch.no_grad(), set_recurrent_mode(True):
        log_prob = actor.get_dist(td.clone()).log_prob(td["agents", "action"])
    td["agents", "action_log_prob"] = log_prob - 0.05 * torch.rand_like(log_prob)
    loss = ClipPPOLoss(actor, critic, entropy_coeff=0.01, normalize_advantage=False)
    loss.set_keys(
        value=VALUE, action=("agents", "action"), sample_log_prob=("agents", "action_log_prob")
    )
    return loss, td


def gradients(loss, td):
    found = loss(td.clone())
    total = sum(term for name, term in found.items() if name.startswith("loss"))
    parameters = [p for p in loss.parameters() if p.requires_grad]
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(total, parameters, materialize_grads=True)]
    )


def test_gradients_of_minibatches_of_sequences_add_up(loss_and_batch):
    loss, td = loss_and_batch
    whole = gradients(loss, td)
    parts = torch.stack([gradients(loss, part) for part in td.split(1)]).mean(0)
    torch.testing.assert_close(parts, whole, atol=1e-12, rtol=1e-9)
    # cut where episodes end, no gradient is lost either
    td["is_init"][:, 3], td["next", "done"][:, 2] = True, True
    whole = gradients(loss, td)
    cut = (gradients(loss, td[:, :3]) + gradients(loss, td[:, 3:])) / 2
    torch.testing.assert_close(cut, whole, atol=1e-12, rtol=1e-9)


def test_padding_enters_no_gradient(loss_and_batch):
    loss, td = loss_and_batch
    lengths = [6, 4, 1, 3]
    valid = torch.arange(6) < torch.tensor(lengths).unsqueeze(-1)
    alone = [gradients(loss, td[b : b + 1, :k]) * k for b, k in enumerate(lengths)]
    padded = td.clone()
    padded[~valid] = torch.zeros_like(padded[~valid])  # as TorchRL pads
    padded["collector"] = TensorDict({"mask": valid}, [4, 6])
    found = gradients(loss, padded)
    torch.testing.assert_close(found, sum(alone) / sum(lengths), atol=1e-12, rtol=1e-9)


def test_the_loss_values_sequences_as_the_advantage_does(loss_and_batch):
    loss, td = loss_and_batch
    team = loss_team(loss)
    expected = team.q(team.encode(td))
    with torch.no_grad():
        steps = team.critic(td.clone())[VALUE]
        with set_recurrent_mode(True):
            whole = team.critic(td.clone())[VALUE]
            late = team.critic(td[:, 2:].clone())[VALUE]  # from the state that was stored
    for found, like in ((steps, expected), (whole, expected), (late, expected[:, 2:])):
        torch.testing.assert_close(found, like, atol=1e-12, rtol=0)


def loss_team(loss):
    return ObAdvantage.for_loss(loss, gamma=0.9, lmbda=0.8).team


def test_target_parameters_encode_with_a_memory_of_their_own():
    actor, critic, td = remembering_team(3, 5)
    other = remembering_team(3, 5)[1]
    params = [TensorDict.from_module(x).detach().clone() for x in (critic, other)]
    options = {"bootstrap": "control_variate", "signal": "critic"}
    found = make(ObAdvantage, actor, critic, **options)
    torch.manual_seed(1)
    both = found(td.clone(), params=params[0], target_params=params[1])
    torch.manual_seed(1)
    mixed = make(ObAdvantage, actor, other, **options)(td.clone())
    torch.testing.assert_close(both["value_target"], mixed["value_target"])
    alone = found(td.clone())
    torch.testing.assert_close(both["agents", "baseline"], alone["agents", "baseline"])


# ---- modules of others, and what is refused -----------------------------------------------------


class OfTorchRL(TensorDictSequential):
    """TorchRL's module of a single agent over the observations of all, its features shared out."""

    def __init__(self, cell):
        states = ["hidden", "cell"][: 1 if cell == "gru" else 2]
        memory = (GRUModule if cell == "gru" else LSTMModule)(
            input_size=N * OBS,
            hidden_size=N * H,
            in_keys=["flat", *states],
            out_keys=["summary", *[("next", state) for state in states]],
        )
        keys = [("agents", "observation")], ["flat"]
        flatten = TensorDictModule(lambda x: x.flatten(-2), *keys)
        split = TensorDictModule(lambda x: x.unflatten(-1, (N, H)), ["summary"], [FEATURES])
        super().__init__(flatten, memory, split)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("stored", [False, True])
def test_a_recurrent_module_of_torchrl_is_a_memory(cell, stored):
    head = JointQCritic(N, 2, H, observation_key=FEATURES, hidden_dim=16)
    critic = RecurrentCritic(OfTorchRL(cell), head)
    td = make_batch(make_critic(), 3, 6, states=False)
    td["next", "agents", "observation"].nan_to_num_()
    if stored:
        td["is_init"][:, 0] = False
        for key in critic.state_keys:
            td[key] = torch.randn(3, 6, 1, N * H)  # and what lies where episodes begin is not read
    encoded, net = critic.encode(td), critic.memory[1]
    net = net.gru if cell == "gru" else net.lstm
    for b, t in torch.cartesian_prod(torch.arange(3), torch.arange(6)).tolist():
        start = max([k for k in range(t + 1) if td["is_init"][b, k]], default=0)
        seen = [*td["agents", "observation"][b, start : t + 1]]
        first = [td[key][b, 0] for key in critic.state_keys if stored and start == 0]
        state = None if not first else first[0] if cell == "gru" else tuple(first)
        for found, last in (
            (encoded[FEATURES], []),
            (encoded["next", *FEATURES], [td["next", "agents", "observation"][b, t]]),
        ):
            expected = net(torch.stack([*seen, *last]).flatten(1), state)[0][-1]
            torch.testing.assert_close(found[b, t], expected.reshape(N, H), atol=1e-6, rtol=0)
    actor, _ = make_team()
    assert make(ObAdvantage, actor, critic)(td)["advantage"].isfinite().all()


class Averages(nn.Module):
    """A critic with a history of one's own kind: the mean of the observations since the episode began."""

    def __init__(self, head, forget=()):
        super().__init__()
        self.head, self.forget = head, forget
        self.in_keys = [("agents", "observation"), "is_init", ("agents", "action")]
        self.out_keys = head.out_keys

    def encode(self, tensordict):
        encoded = tensordict.copy()
        encoded[FEATURES] = encoded["next", FEATURES] = tensordict["agents", "observation"]
        for key in self.forget:
            encoded.pop(key)
        return encoded


def test_an_encoder_of_ones_own_writes_all_that_the_head_reads():
    head = JointQCritic(N, 2, OBS, observation_key=FEATURES, hidden_dim=16)
    actor, plain = make_team()
    td = make_batch(plain, 3, 5, states=False)
    assert make(ObAdvantage, actor, Averages(head))(td.clone())["advantage"].isfinite().all()
    with pytest.raises(KeyError, match=r"after Averages.encode, the head reads .*'next'"):
        make(ObAdvantage, actor, Averages(head, [("next", *FEATURES)]))(td)
    without = Averages(head)
    del without.head
    with pytest.raises(TypeError, match="has a method encode and no head"):
        make(ObAdvantage, actor, without)


def test_what_is_missing_is_told_with_its_remedy():
    actor, _ = make_team()
    critic = make_critic()
    advantage = make(ObAdvantage, actor, critic)
    td = make_batch(critic, 3, 5, states=False)
    td["is_init"][1, 0] = False
    with pytest.raises(
        RuntimeError, match=r"begins within an episode.*TensorDictSequential\(policy"
    ):
        advantage(td.clone())
    td["agents", "critic_hidden"] = torch.zeros(3, 5, N, 1, H)  # of a primer, never carried on
    with pytest.raises(RuntimeError, match="begins within an episode"):
        advantage(td.clone())
    with pytest.raises(KeyError, match=r"reads 'is_init'.*InitTracker\(\)"):
        advantage(td.exclude("is_init"))
    with pytest.raises(KeyError, match=r"after team.encode\(\.\.\.\), the critic reads"):
        advantage.team.q(td)
    head = JointQCritic(N, 2, OBS)
    with pytest.raises(ValueError, match="none of the features"):
        RecurrentCritic(make_memory(), head)
    with pytest.raises(TypeError, match="keeps no state"):
        RecurrentCritic(TensorDictModule(nn.Linear(OBS, H), ["o"], [FEATURES]), head)
