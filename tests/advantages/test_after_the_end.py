"""What follows an end, flags that are numbers, padding, and trajectories laid end to end."""

import math

import pytest
import torch
from games import make_actor, random_batch
from tensordict import TensorDict
from torchrl.collectors.utils import split_trajectories

from torchrl_ob import (
    ComaAdvantage,
    JointQCritic,
    ObAdvantage,
    diagnostics,
)

N, OBS, A = 3, 4, 5
OPTIONS = {"gamma": 0.9, "lmbda": 0.8}
KEYS = ("advantage", "value_target", ("agents", "baseline"))
BOOTSTRAPS = ["sampled", "expected", "control_variate"]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def masked_team(kind=ObAdvantage, **options):
    actor = make_actor("masked", [torch.randn(N, A)])
    critic = JointQCritic(N, A, OBS, action_encoding="categorical", hidden_dim=16)
    advantage = kind(actor_network=actor, value_network=critic, **{**OPTIONS, **options})
    advantage.set_keys(reward=("agents", "reward"), mask=("agents", "alive"))
    return advantage


def masked_batch(*batch):
    """Trajectories with masks of actions, which end here and there."""
    td = random_batch(batch, torch.zeros(*batch, N, dtype=torch.long))
    for state in (td, td["next"]):
        state["agents", "mask"] = torch.rand(*batch, N, A) > 0.4
        state["agents", "mask"][..., 0] = True
    td["next", "terminated"] = torch.rand(*batch, 1) < 0.2
    td["next", "done"] = td["next", "terminated"] | (torch.rand(*batch, 1) < 0.1)
    return td


def run(advantage, td):
    torch.manual_seed(1)
    return advantage(td.clone())


# ---- after a termination ------------------------------------------------------------------------


@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
@pytest.mark.parametrize("kind", [ObAdvantage, ComaAdvantage])
def test_nothing_of_the_state_after_a_termination_enters(kind, bootstrap):
    advantage, td = masked_team(kind, bootstrap=bootstrap), masked_batch(4, 9)
    over = td["next", "terminated"].squeeze(-1)
    assert over.any()
    expected = run(advantage, td)
    td["next", "agents", "observation"][over] = math.nan
    td["next", "agents", "mask"][over] = False
    found = run(advantage, td)
    for key in KEYS:
        assert torch.equal(found[key], expected[key])


def test_a_time_limit_is_no_end_of_what_is_read():
    advantage, td = masked_team(), masked_batch(4, 9)
    td["next", "terminated"] = torch.zeros(4, 9, 1, dtype=torch.bool)
    td["next", "agents", "observation"][td["next", "done"].squeeze(-1)] = math.nan
    with pytest.raises(RuntimeError, match=r"actor's input .*observation.* is not finite"):
        advantage(td)


def test_agents_that_terminate_one_by_one():
    # the others' states go on, so that only a state after which no agent goes on is left unread
    advantage, td = masked_team(), masked_batch(4, 9)
    terminated = torch.rand(4, 9, N, 1) < 0.5
    td["next", "agents", "terminated"] = terminated
    advantage.set_keys(terminated=("agents", "terminated"))
    expected = run(advantage, td)
    every = terminated.flatten(2).all(-1)
    assert every.any()
    td["next", "agents", "observation"][every] = math.nan
    td["next", "agents", "mask"][terminated.squeeze(-1) & every.unsqueeze(-1)] = False
    assert torch.equal(run(advantage, td)["value_target"], expected["value_target"])


def test_a_next_value_after_a_termination_may_be_nan():
    advantage, td = masked_team(), masked_batch(2, 6)
    value = torch.randn(2, 6, N, 1)
    expected = advantage.value_estimate(td, next_value=value)
    over = td["next", "terminated"].unsqueeze(-2).expand_as(value)
    value = value.masked_fill(over, math.nan)
    assert torch.equal(advantage.value_estimate(td, next_value=value), expected)


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("bootstrap", BOOTSTRAPS)
def test_a_dead_agent_without_any_action_takes_no_part(bootstrap, told):
    advantage, td = masked_team(bootstrap=bootstrap), masked_batch(4, 9)
    dead = torch.rand(4, 9, N) < 0.3
    td["agents", "mask"][dead] = False
    td["next", "agents", "mask"][:, 3, 1] = False  # and one whose death is not yet in the state
    if told:
        td["agents", "alive"] = ~dead
    found = run(advantage, td)
    assert (found["advantage"][dead] == 0).all()
    assert (found["advantage"][~dead] != 0).any()
    td["agents", "mask"][dead] = torch.arange(A) == 2  # any other placeholder
    other = run(advantage, td)["advantage"]
    assert torch.equal(found["advantage"][~dead], other[~dead])
    measured = diagnostics.gradient_variance(advantage, td).variance["ob"].value
    assert measured.isfinite().all()


def test_an_agent_without_any_action_that_takes_part_is_told():
    advantage, td = masked_team(), masked_batch(2, 5)
    td["agents", "alive"] = torch.ones(2, 5, N, dtype=torch.bool)
    td["agents", "mask"][1, 2, 0] = False
    with pytest.raises(RuntimeError, match=r"'alive'.* has no available action in .*'mask'"):
        advantage(td)


def test_logits_of_minus_infinity_alone_are_a_mask_too():
    actor = make_actor("categorical", [torch.zeros(N, A)])
    params = TensorDict({"agents": {"logits": torch.full((2, N, A), -math.inf)}}, [2])
    params["agents", "logits"][:, 1:] = 0
    params["agents", "observation"] = torch.zeros(2, N, OBS)
    from torchrl_ob._actors import build_policy, policy_parameters

    assert (build_policy(actor, params).sample()[:, 0] == 0).all()
    assert build_policy(actor, policy_parameters(actor, params)).sample().shape == (2, N)


# ---- flags that are numbers ---------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64])
def test_flags_may_be_numbers(dtype):
    advantage, td = masked_team(), masked_batch(4, 9)
    td["agents", "alive"] = torch.rand(4, 9, N) < 0.7
    expected = run(advantage, td)
    for key in (("next", "done"), ("next", "terminated"), ("agents", "alive")):
        td[key] = td[key].to(dtype)
    found = run(advantage, td)
    for key in KEYS:
        assert torch.equal(found[key], expected[key])


@pytest.mark.parametrize("key", [("next", "done"), ("next", "terminated"), ("agents", "alive")])
@pytest.mark.parametrize("value", [2, -1, 0.5, math.nan])
def test_flags_that_are_neither_are_told(key, value):
    advantage, td = masked_team(), masked_batch(2, 4)
    td["agents", "alive"] = torch.ones(2, 4, N, dtype=torch.bool)
    td[key] = td[key].float()
    td[key][1, 1] = value
    with pytest.raises(RuntimeError, match=rf"{key[-1]}.* must be true or false, 0 or 1"):
        advantage(td)


@pytest.mark.parametrize("time_dim", [2, -3, 7])
def test_time_is_a_dimension_of_the_batch(time_dim):
    td = masked_batch(2, 4)
    with pytest.raises(ValueError, match=rf"time_dim must be .* from -2 to 1 .*got {time_dim}"):
        masked_team(time_dim=time_dim)(td)
    with pytest.raises(ValueError, match="time_dim must be"):
        masked_team().value_estimate(td, time_dim=time_dim)


# ---- padding ------------------------------------------------------------------------------------


def padded_pair():
    """One rollout whose trajectories have several lengths: as it was collected, and split."""
    td = masked_batch(3, 12)
    td["next", "done"] = (
        td["next", "done"].squeeze(-1).logical_or(torch.arange(12) == 11)[..., None]
    )
    ended = torch.nn.functional.pad(td["next", "done"].squeeze(-1)[:, :-1], [1, 0])
    ids = ended.cumsum(1) + 100 * torch.arange(3).unsqueeze(1)
    td["collector", "traj_ids"] = ids
    actor_params = torch.randn(3, 12, N, A)
    td["agents", "logits"] = actor_params  # what the actor left, zero in the padding
    split = split_trajectories(td)
    assert not split["collector", "mask"].all()
    return td, split


@pytest.mark.parametrize("bootstrap", ["expected", "sampled"])
@pytest.mark.parametrize("signal", ["lambda_return", "critic"])
@pytest.mark.parametrize("kind", [ObAdvantage, ComaAdvantage])
def test_padding_enters_nothing(kind, signal, bootstrap):
    advantage = masked_team(kind, signal=signal, bootstrap=bootstrap)
    td, split = padded_pair()
    # a policy that leaves no chance: what is sampled is the same in both layouts
    only = torch.nn.functional.one_hot(torch.randint(A, (3, 12, N)), A).bool()
    td["next", "agents", "mask"] = only
    split = split_trajectories(td)
    valid = split["collector", "mask"]
    expected = run(advantage, td)
    for poison in (0.0, math.nan):
        broken = split.clone()
        for key in (("agents", "observation"), ("next", "agents", "reward")):
            broken[key][~valid] = poison
        broken["next", "agents", "observation"][~valid] = poison
        found = run(advantage, broken)
        for key in KEYS:
            torch.testing.assert_close(found[key][valid], expected[key].flatten(0, 1))
            assert (found[key][~valid] == 0).all()
    assert set(found.keys(True, True)) == set(split.keys(True, True)) | set(KEYS)


def test_the_last_step_before_padding_bootstraps_unless_it_terminated():
    advantage, td = masked_team(lmbda=1.0), masked_batch(1, 4)
    td["next", "agents", "mask"][:] = torch.arange(A) == 0  # the next action is known
    for name in ("done", "terminated"):
        td["next", name] = torch.zeros(1, 4, 1, dtype=torch.bool)
    td["collector", "mask"] = torch.tensor([[True, True, False, False]])
    found = run(advantage, td)["value_target"][0, 1]
    following = td["next"][:, 1].clone()
    following["agents", "action"] = torch.zeros(1, N, dtype=torch.long)
    value = advantage.value_network(following)["agents", "state_action_value"][0]
    torch.testing.assert_close(found, td["next", "agents", "reward"][0, 1] + 0.9 * value)
    td["next", "terminated"][0, 1] = True
    found = run(advantage, td)["value_target"][0, 1]
    torch.testing.assert_close(found, td["next", "agents", "reward"][0, 1])


def test_the_mask_of_padding_can_be_named_and_has_a_shape():
    advantage, (_, split) = masked_team(bootstrap="expected"), padded_pair()
    expected = run(advantage, split)["advantage"]
    split["valid"] = split["collector", "mask"].unsqueeze(-1).to(torch.uint8)
    split["collector", "mask"] = torch.ones_like(split["collector", "mask"])
    advantage.set_keys(valid="valid")
    split = split.exclude(("collector", "traj_ids"))
    assert torch.equal(run(advantage, split)["advantage"], expected)
    split["valid"] = torch.ones(2, 2, dtype=torch.bool).expand(*split.shape, 2, 2)
    with pytest.raises(
        ValueError, match=r"'valid' says which steps are no padding.*set_keys\(valid"
    ):
        advantage(split)
    split["valid"] = torch.zeros(split.shape, dtype=torch.bool)
    with pytest.raises(RuntimeError, match="all steps of the batch are padding"):
        advantage(split)


def test_diagnostics_leave_padding_out():
    advantage = masked_team(bootstrap="expected")
    _, split = padded_pair()
    poisoned = split.clone()
    padding = ~split["collector", "mask"]
    poisoned["agents", "observation"][padding] = 1e3
    poisoned["next", "agents", "reward"][padding] = 1e6
    for measure in (
        diagnostics.gradient_variance,
        diagnostics.parameter_gradient_variance,
        diagnostics.variance_terms,
        diagnostics.excess_variance,
        diagnostics.headroom,
        diagnostics.critic_quality,
        diagnostics.variance_metrics,
    ):
        first, second = measure(advantage, split), measure(advantage, poisoned)
        assert str(first) == str(second), measure.__name__
    quality = diagnostics.critic_quality(advantage, split)
    torch.manual_seed(0)
    target = advantage.value_estimate(split).squeeze(-1)[~padding]
    q = advantage.team.q(advantage.read(split)).squeeze(-1)[~padding]
    explained = 1 - (target - q).var(0) / target.var(0)
    torch.testing.assert_close(quality.explained_variance.value, explained)


# ---- trajectories laid end to end ---------------------------------------------------------------


def test_trajectories_of_two_workers_end_to_end_are_told():
    advantage = masked_team()
    first, second = masked_batch(2, 4), masked_batch(2, 4)
    for td, ids in ((first, [0, 1]), (second, [2, 3])):
        td["next", "done"] = td["next", "terminated"] = torch.zeros(2, 4, 1, dtype=torch.bool)
        td["collector", "traj_ids"] = torch.tensor(ids).unsqueeze(1).expand(2, 4)
    with pytest.raises(RuntimeError, match=r"end to end in time.*cat_results=0 or \"stack\""):
        advantage(torch.cat([first, second], 1))
    advantage(torch.cat([first, second], 0))
    first["next", "done"][:, -1] = True  # as where the first worker's trajectories ended
    advantage(torch.cat([first, second], 1))
