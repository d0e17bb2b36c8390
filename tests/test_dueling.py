"""The critic in two parts, and the fit of its action part."""

import copy

import pytest
import torch
from games import Plain, make_actor, random_batch
from tensordict import TensorDict
from test_experiments import configure, ignored_warnings, scalars
from torchrl.modules import PopArtValueNorm
from torchrl.objectives import ClipPPOLoss

from torchrl_ob import ActionEffectFit, DuelingCritic, JointQCritic, ObAdvantage
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.running import run
from torchrl_ob.groups import join_critics
from torchrl_ob.substitution import candidate_values

pytestmark = ignored_warnings
N, OBS, D = 3, 4, 2
Q = ("agents", "state_action_value")


def make_critic(encoding="continuous", fitted=True, **options):
    torch.manual_seed(0)
    critic = DuelingCritic(N, D, OBS, action_encoding=encoding, hidden_dim=16, **options).double()
    if fitted:
        critic.scale.fill_(0.7)
    return critic


def inputs(encoding, *batch):
    shape = (*batch, N) if encoding == "categorical" else (*batch, N, D)
    action = torch.randint(D, shape) if encoding == "categorical" else torch.randn(shape).double()
    observation = torch.randn(*batch, N, OBS).double()
    return TensorDict({"agents": {"observation": observation, "action": action}}, batch)


def transitions(*batch):
    return random_batch(batch, torch.rand(*batch, N, D) - 0.5)


def make_advantage(critic, **options):
    psi = [torch.zeros(N, D), torch.full((N, D), 0.5)]
    dtype = next(critic.parameters()).dtype
    actor = make_actor("independent_normal", [x.to(dtype) for x in psi])
    options = {"gamma": 0.9, "lmbda": 0.8} | options
    advantage = ObAdvantage(actor_network=actor, value_network=critic, **options)
    advantage.set_keys(reward=("agents", "reward"))
    return advantage


@pytest.mark.parametrize("backbone", ["pooled", "concat"])
@pytest.mark.parametrize("encoding", ["continuous", "categorical"])
def test_candidates_are_those_of_the_generic_path(encoding, backbone):
    critic, td = make_critic(encoding, backbone=backbone), inputs(encoding, 5)
    own = inputs(encoding, 7, 5)["agents", "action"].movedim(0, 2)
    keys = {"action_key": ("agents", "action"), "value_key": Q}
    slow = candidate_values(Plain(critic), td, own, **keys)
    torch.testing.assert_close(critic.candidate_values(td, own), slow)
    assert slow.std(-1).mean() > 1e-3  # the action is seen


@pytest.mark.parametrize("encoding", ["continuous", "categorical"])
def test_an_unfitted_action_part_is_zero_and_v_never_sees_an_action(encoding):
    critic, td = make_critic(encoding, fitted=False), inputs(encoding, 5)
    torch.testing.assert_close(critic(td)[Q], critic.state_value(td), rtol=0, atol=0)
    other = td.clone().set(("agents", "action"), inputs(encoding, 5)["agents", "action"])
    critic.scale.fill_(1.0)
    torch.testing.assert_close(critic.state_value(td), critic.state_value(other), rtol=0, atol=0)
    assert not torch.allclose(critic(td.clone())[Q], critic(other)[Q])


def test_a_loss_trains_v_alone():
    critic = make_critic().float()
    advantage = make_advantage(critic)
    loss = ClipPPOLoss(advantage.actor_network, critic)
    loss.make_value_estimator(advantage)
    loss.set_keys(value=Q, reward=("agents", "reward"), action=("agents", "action"))
    td = transitions(2, 5)
    td["agents", "action_log_prob"] = torch.zeros(2, 5, N)
    loss.set_keys(sample_log_prob=("agents", "action_log_prob"))
    loss(advantage(td).reshape(-1))["loss_critic"].backward()
    assert all(x.grad is None for x in critic.backbone.parameters())
    moved = [x.grad.abs().sum() > 0 for x in critic.value_backbone.parameters() if x.numel()]
    assert all(moved)


def test_a_value_norm_is_of_v_alone():
    norm = PopArtValueNorm(shape=1)
    norm.update(torch.randn(1000, 1) * 5 + 100)
    critic = make_critic(value_norm=norm).float()
    td = inputs("continuous", 50).float()
    plain = make_critic().float()
    plain.load_state_dict({k: v for k, v in critic.state_dict().items() if "norm" not in k})
    torch.testing.assert_close(
        critic.state_value(td), norm.denormalize(plain.state_value(td)), rtol=1e-4, atol=1e-3
    )
    effect, other = (x(td.clone())[Q] - x.state_value(td) for x in (critic, plain))
    torch.testing.assert_close(effect, other, rtol=1e-3, atol=1e-4)


def rewarded(num_steps):
    """Steps that end an episode, whose reward varies with the state far more than with the actions."""
    td = transitions(num_steps, 1)
    observation, action = td["agents", "observation"], td["agents", "action"]
    state = 10 * observation[..., :1].mean(-2, keepdim=True)
    effect = action[..., :1] * observation[..., 1:2] + action.sum(-2, keepdim=True)[..., 1:]
    td["next", "agents", "reward"] = state + effect
    td["next", "terminated"] = td["next", "done"] = torch.ones(num_steps, 1, 1, dtype=torch.bool)
    return td, effect


def test_the_action_part_learns_what_the_state_value_leaves():
    torch.manual_seed(0)
    critic = DuelingCritic(N, D, OBS, hidden_dim=32)
    fit = ActionEffectFit(make_advantage(critic), lr=3e-3)
    critic.state_value = lambda td: (
        10
        * td["agents", "observation"][..., :1].mean(-2, keepdim=True).expand(*td.batch_size, N, 1)
    )  # as if V had been fitted
    reports = [fit(rewarded(800)[0]) for _ in range(15)]
    td, effect = rewarded(500)
    learned = critic.scale * critic.action_effect(td)
    assert (learned - effect).var() < 0.15 * effect.var()
    explained = [x["critic/effect_explained"].item() for x in reports]
    assert explained[0] == 0  # measured before the fit
    assert explained[-1] > 0.8
    assert reports[-1]["critic/effect_scale"] == pytest.approx(effect.std().item(), rel=0.1)


def test_the_fit_leaves_v_the_actor_and_the_batch_alone():
    torch.manual_seed(0)
    critic = DuelingCritic(N, D, OBS, hidden_dim=16)
    advantage = make_advantage(critic)
    td = transitions(4, 6)
    batch, before = td.clone(), copy.deepcopy(critic.value_backbone.state_dict())
    psi = [x.clone() for x in advantage.actor_network.parameters()]
    network = copy.deepcopy(critic.backbone.state_dict())
    ActionEffectFit(advantage, num_epochs=1)(td)
    assert (td == batch).all()
    assert set(td.keys(True, True)) == set(batch.keys(True, True))
    after = critic.value_backbone.state_dict()
    assert all(torch.equal(after[k], before[k]) for k in before)
    assert all(map(torch.equal, psi, advantage.actor_network.parameters()))
    moved = critic.backbone.state_dict()
    assert not all(torch.equal(moved[k], network[k]) for k in network)
    assert all(x.grad is None for x in critic.parameters())  # nothing for another optimiser


@pytest.mark.parametrize("backbone", ["pooled", "concat"])
def test_a_new_scale_leaves_the_action_part_as_it_is(backbone):
    critic, td = make_critic(backbone=backbone), inputs("continuous", 5)
    before = critic(td.clone())[Q]
    fit = ActionEffectFit(make_advantage(critic))
    with torch.no_grad():
        fit._rescale(torch.tensor(2.0).double())
    torch.testing.assert_close(critic.scale, torch.tensor(0.7 * 0.7 + 0.3 * 2.0).double())
    torch.testing.assert_close(critic(td.clone())[Q], before)


def test_without_epochs_q_stays_a_state_value():
    critic = DuelingCritic(N, D, OBS, hidden_dim=8)
    advantage = make_advantage(critic)
    td = transitions(4, 6)
    ActionEffectFit(advantage, num_epochs=0)(td)
    torch.testing.assert_close(critic(td)[Q], critic.state_value(td), rtol=0, atol=0)


def test_where_nothing_is_left_the_fit_stays_finite():
    critic = DuelingCritic(N, D, OBS, hidden_dim=8)
    advantage = make_advantage(critic, gamma=0.0)
    td = transitions(4, 6)
    critic.state_value = lambda x: torch.zeros(*x.batch_size, N, 1)
    td["next", "agents", "reward"] = torch.zeros(4, 6, N, 1)
    ActionEffectFit(advantage)(td)
    assert all(x.isfinite().all() for x in critic.state_dict().values())
    assert critic(td)[Q].abs().max() < 10


def test_short_returns_are_the_target_whatever_the_advantage_takes():
    critic = DuelingCritic(N, D, OBS, hidden_dim=8)
    advantage = make_advantage(critic, bootstrap="expected")
    td = transitions(4, 6)
    residual = ActionEffectFit(advantage, lmbda=0.0).residual(td)
    # without an action part, the value of the next state needs no action
    value, following = (
        critic.state_value(td),
        critic.state_value(td["next"].set(("agents", "action"), td["agents", "action"])),
    )
    alive = ~td["next", "terminated"].unsqueeze(-1)
    expected = td["next", "agents", "reward"] + 0.9 * alive * following - value
    torch.testing.assert_close(residual, expected)
    assert (advantage.lmbda, advantage.bootstrap) == (0.8, "expected")


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_it_compiles_as_one_graph():
    critic, td = make_critic().float(), inputs("continuous", 5).float()
    torch._dynamo.reset()
    compiled = torch.compile(critic, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(td.clone())[Q], critic(td.clone())[Q])


def test_what_does_not_fit_is_refused():
    with pytest.raises(TypeError, match="JointQCritic, which has no action part"):
        ActionEffectFit(make_advantage(JointQCritic(N, D, OBS)))
    with pytest.raises(ValueError, match="takes one group of agents"):
        join_critics({"agents": make_critic()})


SMALL = ("critic=dueling", "env.num_envs=20", "evaluation.num_envs=3", "total_frames=400")


def test_a_run_that_is_resumed_ends_in_the_same_numbers(tmp_path):
    config = configure(*SMALL, "advantage=ob_control_variate")
    parts = run(config, tmp_path)
    first = scalars(tmp_path)
    assert parts.critic.scale > 0
    assert any("effect_explained" in str(name) for name in first)
    sorted((tmp_path / "checkpoints").iterdir())[-1].unlink()  # as if it had been killed
    config.resume = "auto"
    run(config, tmp_path)
    assert scalars(tmp_path) == first


def test_several_groups_are_told_which_critic_to_take(tmp_path):
    config = configure("critic=dueling", "env.scenario=simple_tag")
    with pytest.raises(ExperimentError, match="critic=pooled"):
        run(config, tmp_path)
