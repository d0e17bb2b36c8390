import math

import pytest
import torch
from dense_rules import dense_candidates
from games import CONTINUOUS, DISCRETE, FunctionCritic, make_actor, random_batch
from hypothesis import given
from hypothesis import strategies as st
from small_teams import ALL, OBS, N, make, make_batch, make_team
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.envs import ExplorationType, set_exploration_type
from torchrl.envs.utils import exploration_type
from torchrl.modules import Delta, ProbabilisticActor
from torchrl.objectives import ClipPPOLoss

from torchrl_ob import ComaAdvantage, JointQCritic, MapgAdvantage, ObAdvantage
from torchrl_ob.expectations import action_candidates
from torchrl_ob.functional import weighted_baseline


def slow_lambda_return(advantage, td, next_value):
    """The definition, one step after another, backwards."""
    gamma, lmbda = advantage.gamma, advantage.lmbda
    reward = td["next", "agents", "reward"]
    steps = reward.shape[1]
    out, following = torch.empty_like(reward), None
    for t in reversed(range(steps)):
        alive = (~td["next", "terminated"][:, t]).unsqueeze(-1).to(reward.dtype)
        cut = td["next", "done"][:, t].unsqueeze(-1)
        beyond = next_value[:, t]
        if following is not None:
            beyond = torch.where(cut, beyond, (1 - lmbda) * beyond + lmbda * following)
        following = reward[:, t] + gamma * alive * beyond
        out[:, t] = following
    return out


@pytest.mark.parametrize("module", ALL)
@given(st.integers(1, 12), st.integers(0, 100), st.floats(0, 1), st.floats(0, 1))
def test_value_target_is_the_lambda_return(module, steps, seed, gamma, lmbda):
    torch.manual_seed(seed)
    actor, critic = make_team(dtype=torch.float64)
    td = make_batch(4, steps, dtype=torch.float64)
    td["next", "terminated"] = torch.rand(4, steps, 1) < 0.2
    td["next", "done"] = td["next", "terminated"] | (torch.rand(4, steps, 1) < 0.2)
    advantage = make(module, actor, critic, gamma=gamma, lmbda=lmbda)
    torch.manual_seed(seed)
    target = advantage(td)["value_target"]
    torch.manual_seed(seed)
    following = td["next"].select(("agents", "observation"))
    following["agents", "action"] = actor.get_dist(following).sample()
    next_value = critic(following)["agents", "state_action_value"]
    torch.testing.assert_close(target, slow_lambda_return(advantage, td, next_value))


def test_termination_stops_the_bootstrap_and_a_time_limit_does_not():
    torch.manual_seed(0)
    actor, critic = make_team()
    td = make_batch(2, 1)
    td["next", "done"] = torch.ones(2, 1, 1, dtype=torch.bool)
    td["next", "terminated"] = torch.tensor([[[True]], [[False]]])
    target = make(ObAdvantage, actor, critic)(td)["value_target"]
    reward = td["next", "agents", "reward"]
    assert torch.equal(target[0], reward[0])
    assert (target[1] != reward[1]).all()


def test_expected_bootstrap_averages_the_own_next_action():
    # Q = Σ_j c_j a_j: the own action's part becomes its mean, the others' stays sampled
    torch.manual_seed(0)
    loc, scale = torch.randn(N, 1).double(), torch.rand(N, 1).double()
    actor = make_actor("independent_normal", [loc, scale])
    c = torch.tensor([1.0, 10.0, 100.0]).double()
    critic = FunctionCritic(
        lambda a: (a.squeeze(-1) * c).sum(-1, keepdim=True).expand(a.shape[:-1])
    )
    td = random_batch([2, 1], torch.randn(2, 1, N, 1).double(), dtype=torch.float64)
    seen = {}
    for bootstrap in ("sampled", "expected"):
        torch.manual_seed(1)
        target = make(ObAdvantage, actor, critic, bootstrap=bootstrap)(td)["value_target"]
        seen[bootstrap] = (target - td["next", "agents", "reward"]) / 0.9
    torch.manual_seed(1)
    sample = actor.get_dist(td["next"].select(("agents", "observation"))).sample()
    own_part = (c * (loc - sample).squeeze(-1)).unsqueeze(-1)
    torch.testing.assert_close(seen["expected"], seen["sampled"] + own_part)


@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("module", [ObAdvantage, ComaAdvantage])
def test_baseline_ignores_the_own_action_and_reads_the_others(module, discrete):
    torch.manual_seed(0)
    actor, critic = make_team(discrete)
    td = make_batch(4, 6, discrete=discrete)
    advantage = make(module, actor, critic)
    before = advantage(td.clone())["agents", "baseline"]
    action = td["agents", "action"].clone()
    action[:, :, 1] = (action[:, :, 1] + 1) % 5 if discrete else -action[:, :, 1]
    after = advantage(td.set(("agents", "action"), action))["agents", "baseline"]
    torch.testing.assert_close(after[:, :, 1], before[:, :, 1])
    assert ((after - before).abs().flatten(0, 1).amax(0).squeeze(-1)[[0, 2]] > 1e-5).all()


@pytest.mark.parametrize("discrete", [True, False])
def test_baseline_is_the_definition(discrete):
    torch.manual_seed(0)
    actor, critic = make_team(discrete)
    td = make_batch(2, 3, discrete=discrete)
    candidates = action_candidates(actor.get_dist(td.select(("agents", "observation"))))
    values = critic.candidate_values(td, candidates.actions)
    q = critic(td.clone())["agents", "state_action_value"]
    for module, weights in (
        (ObAdvantage, candidates.optimal_weights),
        (ComaAdvantage, candidates.probabilities),
        (MapgAdvantage, torch.zeros_like(values)),
    ):
        b = (values * weights).sum(-1, keepdim=True)
        out = make(module, actor, critic, signal="critic")(td.clone())
        torch.testing.assert_close(out["agents", "baseline"], b)
        torch.testing.assert_close(out["advantage"], q - b)
        out = make(module, actor, critic)(td.clone())
        torch.testing.assert_close(out["advantage"], out["value_target"] - b)


@pytest.mark.parametrize("module", [ObAdvantage, ComaAdvantage])
@pytest.mark.parametrize("discrete", [False, True])
def test_baseline_is_that_of_the_policy_that_acted(module, discrete):
    torch.manual_seed(0)
    actor, critic = make_team(discrete)
    bare = make_batch(5, 4, discrete=discrete)
    acted = actor.get_dist_params(bare.clone())  # with loc and scale, or logits
    advantage = make(module, actor, critic)
    before = advantage(bare.clone())["agents", "baseline"]
    torch.testing.assert_close(advantage(acted.clone())["agents", "baseline"], before)
    with torch.no_grad():
        for p in actor.parameters():
            p.add_(torch.randn_like(p))
    torch.testing.assert_close(advantage(acted.clone())["agents", "baseline"], before)
    current = advantage(bare.clone())["agents", "baseline"]
    assert ((current - before).abs() > 1e-4).any()


@pytest.mark.parametrize("rule", ["gauss", "monte_carlo"])
def test_rules_agree_where_the_value_is_smooth(rule):
    torch.manual_seed(0)
    actor, critic = make_team(dtype=torch.float64)
    td = make_batch(2, 20, dtype=torch.float64)
    points = {"monte_carlo": 20_000}.get(rule)
    advantage = make(ObAdvantage, actor, critic, rule=rule, num_points=points)
    dense = dense_candidates(advantage.team.policy(td), num_points=20)
    values = advantage.team.q_candidates(td, dense.actions)
    expected = weighted_baseline(values, dense.optimal_weights).unsqueeze(-1)
    b = advantage(td.clone())["agents", "baseline"]
    q = critic(td.clone())["agents", "state_action_value"]
    spread = (q - expected).square().mean().sqrt()
    assert (b - expected).square().mean().sqrt() < 0.05 * spread


@pytest.mark.parametrize("module", ALL)
def test_nothing_but_the_outputs_is_written_and_no_gradient_flows(module):
    actor, critic = make_team()
    td = make_batch(2, 5)
    before = td.clone()
    out = make(module, actor, critic)(td)
    assert out is td
    written = {"advantage", "value_target", ("agents", "baseline")}
    assert set(td.keys(True, True)) == set(before.keys(True, True)) | written
    assert (td.exclude(*written) == before).all()
    for key in written:
        assert td[key].shape == (2, 5, N, 1)
        assert not td[key].requires_grad
    assert all(p.grad is None for p in (*actor.parameters(), *critic.parameters()))


@pytest.mark.parametrize("bootstrap", ["sampled", "expected"])
@pytest.mark.parametrize("rule", ["gauss", "monte_carlo"])
def test_sampling_follows_the_seed_and_leaves_the_exploration_type_alone(rule, bootstrap):
    actor, critic = make_team()
    td = make_batch(2, 5)
    advantage = make(ObAdvantage, actor, critic, rule=rule, bootstrap=bootstrap)
    outputs = []
    for kind, seed in (
        (ExplorationType.DETERMINISTIC, 0),
        (ExplorationType.RANDOM, 0),
        (ExplorationType.RANDOM, 1),
    ):
        with set_exploration_type(kind):
            torch.manual_seed(seed)
            outputs.append(advantage(td.clone())["advantage"])
            assert exploration_type() == kind
    assert torch.equal(outputs[0], outputs[1])  # the next action is sampled either way
    assert not torch.equal(outputs[1], outputs[2])


@pytest.mark.parametrize("module", ALL)
@pytest.mark.parametrize("batch", [(5,), (2, 5), (2, 3, 5)])
def test_batch_dimensions_are_trajectories_side_by_side(module, batch):
    torch.manual_seed(0)
    actor, critic = make_team(dtype=torch.float64)
    td = make_batch(*batch, dtype=torch.float64)
    advantage = make(module, actor, critic, bootstrap="expected", time_dim=-1)
    torch.manual_seed(0)
    whole = advantage(td.clone())
    torch.manual_seed(0)
    flat = advantage(td.reshape(-1, 5).clone())
    torch.testing.assert_close(whole["advantage"].reshape(-1, 5, N, 1), flat["advantage"])


def test_time_may_be_another_dimension():
    torch.manual_seed(0)
    actor, critic = make_team(dtype=torch.float64)
    td = make_batch(3, 5, dtype=torch.float64)
    td["next", "terminated"] = torch.ones(3, 5, 1, dtype=torch.bool)  # no bootstrap: no sampling
    td["next", "terminated"][:, :-1] = False
    td["next", "done"] = td["next", "terminated"].clone()
    expected = make(ObAdvantage, actor, critic, lmbda=1.0)(td.clone())["advantage"]
    turned = td.transpose(0, 1).contiguous()
    by_option = make(ObAdvantage, actor, critic, lmbda=1.0, time_dim=0)(turned.clone())
    torch.testing.assert_close(by_option["advantage"].transpose(0, 1), expected)
    turned.names = ["time", None]
    by_name = make(ObAdvantage, actor, critic, lmbda=1.0)(turned)
    torch.testing.assert_close(by_name["advantage"].transpose(0, 1), expected)


@pytest.mark.parametrize("module", ALL)
def test_every_key_can_be_renamed(module):
    actor, critic = make_team(group="blue")
    td = make_batch(2, 5, group="blue")
    reference = td.clone()
    for old, new in (("reward", "gain"), ("done", "over"), ("terminated", "dead")):
        at = ("next", "blue", old) if old == "reward" else ("next", old)
        td.rename_key_(at, ("next", "signals", new))
    advantage = make(module, actor, critic, group="blue")
    assert ("blue", "baseline") in advantage.out_keys
    torch.manual_seed(0)
    expected = advantage(reference)
    advantage.set_keys(
        reward=("signals", "gain"),
        done=("signals", "over"),
        terminated=("signals", "dead"),
        advantage=("blue", "adv"),
        value_target=("blue", "target"),
        baseline="b",
    )
    torch.manual_seed(0)
    out = advantage(td)
    for new, old in ((("blue", "adv"), "advantage"), (("blue", "target"), "value_target")):
        assert torch.equal(out[new], expected[old])
    assert torch.equal(out["b"], expected["blue", "baseline"])
    assert set(advantage.out_keys) <= set(out.keys(True))
    assert set(advantage.in_keys) <= set(out.keys(True))


@pytest.mark.parametrize("module", [ObAdvantage, ComaAdvantage])
def test_chunks_do_not_change_the_numbers(module):
    actor, critic = make_team()
    td = make_batch(7, 5)
    whole = make(module, actor, critic, signal="critic")(td.clone())
    chunked = make(module, actor, critic, signal="critic", chunk_size=1)(td)
    for key in ("advantage", ("agents", "baseline")):
        torch.testing.assert_close(chunked[key], whole[key])


def test_team_reward_is_every_agents_reward():
    actor, critic = make_team()
    td = make_batch(2, 5)
    team = td["next", "agents", "reward"][..., :1, :]
    td["next", "agents", "reward"] = team.expand(2, 5, N, 1)
    td["next", "reward"] = team.squeeze(-2)
    advantage = make(ObAdvantage, actor, critic)
    torch.manual_seed(0)
    each = advantage(td.clone())["advantage"]
    advantage.set_keys(reward="reward")
    torch.manual_seed(0)
    assert torch.equal(advantage(td)["advantage"], each)


def test_functional_and_target_parameters():
    actor, critic = make_team()
    td = make_batch(2, 5)
    advantage = make(ObAdvantage, actor, critic, signal="critic")
    own = TensorDict.from_module(critic)
    torch.manual_seed(0)
    plain = advantage(td.clone())
    torch.manual_seed(0)
    functional = advantage(td.clone(), params=own)
    assert torch.equal(plain["value_target"], functional["value_target"])
    zeros = own.apply(torch.zeros_like)
    torch.manual_seed(0)
    target = advantage(td.clone(), params=own, target_params=zeros)
    assert torch.equal(target["advantage"], plain["advantage"])  # Q - b*: params alone
    assert not torch.equal(target["value_target"], plain["value_target"])
    torch.manual_seed(0)
    assert (advantage(td.clone(), params=zeros)["agents", "baseline"] == 0).all()


def test_unpacked_tensors_are_accepted():
    actor, critic = make_team()
    td = make_batch(2, 5)
    advantage = make(MapgAdvantage, actor, critic)
    torch.manual_seed(0)
    expected = advantage(td.clone())
    named = {"_".join(k) if isinstance(k, tuple) else k: td[k] for k in advantage.in_keys}
    torch.manual_seed(0)
    adv, target, baseline = advantage(**named)
    assert torch.equal(adv, expected["advantage"])
    assert torch.equal(target, expected["value_target"])
    assert torch.equal(baseline, expected["agents", "baseline"])


@pytest.mark.parametrize("module", ALL)
@pytest.mark.parametrize("discrete", [True, False])
def test_double_precision_is_kept(module, discrete):
    actor, critic = make_team(discrete, dtype=torch.float64)
    td = make_batch(2, 5, discrete=discrete, dtype=torch.float64)
    out = make(module, actor, critic)(td)
    for key in ("advantage", "value_target", ("agents", "baseline")):
        assert out[key].dtype == torch.float64
    # γ in double precision, not 0.9f: one step, no bootstrap of the second
    td = make_batch(1, 2, discrete=discrete, dtype=torch.float64)
    td["next", "terminated"] = torch.tensor([[[False], [True]]])
    td["next", "done"] = td["next", "terminated"].clone()
    target = make(module, actor, critic, gamma=0.9, lmbda=1.0)(td)["value_target"]
    reward = td["next", "agents", "reward"]
    assert (target[:, 0] - reward[:, 0] - 0.9 * reward[:, 1]).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "kind", [*DISCRETE, "tanh_normal", "truncated_normal", "independent_normal"]
)
def test_near_deterministic_policies_give_finite_advantages(kind, dtype):
    torch.manual_seed(0)
    if kind in CONTINUOUS:
        psi = [torch.rand(N, 2, dtype=dtype) - 0.5, torch.full((N, 2), 1e-6, dtype=dtype)]
    else:
        shape = (N, 2, 3) if kind == "multi_categorical" else (N, 3)
        psi = [torch.randint(-1, 2, shape).to(dtype) * 1e4]
    mask = None
    if kind.startswith("masked"):
        mask = torch.tensor([[True, True, True], [True, False, True], [False, True, False]])
    actor = make_actor(kind, psi)
    td = random_batch([2, 4], torch.zeros(2, 4, N), dtype=dtype, mask=mask)
    with set_exploration_type(ExplorationType.RANDOM):
        actor(td)
    event = td["agents", "action"].ndim - 3
    critic = FunctionCritic(
        lambda a: a.reshape(*a.shape[: a.ndim - event], -1).to(dtype).sum(-1).sin()
    )
    out = make(ObAdvantage, actor, critic)(td)
    assert out["advantage"].isfinite().all()


def test_single_available_action_leaves_no_advantage():
    mask = torch.tensor([[False, True, False]] * N)
    actor = make_actor("masked", [torch.randn(N, 3)])
    action = torch.ones(2, 4, N, dtype=torch.long)
    critic = JointQCritic(N, 3, OBS, action_encoding="categorical")
    td = random_batch([2, 4], action, mask=mask)
    advantage = make(ObAdvantage, actor, critic, signal="critic")(td)["advantage"]
    torch.testing.assert_close(advantage, torch.zeros_like(advantage), atol=1e-6, rtol=0)


def test_one_agent_is_plain_variance_reduction():
    actor = make_actor("categorical", [torch.log(torch.tensor([[0.8, 0.1, 0.1]]))])
    q = torch.tensor([2.0, 1.0, 100.0])
    td = random_batch([1, 3], torch.arange(3).reshape(1, 3, 1))
    out = make(ObAdvantage, actor, FunctionCritic(lambda a: q[a]), signal="critic")(td)
    x = torch.tensor([0.1412, 0.4294, 0.4294])
    torch.testing.assert_close(out["advantage"].flatten(), q - (x * q).sum(), rtol=1e-3, atol=1e-2)


# ---- errors -------------------------------------------------------------------------------------


def test_a_flattened_batch_is_not_taken_for_a_trajectory():
    torch.manual_seed(0)
    actor, critic = make_team()
    td = make_batch(1, 12)
    td.names = [None, "time"]
    advantage = make(ObAdvantage, actor, critic)
    torch.manual_seed(1)
    expected = advantage(td.clone())["advantage"][0]
    with pytest.raises(ValueError, match=r"\[12\], which is not named 'time'"):
        advantage(td.reshape(-1))
    for trajectory, options in ((td[0].clone(), {}), (td.reshape(-1), {"time_dim": 0})):
        torch.manual_seed(1)
        found = make(ObAdvantage, actor, critic, **options)(trajectory)["advantage"]
        torch.testing.assert_close(found, expected)


def test_a_loss_without_an_advantage_in_its_minibatch_says_so():
    actor, critic = make_team()
    loss = ClipPPOLoss(actor, critic)
    loss.make_value_estimator(make(ObAdvantage, actor, critic))
    loss.set_keys(
        value=critic.out_keys[0], reward=("agents", "reward"), action=("agents", "action")
    )
    batch = actor.get_dist_params(make_batch(2, 5))
    batch["agents", "action_log_prob"] = actor.build_dist_from_params(batch).log_prob(
        batch["agents", "action"]
    )
    loss.set_keys(sample_log_prob=("agents", "action_log_prob"))
    with pytest.raises(ValueError, match="before flattening into minibatches"):
        loss(batch.reshape(-1))


def test_state_value_critic_is_refused_at_construction():
    actor, _ = make_team()
    critic = TensorDictModule(
        torch.nn.Linear(OBS, 1), [("agents", "observation")], [("agents", "state_value")]
    )
    with pytest.raises(ValueError, match=r"ignores the joint action .*JointQCritic"):
        ObAdvantage(actor_network=actor, value_network=critic, gamma=0.9, lmbda=0.9)


def test_module_without_keys_is_refused():
    actor, _ = make_team()
    with pytest.raises(TypeError, match="TensorDictModule"):
        ObAdvantage(actor_network=actor, value_network=torch.nn.Linear(1, 1), gamma=0.9, lmbda=0.9)


def test_actor_without_a_distribution_is_refused():
    _, critic = make_team()
    with pytest.raises(TypeError, match="ProbabilisticActor"):
        make(ObAdvantage, torch.nn.Linear(1, 1), critic)


@pytest.mark.parametrize("option", [{"gamma": 99}, {"lmbda": -0.1}, {"chunk_size": 0}])
def test_numbers_out_of_range_are_refused(option):
    actor, critic = make_team()
    with pytest.raises(ValueError, match=f"{next(iter(option))} must be"):
        make(ObAdvantage, actor, critic, **option)


@pytest.mark.parametrize("option", ["signal", "bootstrap", "rule", "psi"])
def test_unknown_options_are_named_with_their_choices(option):
    actor, critic = make_team()
    with pytest.raises(ValueError, match=rf"{option} must be one of .* got 'x'"):
        make(ObAdvantage, actor, critic, **{option: "x"})


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (("next", "agents", "reward"), r"reward .* missing .* set_keys\(reward="),
        (("next", "done"), r"done .* missing"),
        (("next", "terminated"), r"terminated .* missing"),
        (("agents", "action"), r"the critic reads .*action"),
        (("agents", "observation"), r"reads .*observation"),
        (("next", "agents", "observation"), r"the actor reads .*observation"),
        ("next", r"no entry 'next'"),
    ],
)
def test_missing_keys_are_named(key, message):
    actor, critic = make_team()
    advantage = make(ObAdvantage, actor, critic)
    with pytest.raises(KeyError, match=message):
        advantage(make_batch(2, 5).exclude(key))


@pytest.mark.parametrize("shape", [(2, 5, N), (2, 5), (2, 5, 1, 1), (2, 5, N + 1, 1)])
def test_reward_of_a_wrong_shape_is_not_broadcast(shape):
    actor, critic = make_team()
    td = make_batch(2, 5)
    td["next", "reward"] = torch.zeros(shape)
    advantage = make(ObAdvantage, actor, critic)
    advantage.set_keys(reward="reward")
    with pytest.raises(ValueError, match=r"reward .* expected \[2, 5, 3, 1\].* or \[2, 5, 1\]"):
        advantage(td)


def test_policies_without_an_event_dimension_are_refused():
    _, critic = make_team()
    actor = make_actor("laplace", [torch.zeros(N, 2), torch.ones(N, 2)])
    actor.module[-1].distribution_class = torch.distributions.Laplace
    with pytest.raises(ValueError, match=r"Laplace of batch shape \[2, 5, 3, 2\].*Independent"):
        make(ObAdvantage, actor, critic)(make_batch(2, 5))


def test_unknown_distributions_go_through_autograd():
    torch.manual_seed(0)
    actor = make_actor("laplace", [torch.zeros(N, 2), torch.ones(N, 2)])
    _, critic = make_team()
    out = make(ObAdvantage, actor, critic, num_points=20)(make_batch(2, 5))
    assert out["advantage"].isfinite().all()
    assert all(p.grad is None for p in actor.parameters())


def test_multi_step_rewards_are_refused():
    actor, critic = make_team()
    td = make_batch(2, 5)
    td["steps_to_next_obs"] = torch.ones(2, 5, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="MultiStep"):
        make(ObAdvantage, actor, critic)(td)


def test_value_of_a_team_is_not_broadcast():
    actor, _ = make_team()
    critic = TensorDictModule(
        lambda a: a.sum((-1, -2)).unsqueeze(-1), [("agents", "action")], ["q"]
    )
    with pytest.raises(ValueError, match=r"'q'.* \[2, 5, 1\].* \[2, 5, 3, 2\]"):
        make(ObAdvantage, actor, critic)(make_batch(2, 5))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (("agents", "observation"), r"actor's input .*observation.* is not finite"),
        (("next", "agents", "observation"), r"actor's input .*observation.* is not finite"),
        (("next", "agents", "reward"), r"reward .*reward.* is not finite: it has NaN or inf"),
    ],
)
def test_inputs_that_are_not_finite_stop_the_run(key, message):
    actor, critic = make_team()
    td = make_batch(2, 5)
    td[key][0, 0, 0, 0] = math.nan
    with pytest.raises(RuntimeError, match=message):
        make(ObAdvantage, actor, critic)(td)


def test_values_that_are_not_finite_stop_the_run():
    actor, critic = make_team()
    with torch.no_grad():
        critic.backbone.own.weight.fill_(math.inf)
    with pytest.raises(RuntimeError, match=r"critic's output .* is not finite"):
        make(ObAdvantage, actor, critic)(make_batch(2, 5))


def test_deterministic_policy_is_refused():
    net = TensorDictModule(
        torch.nn.Linear(OBS, 2), [("agents", "observation")], [("agents", "param")]
    )
    actor = ProbabilisticActor(
        net,
        in_keys=[("agents", "param")],
        out_keys=[("agents", "action")],
        distribution_class=Delta,
    )
    _, critic = make_team()
    with pytest.raises(TypeError, match="Delta is deterministic"):
        make(ObAdvantage, actor, critic)(make_batch(2, 5))
