"""An advantage for each group: unbiased, of least variance, and with the next actions of all groups."""

import pytest
import torch
from games import make_actor
from tensordict import TensorDict
from tensordict.nn import TensorDictModuleBase

from torchrl_ob import ComaAdvantage, JointQCritic, MapgAdvantage, ObAdvantage
from torchrl_ob.critics.groups import join_critics
from torchrl_ob.diagnostics import excess_variance, gradient_variance, variance_terms
from torchrl_ob.diagnostics.measured.signals import policy_value

SIZES = {"crew": (2, 3), "boss": (1, 4)}  # agents, choices
OPTIONS = {"gamma": 0.9, "lmbda": 0.8}
MODULES = {"ob": ObAdvantage, "coma": ComaAdvantage, "none": MapgAdvantage}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def make_actors():
    return {
        name: make_actor("categorical", [torch.randn(*size, dtype=torch.float64)], group=name)
        for name, size in SIZES.items()
    }


def make_critics(scale=5.0):
    critics = {}
    for name, (n, choices) in SIZES.items():
        critics[name] = JointQCritic(
            n,
            choices,
            2,
            action_encoding="categorical",
            hidden_dim=16,
            observation_key=(name, "observation"),
            action_key=(name, "action"),
        ).double()
        with torch.no_grad():
            for parameter in critics[name].parameters():
                parameter.mul_(scale)
    return join_critics(critics)


def state(batch, observation=None):
    td = TensorDict({}, batch)
    for name, (n, _) in SIZES.items():
        seen = torch.randn(n, 2, dtype=torch.float64) if observation is None else observation[name]
        td[name, "observation"] = seen.expand(*batch, n, 2).clone()
    return td


def transitions(*batch):
    td = state(batch)
    td["next"] = state(batch)
    for name, (n, choices) in SIZES.items():
        td[name, "action"] = torch.randint(choices, (*batch, n))
        td["next", name, "reward"] = torch.randn(*batch, n, 1, dtype=torch.float64)
    td["next", "done"] = torch.zeros(*batch, 1, dtype=torch.bool)
    td["next", "terminated"] = td["next", "done"].clone()
    return td


def make(group, module=ObAdvantage, actors=None, critics=None, **options):
    actors, critics = actors or make_actors(), critics or make_critics()
    advantage = module(
        actor_network=actors[group],
        value_network=critics[group],
        other_actors=[actor for name, actor in actors.items() if name != group],
        **OPTIONS,
        **options,
    )
    names = {name: (group, name) for name in ("advantage", "value_target", "reward")}
    advantage.set_keys(**names)
    return advantage


def all_joint_actions():
    """Every joint action of both groups as one batch ``[J, 1]`` in the same state."""
    grid = torch.cartesian_prod(*[torch.arange(c) for n, c in SIZES.values() for _ in range(n)])
    td, start = transitions(len(grid), 1), state(())
    for name, columns in (("crew", slice(0, 2)), ("boss", slice(2, 3))):
        td[name, "action"] = grid[:, None, columns].clone()
        td[name, "observation"] = start[name, "observation"].expand(len(grid), 1, -1, 2).clone()
    return td


@pytest.mark.parametrize("group", SIZES)
def test_every_baseline_keeps_the_mean_of_each_group_and_ob_has_the_least_variance(group):
    actors, critics, td = make_actors(), make_critics(), all_joint_actions()
    log_prob = sum(
        actor.get_dist(td).log_prob(td[name, "action"]).sum(-1) for name, actor in actors.items()
    )
    weight = log_prob.exp().detach()
    torch.testing.assert_close(weight.sum(), torch.ones((), dtype=torch.float64))
    logits = actors[group].get_dist(td).logits.detach().requires_grad_()
    taken = torch.distributions.Categorical(logits=logits).log_prob(td[group, "action"])
    (score,) = torch.autograd.grad(taken.sum(), logits)  # [J, 1, n, choices]
    moments = {}
    for name, module in MODULES.items():
        advantage = make(group, module, actors, critics, signal="critic")
        gradient = score * advantage(td.clone())[group, "advantage"]
        mean = (weight[..., None, None] * gradient).sum((0, 1))
        spread = (gradient - mean).square().sum(-1)
        moments[name] = mean, (weight.unsqueeze(-1) * spread).sum((0, 1))
    for name in ("coma", "none"):
        torch.testing.assert_close(moments[name][0], moments["ob"][0], rtol=1e-9, atol=1e-9)
        assert (moments["ob"][1] <= moments[name][1] * (1 + 1e-9)).all()
    assert (moments["ob"][1] < 0.98 * moments["none"][1]).all()


@pytest.mark.parametrize("bootstrap", ["sampled", "expected"])
@pytest.mark.parametrize("group", SIZES)
def test_the_return_goes_on_with_the_next_actions_of_all_groups(group, bootstrap):
    actors, critics = make_actors(), make_critics()
    with torch.no_grad():  # nearly deterministic: what is sampled is known
        for actor in actors.values():
            for psi in actor.parameters():
                psi.mul_(1e3)
    td = transitions(4, 5)
    advantage = make(group, MapgAdvantage, actors, critics, bootstrap=bootstrap)
    found = advantage.value_estimate(td)
    following = td["next"].clone()
    for name, actor in actors.items():
        best = actor.get_dist(following).logits.argmax(-1)
        following[name, "action"] = best
    q = critics[group](following)[group, "state_action_value"]
    expected = torch.zeros_like(q)
    last = q[:, -1]
    for t in reversed(range(5)):
        mixed = q[:, t] if t == 4 else 0.2 * q[:, t] + 0.8 * last
        last = td["next", group, "reward"][:, t] + 0.9 * mixed
        expected[:, t] = last
    torch.testing.assert_close(found, expected)
    assert "action" not in td["next", "crew"].keys()  # noqa: SIM118
    read = {key for key in advantage.in_keys if key[0] == "next"}
    assert read >= {("next", name, "observation") for name in SIZES}
    assert not any(key[-1] == "action" for key in read)
    assert advantage(td.select(*advantage.in_keys))[group, "advantage"].isfinite().all()


@pytest.mark.parametrize("group", SIZES)
def test_the_state_value_averages_over_the_actions_of_all_groups(group):
    actors, critics = make_actors(), make_critics()
    with torch.no_grad():  # nearly deterministic: what is sampled is known
        for actor in actors.values():
            for psi in actor.parameters():
                psi.mul_(1e3)
    following = transitions(4, 5)["next"]
    found = make(group, MapgAdvantage, actors, critics).team.v(following)
    best = following.clone()
    for name, actor in actors.items():
        best[name, "action"] = actor.get_dist(following).logits.argmax(-1)
    torch.testing.assert_close(found, critics[group](best)[group, "state_action_value"])


def test_groups_do_not_overwrite_one_another():
    actors, critics, td = make_actors(), make_critics(), transitions(3, 4)
    alone = {g: make(g, ComaAdvantage, actors, critics, signal="critic")(td.clone()) for g in SIZES}
    both = td.clone()
    for group in SIZES:
        make(group, ComaAdvantage, actors, critics, signal="critic")(both)
    for group, (n, _) in SIZES.items():
        assert both[group, "advantage"].shape == (3, 4, n, 1)
        for name in ("advantage", "baseline"):
            assert both[group, name].equal(alone[group][group, name])


class TeamOfGroups(TensorDictModuleBase):
    """A critic of a user, which does not tell its action keys."""

    def __init__(self, *in_keys):
        super().__init__()
        self.in_keys, self.out_keys = list(in_keys), [("crew", "q")]


def test_an_action_that_no_actor_writes_is_told_when_the_advantage_is_built():
    actors, critics = make_actors(), make_critics()
    with pytest.raises(ValueError, match=r"\('boss', 'action'\).*other_actors=\[...\]"):
        ObAdvantage(actor_network=actors["crew"], value_network=critics["crew"], **OPTIONS)
    own, other = ("crew", "action"), ("boss", "action")
    with pytest.raises(ValueError, match=r"\('boss', 'action'\).*other_actors=\[...\]"):
        ObAdvantage(actor_network=actors["crew"], value_network=TeamOfGroups(own, other), **OPTIONS)
    # another entry of the other group is none of an actor's
    critic = TeamOfGroups(own, ("boss", "last_action"), ("boss", "observation"))
    ObAdvantage(actor_network=actors["crew"], value_network=critic, **OPTIONS)
    with pytest.raises(TypeError, match="Linear has no distribution"):
        ObAdvantage(
            actor_network=actors["crew"],
            value_network=critics["crew"],
            other_actors=[torch.nn.Linear(1, 1)],
            **OPTIONS,
        )


@pytest.mark.parametrize("group", SIZES)
def test_the_state_value_of_the_diagnostics_averages_over_all_groups(group):
    actors, critics, td = make_actors(), make_critics(), all_joint_actions()
    advantage = make(group, ObAdvantage, actors, critics)
    weight = sum(
        actor.get_dist(td).log_prob(td[name, "action"]).sum(-1) for name, actor in actors.items()
    ).exp()
    q = advantage.team.q(td).squeeze(-1)
    mean = (weight.unsqueeze(-1) * q).sum((0, 1)).detach()
    variance = (weight.unsqueeze(-1) * (q - mean).square()).sum((0, 1)).detach()
    start = td[:1].expand(2000, 1).contiguous()
    found = policy_value(advantage, start, 8)
    torch.testing.assert_close(found.mean.mean((0, 1)), mean, rtol=0, atol=0.05 * q.std().item())
    torch.testing.assert_close(found.variance.mean((0, 1)), variance, rtol=0.05, atol=0)


@pytest.mark.parametrize("group", SIZES)
def test_the_terms_of_the_variance_count_the_other_groups_as_others(group):
    actors, critics, td = make_actors(), make_critics(), all_joint_actions()
    advantage = make(group, ObAdvantage, actors, critics, signal="critic")
    batch = td[:1].expand(4000, 1).contiguous()
    for name, actor in actors.items():
        batch[name, "action"] = actor.get_dist(batch).sample()
    excess = excess_variance(advantage, batch, num_draws=4)
    # the excess by enumeration: E[w Var_{a^-i}(Q | a^i)]
    weight = sum(
        actor.get_dist(td).log_prob(td[name, "action"]).sum(-1) for name, actor in actors.items()
    ).exp()[:, 0]
    q = advantage.team.q(td)[:, 0, :, 0].detach()
    probs = actors[group].get_dist(td).probs[0, 0].detach()
    expected = []
    for agent in range(q.shape[1]):
        total = 0.0
        own = td[group, "action"][:, 0, agent]
        for action, p in enumerate(probs[agent]):
            mine = own == action
            given = (weight[mine] / weight[mine].sum()).detach()
            mean = (given * q[mine, agent]).sum()
            score = 1 + probs[agent].square().sum() - 2 * p
            total += p * score * (given * (q[mine, agent] - mean).square()).sum()
        expected.append(total)
    torch.testing.assert_close(excess.excess.value, torch.stack(expected), rtol=0.15, atol=0)
    assert (excess.bound.value >= 0.95 * excess.excess.value).all()
    variance = gradient_variance(advantage, batch).variance["ob"].value
    terms = variance_terms(advantage, batch)
    parts = [terms.state, terms.others, terms.own["ob"], terms.later["ob"]]
    total = sum(part.value for part in parts)
    torch.testing.assert_close(total, variance, rtol=0.05, atol=0)
