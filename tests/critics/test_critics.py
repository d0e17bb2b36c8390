import pytest
import torch
from games import FunctionCritic, Plain
from tensordict import TensorDict
from torchrl.envs import VmasEnv
from torchrl.modules import PopArtValueNorm

from torchrl_ob import JointQCritic
from torchrl_ob.critics.substitution import substitute_candidates

N, OBS, S = 3, 4, 5  # agents, observation and state size
ENCODINGS = {
    "continuous": {"action_dim": 2},
    "categorical": {"action_dim": 4, "action_encoding": "categorical"},
    "one_hot": {"action_dim": 4, "action_encoding": "one_hot"},
    "multi_categorical": {
        "action_dim": 5,
        "action_encoding": "multi_categorical",
        "nvec": (2, 3),
    },
}
INPUTS = {
    "observations": {"observation_dim": OBS},
    "state": {"state_dim": S},
    "both": {"observation_dim": OBS, "state_dim": S},
}


def random_actions(encoding, *shape):
    if encoding == "continuous":
        return torch.randn(*shape, 2)
    if encoding == "multi_categorical":
        return torch.stack([torch.randint(n, shape) for n in (2, 3)], -1)
    action = torch.randint(4, shape)
    return torch.nn.functional.one_hot(action, 4) if encoding == "one_hot" else action


def random_inputs(encoding, *batch):
    agents = {
        "observation": torch.randn(*batch, N, OBS),
        "action": random_actions(encoding, *batch, N),
    }
    return TensorDict({"agents": agents, "state": torch.randn(*batch, S)}, batch)


def slow_loop(critic, td, actions):
    """One evaluation of the joint action for every agent and candidate."""
    values = torch.empty(actions.shape[: td.ndim + 2])
    for agent in range(actions.shape[td.ndim]):
        for k in range(actions.shape[td.ndim + 1]):
            joint = td["agents", "action"].clone()
            index = (slice(None),) * td.ndim
            joint[(*index, agent)] = actions[(*index, agent, k)]
            out = critic(td.clone().set(("agents", "action"), joint))
            values[(*index, agent, k)] = out["agents", "state_action_value"][(*index, agent, 0)]
    return values


@pytest.mark.parametrize("backbone", ["pooled", "concat", "additive"])
@pytest.mark.parametrize("share_params", [True, False])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_fast_path_is_the_generic_one_and_both_are_the_slow_loop(
    backbone, share_params, encoding, inputs
):
    torch.manual_seed(0)
    critic = JointQCritic(
        N,
        **ENCODINGS[encoding],
        **INPUTS[inputs],
        backbone=backbone,
        share_params=share_params,
        hidden_dim=16,
    )
    td = random_inputs(encoding, 2, 5)
    actions = random_actions(encoding, 2, 5, N, 7)
    keys = {"action_key": ("agents", "action"), "value_key": ("agents", "state_action_value")}
    with torch.no_grad():
        fast = substitute_candidates(critic, td, actions, **keys)
        generic = substitute_candidates(Plain(critic), td, actions, **keys)
        slow = slow_loop(critic, td, actions)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(generic, slow, rtol=1e-4, atol=1e-5)
    assert fast.std(2).min() > 1e-4 or encoding != "continuous"  # the critic does read the action


@pytest.mark.parametrize("batch", [(), (6,), (2, 3), (2, 1, 3)])
@pytest.mark.parametrize("encoding", ["continuous", "categorical"])
def test_any_number_of_batch_dimensions(encoding, batch):
    critic = JointQCritic(N, **ENCODINGS[encoding], observation_dim=OBS, hidden_dim=8)
    td, actions = random_inputs(encoding, *batch), random_actions(encoding, *batch, N, 4)
    flat = (
        critic.candidate_values(td.reshape(-1), actions.flatten(0, len(batch) - 1))
        if batch
        else None
    )
    values = critic.candidate_values(td, actions)
    assert values.shape == (*batch, N, 4)
    assert critic(td)["agents", "state_action_value"].shape == (*batch, N, 1)
    if batch:
        torch.testing.assert_close(values.reshape(-1, N, 4), flat)


@pytest.mark.parametrize("backbone", ["pooled", "concat", "additive"])
@pytest.mark.parametrize("encoding", ["continuous", "categorical"])
def test_candidates_do_not_depend_on_the_own_action_taken(backbone, encoding):
    torch.manual_seed(0)
    critic = JointQCritic(N, **ENCODINGS[encoding], observation_dim=OBS, backbone=backbone)
    td, actions = random_inputs(encoding, 8), random_actions(encoding, 8, N, 5)
    before = critic.candidate_values(td, actions)
    joint = td["agents", "action"].clone()
    joint[:, 1] = (joint[:, 1] + 1) % 4
    after = critic.candidate_values(td.set(("agents", "action"), joint), actions)
    torch.testing.assert_close(after[:, 1], before[:, 1])
    moved = (after - before).abs().amax((0, 2))
    assert (moved[[0, 2]] > 1e-4).all()


def test_agents_are_told_apart():
    # the same observation and action for all: a shared network without identity would tie
    for backbone in ("pooled", "concat"):
        critic = JointQCritic(N, 2, OBS, backbone=backbone)
        td = TensorDict(
            {"agents": {"observation": torch.ones(1, N, OBS), "action": torch.ones(1, N, 2)}}, [1]
        )
        value = critic(td)["agents", "state_action_value"].flatten()
        assert value.unique().numel() == N


@pytest.mark.parametrize("agent", range(N))
@pytest.mark.parametrize("share_params", [True, False])
def test_own_parameters_only_where_they_are_not_shared(share_params, agent):
    critic = JointQCritic(N, 2, OBS, share_params=share_params, hidden_dim=8)
    value = critic(random_inputs("continuous", 5))["agents", "state_action_value"]
    value[:, agent].sum().backward()
    used = critic.backbone.tail[-1].weight.grad.abs().sum((1, 2)) > 0
    assert used.tolist() == ([True] if share_params else [i == agent for i in range(N)])


@pytest.mark.parametrize("backbone", ["pooled", "concat", "additive"])
@pytest.mark.parametrize("share_params", [True, False])
@pytest.mark.parametrize("key", ["state", ("agents", "observation"), ("agents", "action")])
def test_every_value_moves_with_everything_that_is_read(backbone, share_params, key):
    critic = JointQCritic(N, 2, OBS, S, backbone=backbone, share_params=share_params)
    td = random_inputs("continuous", 1)
    before = critic(td.clone())["agents", "state_action_value"]
    for index in range(N if isinstance(key, tuple) else 1):  # an agent's entry, or the state
        other = td.clone()
        other[key][:, index] += 1
        moved = critic(other)["agents", "state_action_value"] - before
        assert (moved.abs() > 1e-5).all()


def test_chunks_do_not_change_the_values():
    critic = JointQCritic(N, 2, OBS, hidden_dim=16)
    td, actions = random_inputs("continuous", 50), random_actions("continuous", 50, N, 9)
    whole = critic.candidate_values(td, actions)
    critic.chunk_bytes = 1
    with torch.no_grad():
        torch.testing.assert_close(critic.candidate_values(td, actions), whole)
    keys = {"action_key": ("agents", "action"), "value_key": ("agents", "state_action_value")}
    one_by_one = substitute_candidates(Plain(critic), td, actions, **keys, chunk_bytes=1)
    torch.testing.assert_close(one_by_one, whole, rtol=1e-4, atol=1e-5)


def test_value_norm_denormalises_values_and_candidates():
    torch.manual_seed(0)
    norm = PopArtValueNorm(shape=1, beta=0.9)
    critic = JointQCritic(N, 2, OBS, value_norm=norm)
    td, actions = random_inputs("continuous", 8), random_actions("continuous", 8, N, 5)
    raw, raw_candidates = (
        critic(td)["agents", "state_action_value"],
        critic.candidate_values(td, actions),
    )
    start = norm.denormalize(torch.zeros(1)), norm.scale()
    for _ in range(50):
        norm.update(torch.randn(1000, 1) * 300 + 500)
    scaled = critic(td)["agents", "state_action_value"]
    expected = norm.denormalize((raw - start[0]) / start[1])
    torch.testing.assert_close(scaled, expected, rtol=1e-3, atol=1)
    torch.testing.assert_close(
        critic.candidate_values(td, actions),
        norm.denormalize((raw_candidates.unsqueeze(-1) - start[0]) / start[1]).squeeze(-1),
        rtol=1e-3,
        atol=1,
    )
    assert scaled.mean() > 300


@pytest.mark.parametrize(
    ("continuous", "categorical", "encoding", "action_dim"),
    [(True, True, "continuous", 2), (False, True, "categorical", 9), (False, False, "one_hot", 9)],
)
def test_sizes_come_from_the_environment(continuous, categorical, encoding, action_dim):
    env = VmasEnv(
        "navigation",
        num_envs=2,
        n_agents=4,
        continuous_actions=continuous,
        categorical_actions=categorical,
    )
    critic = JointQCritic.from_env(env)
    assert (critic.action_encoding, critic.action_dim) == (encoding, action_dim)
    td = env.rollout(3)
    assert critic(td)["agents", "state_action_value"].shape == (2, 3, 4, 1)
    with pytest.raises(KeyError, match=r"pass group=|Pass group="):
        JointQCritic.from_env(env, group="team")
    with pytest.raises(KeyError, match="Pass observation_key"):
        JointQCritic.from_env(env, observation_key=("agents", "pixels"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "reads nothing"),
        ({"observation_dim": OBS, "backbone": "gnn"}, "'gnn'"),
        ({"observation_dim": OBS, "action_encoding": "multi_categorical"}, "nvec"),
        ({"observation_dim": OBS, "action_encoding": "onehot"}, "action_encoding .* 'onehot'"),
        ({"observation_dim": OBS, "value_norm": True}, "ValueNorm of shape 1"),
        ({"observation_dim": OBS, "value_norm": PopArtValueNorm(shape=(3, 1))}, "of shape 1"),
    ],
)
def test_impossible_critics_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        JointQCritic(N, 2, **arguments)


def test_wrong_inputs_name_key_and_shapes():
    critic = JointQCritic(N, 2, OBS)
    with pytest.raises(KeyError, match=r"reads .*observation.*lacks"):
        critic(random_inputs("continuous", 2).exclude(("agents", "observation")))
    td = random_inputs("continuous", 2)
    td["agents", "action"] = torch.randn(2, N, 3)
    with pytest.raises(ValueError, match=r"'action'.* \[2, 3, 2\].* \[2, 3, 3\]"):
        critic(td)
    with pytest.raises(ValueError, match="candidate actions"):
        critic.candidate_values(random_inputs("continuous", 2), torch.randn(2, N, 2))
    team = FunctionCritic(lambda a: a.sum((-1, -2)).unsqueeze(-1))  # one value for all agents
    keys = {"action_key": ("agents", "action"), "value_key": ("agents", "state_action_value")}
    with pytest.raises(ValueError, match="state_action_value"):
        substitute_candidates(team, random_inputs("continuous", 2), torch.randn(2, N, 4, 2), **keys)


def test_critic_follows_its_dtype():
    critic = JointQCritic(N, 4, OBS, action_encoding="categorical").double()
    td = random_inputs("categorical", 2)
    td["agents", "observation"] = td["agents", "observation"].double()
    assert critic(td)["agents", "state_action_value"].dtype == torch.float64
