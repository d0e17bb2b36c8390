"""The critic in two parts, and how both are fitted apart from the loss."""

import copy

import pytest
import torch
from games import Plain, make_actor, random_batch
from short_runs import configure, ignored_warnings, scalars
from tensordict import TensorDict
from torchrl.modules import PopArtValueNorm
from torchrl.objectives import ClipPPOLoss

from torchrl_ob import DuelingCritic, DuelingFit, JointQCritic, ObAdvantage
from torchrl_ob.critics.groups import join_critics
from torchrl_ob.critics.substitution import substitute_candidates
from torchrl_ob.experiments.config.check import check_config
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.run import run

pytestmark = ignored_warnings
N, OBS, D = 3, 4, 2
Q = ("agents", "state_action_value")


def make_critic(encoding="continuous", fitted=True, **options):
    torch.manual_seed(0)
    critic = DuelingCritic(N, D, OBS, action_encoding=encoding, hidden_dim=16, **options).double()
    if fitted:
        critic.value_units.scale.fill_(2.0)
        critic.value_units.mean.fill_(-5.0)
        critic.effect_units.scale.fill_(0.7)
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
    slow = substitute_candidates(Plain(critic), td, own, **keys)
    torch.testing.assert_close(critic.candidate_values(td, own), slow)
    assert slow.std(-1).mean() > 1e-3  # the action is seen


@pytest.mark.parametrize("encoding", ["continuous", "categorical"])
def test_q_is_the_sum_and_v_never_sees_an_action(encoding):
    critic, td = make_critic(encoding), inputs(encoding, 5)
    other = td.clone().set(("agents", "action"), inputs(encoding, 5)["agents", "action"])
    torch.testing.assert_close(critic.state_value(td), critic.state_value(other), rtol=0, atol=0)
    assert not torch.allclose(critic(td.clone())[Q], critic(other.clone())[Q])
    expected = -5 + 2 * critic.value_output(td) + 0.7 * critic.effect_output(td)
    torch.testing.assert_close(critic(td)[Q], expected)


def test_before_the_first_fit_q_is_zero():
    assert make_critic(fitted=False)(inputs("continuous", 5))[Q].eq(0).all()


@pytest.mark.parametrize("critic_coeff", [0.0, 1.0])
def test_no_gradient_of_a_loss_reaches_the_critic(critic_coeff):
    critic = make_critic().float()
    advantage = make_advantage(critic)
    loss = ClipPPOLoss(advantage.team.actor, critic, critic_coeff=critic_coeff)
    loss.make_value_estimator(advantage)
    loss.set_keys(value=Q, reward=("agents", "reward"), action=("agents", "action"))
    td = transitions(2, 5)
    td["agents", "action_log_prob"] = torch.zeros(2, 5, N)
    loss.set_keys(sample_log_prob=("agents", "action_log_prob"))
    terms = loss(advantage(td).reshape(-1))
    assert ("loss_critic" in set(terms.keys())) == bool(critic_coeff)
    sum(term for name, term in terms.items() if name.startswith("loss")).backward()
    assert all(x.grad is None for x in critic.parameters())
    assert any(x.grad is not None for x in advantage.team.actor.parameters())


@pytest.mark.parametrize("share_params", [True, False])
@pytest.mark.parametrize("backbone", ["pooled", "concat"])
def test_new_units_leave_what_the_critic_says(backbone, share_params):
    critic = make_critic(backbone=backbone, share_params=share_params)
    td = inputs("continuous", 5)
    before = critic(td.clone())[Q]
    target = torch.randn(50).double() * 3 + 10
    parts = (
        (critic.value_units, critic.value_backbone),
        (critic.effect_units, critic.backbone),
    )
    for units, network in parts:
        mean, scale = units.mean.clone(), units.scale.clone()
        standard = units.follow(target, network.tail[-1])
        torch.testing.assert_close(units.mean, 0.7 * mean + 0.3 * target.mean())
        torch.testing.assert_close(units.scale, 0.7 * scale + 0.3 * target.std())
        torch.testing.assert_close(units(standard), target)
    torch.testing.assert_close(critic(td)[Q], before)


def test_the_first_units_are_those_of_the_targets():
    critic = make_critic(fitted=False)
    target = torch.randn(50).double() * 3 + 10
    standard = critic.value_units.follow(target, critic.value_backbone.tail[-1])
    torch.testing.assert_close(standard.mean(), torch.tensor(0.0).double())
    torch.testing.assert_close(standard.std(), torch.tensor(1.0).double())


def rewarded(num_steps):
    """Steps that end an episode, whose reward varies with the state far more than with the actions."""
    td = transitions(num_steps, 1)
    observation, action = td["agents", "observation"], td["agents", "action"]
    state = 10 * observation[..., :1].mean(-2, keepdim=True)
    effect = action[..., :1] * observation[..., 1:2] + action.sum(-2, keepdim=True)[..., 1:]
    td["next", "agents", "reward"] = state + effect
    td["next", "terminated"] = td["next", "done"] = torch.ones(num_steps, 1, 1, dtype=torch.bool)
    return td, effect


@pytest.mark.slow
def test_both_parts_learn_their_own_share():
    torch.manual_seed(0)
    critic = DuelingCritic(N, D, OBS, hidden_dim=32)
    fit = DuelingFit(make_advantage(critic), value_lr=3e-3, value_epochs=30, minibatch_size=100)
    reports = [fit(rewarded(800)[0]) for _ in range(15)]
    td, effect = rewarded(500)
    state = td["next", "agents", "reward"] - effect
    assert (critic.state_value(td) - state).var() < 0.02 * state.var()
    # not centred: what V has not learned of the state yet is in it too
    assert (critic.action_effect(td) - effect).var() < 0.3 * effect.var()
    assert (critic(td)[Q] - state - effect).var() < 0.1 * effect.var()
    assert reports[0]["critic/value_explained"] == reports[0]["critic/effect_explained"] == 0
    assert reports[-1]["critic/value_explained"] > 0.95  # measured before the fit
    assert reports[-1]["critic/effect_explained"] > 0.7
    assert reports[-1]["critic/value_scale"] == pytest.approx(state.std().item(), rel=0.1)


def test_targets_leave_to_each_part_what_the_other_says():
    critic = make_critic().float()
    advantage = make_advantage(critic, lmbda=0.6, bootstrap="control_variate")
    fit, td = DuelingFit(advantage, lmbda=0.2), transitions(4, 6)
    torch.manual_seed(1)
    value = fit.value_target(td)
    torch.manual_seed(1)
    returns = advantage.value_estimate(td)
    torch.testing.assert_close(value, (returns - critic.action_effect(td)).flatten(0, 1))
    torch.manual_seed(1)
    effect = fit.effect_target(td)
    torch.manual_seed(1)
    short = advantage.value_estimate(td, lmbda=0.2)
    torch.testing.assert_close(effect, (short - critic.state_value(td)).flatten(0, 1))
    assert not torch.allclose(short, returns)


def test_the_learning_rate_falls_to_zero_within_a_part():
    fit = DuelingFit(make_advantage(DuelingCritic(N, D, OBS, hidden_dim=8)), minibatch_size=6)
    rates, optimizer = [], fit.value.optimizer
    optimizer.register_step_post_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
    fit(transitions(4, 6))
    steps = 15 * 4  # epochs of four minibatches
    expected = [6e-4 * (1 - k / steps) for k in range(steps)]
    assert rates == pytest.approx(expected)


def test_the_fit_leaves_the_actor_and_the_batch_alone():
    torch.manual_seed(0)
    critic = DuelingCritic(N, D, OBS, hidden_dim=16)
    advantage = make_advantage(critic)
    td = transitions(4, 6)
    batch, before = td.clone(), copy.deepcopy(critic.state_dict())
    psi = [x.clone() for x in advantage.team.actor.parameters()]
    DuelingFit(advantage)(td)
    assert (td == batch).all()
    assert set(td.keys(True, True)) == set(batch.keys(True, True))
    assert all(map(torch.equal, psi, advantage.team.actor.parameters()))
    moved = critic.state_dict()
    for part in ("backbone", "value_backbone"):
        assert not all(torch.equal(moved[k], before[k]) for k in before if k.startswith(part))
    assert all(x.grad is None for x in critic.parameters())  # nothing for another optimiser


def test_no_gradient_reaches_what_made_the_batch():
    critic, td = DuelingCritic(N, D, OBS, hidden_dim=8), transitions(4, 6)
    made = torch.ones((), requires_grad=True)
    td["agents", "action"] = td["agents", "action"] * made  # a rollout outside of no_grad
    DuelingFit(make_advantage(critic))(td)
    assert made.grad is None


def test_a_fit_goes_on_from_its_state():
    torch.manual_seed(0)
    critic, td = DuelingCritic(N, D, OBS, hidden_dim=8), transitions(4, 6)
    first = DuelingFit(make_advantage(critic))
    first(td)
    twin = copy.deepcopy(critic)
    second = DuelingFit(make_advantage(twin))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for fit in (first, second):
        torch.manual_seed(1)
        fit(td)
    for one, other in zip(critic.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_without_epochs_of_the_action_part_q_is_a_state_value():
    critic = DuelingCritic(N, D, OBS, hidden_dim=8)
    advantage = make_advantage(critic)
    td = transitions(4, 6)
    report = DuelingFit(advantage, effect_epochs=0)(td)
    torch.testing.assert_close(critic(td)[Q], critic.state_value(td), rtol=0, atol=0)
    assert critic.state_value(td).std() > 0
    assert report["critic/effect_scale"] == 0


def test_where_all_targets_are_the_same_the_fit_stays_finite():
    critic = DuelingCritic(N, D, OBS, hidden_dim=8)
    advantage = make_advantage(critic, gamma=0.0)
    td = transitions(4, 6)
    td["next", "agents", "reward"] = torch.full((4, 6, N, 1), 7.0)
    fit = DuelingFit(advantage)
    for _ in range(2):
        fit(td)
    assert all(x.isfinite().all() for x in critic.state_dict().values())
    torch.testing.assert_close(critic(td)[Q], torch.full((4, 6, N, 1), 7.0), rtol=1e-3, atol=1e-3)


def test_short_returns_are_the_target_whatever_the_advantage_takes():
    critic = DuelingCritic(N, D, OBS, hidden_dim=8)
    advantage = make_advantage(critic, bootstrap="expected")
    td = transitions(4, 6)
    DuelingFit(advantage, effect_epochs=0)(
        td
    )  # without an action part, V of the next state needs no action
    residual = DuelingFit(advantage, lmbda=0.0).effect_target(td)
    value, following = (
        critic.state_value(td),
        critic.state_value(td["next"].set(("agents", "action"), td["agents", "action"])),
    )
    alive = ~td["next", "terminated"].unsqueeze(-1)
    expected = td["next", "agents", "reward"] + 0.9 * alive * following - value
    torch.testing.assert_close(residual, expected.flatten(0, 1))
    assert (advantage.lmbda, advantage.bootstrap) == (0.8, "expected")


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_it_compiles_as_one_graph():
    critic, td = make_critic().float(), inputs("continuous", 5).float()
    torch._dynamo.reset()
    compiled = torch.compile(critic, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(td.clone())[Q], critic(td.clone())[Q])


@pytest.mark.slow
@pytest.mark.usefixtures("graphs_run_eagerly")
@pytest.mark.parametrize("share_params", [True, False])
@pytest.mark.parametrize("backbone", ["pooled", "concat"])
def test_a_compiled_fit_has_the_same_numbers_and_compiles_once(backbone, share_params):
    batches, found = [transitions(2, 5), transitions(2, 5)], []
    for compile in (False, True):
        critic = make_critic(fitted=False, backbone=backbone, share_params=share_params).float()
        # a smaller minibatch remains
        fit = DuelingFit(make_advantage(critic), minibatch_size=4, compile=compile)
        torch.manual_seed(1)
        fit(batches[0])
        with torch._dynamo.config.patch(error_on_recompile=True):
            reports = fit(batches[1])
        found.append([*critic.parameters(), *reports.values()])
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(TypeError, match="ObAdvantage has JointQCritic"):
        DuelingFit(make_advantage(JointQCritic(N, D, OBS)))
    with pytest.raises(ValueError, match="leave value_norm out"):
        DuelingCritic(N, D, OBS, value_norm=PopArtValueNorm(shape=1))
    with pytest.raises(ValueError, match="takes one group of agents"):
        join_critics({"agents": make_critic()})


SMALL = ("critic=dueling", "env.num_envs=20", "evaluation.num_envs=3", "total_frames=400")


@pytest.mark.slow
def test_a_run_that_is_resumed_ends_in_the_same_numbers(tmp_path):
    config = configure(*SMALL, "advantage=ob_control_variate", "loss.critic_coeff=0.0")
    parts = run(config, tmp_path)
    first = scalars(tmp_path)
    assert parts.critic.effect_units.scale > 0
    assert any("effect_explained" in str(name) for name in first)
    sorted((tmp_path / "checkpoints").iterdir())[-1].unlink()  # as if it had been killed
    config.resume = "auto"
    run(config, tmp_path)
    assert scalars(tmp_path) == first


def test_a_loss_that_fits_the_critic_too_is_refused(tmp_path):
    with pytest.raises(ExperimentError, match="take experiment=dueling"):
        run(configure("critic=dueling"), tmp_path)
    with pytest.raises(ExperimentError, match=r"ReinforceLoss fits it too.* another loss"):
        run(configure("critic=dueling", "loss=reinforce"), tmp_path)
    check_config(configure("experiment=dueling"))


def test_several_groups_are_told_which_critic_to_take(tmp_path):
    config = configure("critic=dueling", "loss.critic_coeff=0.0", "env.scenario=simple_tag")
    with pytest.raises(ExperimentError, match="critic=pooled"):
        run(config, tmp_path)
