"""One critic over groups that differ, and an advantage for each."""

import pytest
import torch
from games import Plain
from tensordict import TensorDict

from torchrl_ob import JointQCritic
from torchrl_ob.critics.groups import GroupQCritic, join_critics
from torchrl_ob.critics.substitution import substitute_candidates

B, S, H = 5, 4, 16
GROUPS = {  # agents, observation size, choices or width of the action, encoding
    "hounds": (3, 4, 2, "continuous"),
    "hare": (1, 6, 5, "categorical"),
    "birds": (2, 3, 3, "one_hot"),
}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def draw(encoding, width, *shape):
    if encoding == "continuous":
        return torch.randn(*shape, width, dtype=torch.float64)
    action = torch.randint(width, shape)
    return torch.nn.functional.one_hot(action, width) if encoding == "one_hot" else action


def inputs(*batch):
    td = TensorDict({"state": torch.randn(*batch, S, dtype=torch.float64)}, batch)
    for name, (n, observation, width, encoding) in GROUPS.items():
        td[name, "observation"] = torch.randn(*batch, n, observation, dtype=torch.float64)
        td[name, "action"] = draw(encoding, width, *batch, n)
    return td


def make_critic(name, **options):
    n, observation, width, encoding = GROUPS[name]
    return JointQCritic(
        n,
        width,
        observation,
        S,
        action_encoding=encoding,
        observation_key=(name, "observation"),
        action_key=(name, "action"),
        hidden_dim=H,
        **options,
    ).double()


def views(**options):
    return join_critics({name: make_critic(name, **options) for name in GROUPS})


def value(critic, td):
    return critic(td.clone())[critic.out_keys[0]]


@pytest.mark.parametrize("share_params", [True, False])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("batch", [(B,), (2, 3), ()])
def test_candidates_are_what_substituting_each_gives(group, share_params, batch):
    critic, td = views(share_params=share_params)[group], inputs(*batch)
    n, _, width, encoding = GROUPS[group]
    actions = draw(encoding, width, *batch, n, 7)
    keys = {"action_key": (group, "action"), "value_key": (group, "state_action_value")}
    expected = substitute_candidates(Plain(critic), td, actions, **keys)
    found = critic.candidate_values(td, actions)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert found.std(-1).min() > 1e-6
    for one in critic.critics.values():
        one.chunk_bytes = 1
    with torch.no_grad():
        chunked = critic.candidate_values(td, actions)
    torch.testing.assert_close(chunked, found, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(value(critic, td).shape, torch.Size([*batch, n, 1]))


@pytest.mark.parametrize("entry", ["observation", "action"])
@pytest.mark.parametrize("other", GROUPS)
@pytest.mark.parametrize("group", GROUPS)
def test_every_agent_of_every_group_moves_every_value(group, other, entry):
    critic, td = views()[group], inputs(B)
    before, (n, _, width, encoding) = value(critic, td), GROUPS[other]
    for agent in range(n):
        changed = td.clone()
        x = changed[other, entry]
        if entry == "observation" or encoding == "continuous":
            x[:, agent] += 1
        else:
            x[:, agent] = (
                x[:, agent].roll(1, -1) if encoding == "one_hot" else (x[:, agent] + 1) % width
            )
        assert ((value(critic, changed) - before).abs() > 1e-6).all()


@pytest.mark.parametrize("group", ["hare", "birds"])
def test_the_value_of_a_discrete_own_action_does_not_read_the_own_action(group):
    critic, td = views()[group], inputs(B)
    n, _, width, encoding = GROUPS[group]
    own = draw(encoding, width, B, n, 4)
    before = critic.candidate_values(td, own)
    for agent in range(n):
        changed = td.clone()
        changed[group, "action"][:, agent] = changed[group, "action"][:, agent].roll(1, 0)
        after = critic.candidate_values(changed, own)
        torch.testing.assert_close(after[:, agent], before[:, agent], rtol=0, atol=1e-12)


def test_the_mean_is_over_all_agents_and_messages_are_of_the_actions_taken():
    critics, td = views(), inputs(B)
    hounds = critics["hounds"].critics["hounds"]
    shown = []
    for name, critic in critics["hounds"].critics.items():
        net, action = critic.backbone, critic._inputs(td).action
        observed = net.observation(td[name, "observation"].unsqueeze(-2))
        shown.append(torch.tanh(net.own(torch.tanh(observed + net.action(action.unsqueeze(-2))))))
    mine = torch.atanh(shown[0])
    net, mean = hounds.backbone, torch.cat(shown, 1).mean(1, keepdim=True)
    state = net.state(td["state"][:, None, None])
    expected = net.tail(mine + net.team(mean) + state).squeeze(-1)
    torch.testing.assert_close(value(critics["hounds"], td), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("group", GROUPS)
def test_one_group_is_the_joint_critic_to_the_last_bit(group):
    critic, td = make_critic(group), inputs(B)
    (view,) = join_critics({group: critic}).values()
    n, _, width, encoding = GROUPS[group]
    own = draw(encoding, width, B, n, 3)
    assert view.in_keys == critic.in_keys
    assert value(view, td).equal(value(critic, td))
    assert view.candidate_values(td, own).equal(critic.candidate_values(td, own))


def test_single_precision_agrees_with_double():
    td = inputs(B)
    single = td.apply(lambda x: x.float() if x.is_floating_point() else x)
    critics = views()
    expected = {name: value(critic, td) for name, critic in critics.items()}
    for name, critic in critics.items():
        found = value(critic.float(), single)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("group", GROUPS)
def test_a_view_compiles_as_one_graph(group):
    critic, td = views()[group], inputs(B)
    n, _, width, encoding = GROUPS[group]
    own = draw(encoding, width, B, n, 3)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda td: (critic(td)[critic.out_keys[0]], critic.candidate_values(td, own)),
        fullgraph=True,
        backend="aot_eager",
    )
    for found, expected in zip(
        compiled(td.clone()),
        (value(critic, td), critic.candidate_values(td, own)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


def test_views_share_the_networks_and_critics_that_cannot_be_joined_are_told():
    critics = views()
    networks = [set(critic.parameters()) for critic in critics.values()]
    assert networks[0] == networks[1] == networks[2]
    with pytest.raises(ValueError, match=r"group 'hare' .*ConcatBackbone.*backbone=\"pooled\""):
        join_critics(
            {"hounds": make_critic("hounds"), "hare": make_critic("hare", backbone="concat")}
        )
    wide = make_critic("hare")
    wide.hidden_dim = 2 * H
    with pytest.raises(ValueError, match=r"same hidden_dim.*'hounds': 16, 'hare': 32"):
        join_critics({"hounds": make_critic("hounds"), "hare": wide})
    assert all(isinstance(critic, GroupQCritic) for critic in critics.values())
