"""Which reward an advantage reads, on each way that it is attached: never one that nobody named beside another."""

import pytest
import torch
from pipelines import ignore_trainer_warnings, make_trainer
from small_teams import N, make_batch, make_team
from torchrl.objectives import A2CLoss, ClipPPOLoss
from torchrl.objectives.multiagent import MAPPOLoss

from torchrl_ob import ComaAdvantage, ObAdvantage, diagnostics

GROUP = ("agents", "reward")
OPTIONS = {"gamma": 0.9, "lmbda": 0.8}
LOSSES = [ClipPPOLoss, MAPPOLoss, A2CLoss]
TWO = r"two rewards, \('next', 'reward'\) and \('next', 'agents', 'reward'\).*set_keys\(reward="


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def batch_with_both():
    td = make_batch(2, 5)
    td["next", "reward"] = torch.randn(2, 5, 1)
    return td


def team(kind=ObAdvantage, **options):
    actor, critic = make_team()
    return actor, critic, kind(actor_network=actor, value_network=critic, **OPTIONS, **options)


def read_by(advantage, td):
    """The reward that the advantage reads: what moves the value target by one."""
    moved = []
    for key in (("next", "reward"), ("next", *GROUP)):
        torch.manual_seed(1)
        before = advantage.value_estimate(td)
        other = td.clone()
        other[key] = other[key] + 1
        torch.manual_seed(1)
        if not torch.equal(advantage.value_estimate(other), before):
            moved.append(key[1:] if len(key) > 2 else key[1])
    return moved


def test_a_plain_call():
    _, _, advantage = team()
    td = batch_with_both()
    with pytest.raises(ValueError, match=TWO):
        advantage(td)
    with pytest.raises(ValueError, match=TWO):
        diagnostics.gradient_variance(advantage, td)
    for key in (GROUP, "reward"):
        advantage.set_keys(reward=key)
        assert read_by(advantage, td) == [key]
    advantage = team()[2]
    only = td.exclude(("next", *GROUP))  # one of them alone: nothing to be confused with
    assert advantage(only)["advantage"].shape == (2, 5, N, 1)
    with pytest.raises(
        KeyError, match=r"reward .*missing.*set_keys\(reward=.*forwards no key set before"
    ):
        advantage(td.exclude(("next", "reward")))


@pytest.mark.parametrize("loss_class", LOSSES)
@pytest.mark.parametrize("as_class", [False, True])
def test_keys_of_a_loss_set_before_the_advantage_was_attached(loss_class, as_class):
    actor, critic, advantage = team()
    loss, td = loss_class(actor, critic), batch_with_both()
    loss.set_keys(value=critic.out_keys[0], reward=GROUP)
    if as_class:
        networks = {"actor_network": actor, "value_network": critic}
        loss.make_value_estimator(ObAdvantage, **networks, **OPTIONS)
    else:
        loss.make_value_estimator(advantage)
    with pytest.raises(ValueError, match=TWO):
        loss.value_estimator(td)
    loss.set_keys(reward=GROUP)  # once more, as the message says
    assert read_by(loss.value_estimator, td) == [GROUP]


@pytest.mark.parametrize("loss_class", LOSSES)
def test_a_default_that_a_loss_relays_names_nothing(loss_class):
    actor, critic, advantage = team()
    loss, td = loss_class(actor, critic), batch_with_both()
    loss.make_value_estimator(advantage)
    loss.set_keys(value=critic.out_keys[0])
    with pytest.raises(ValueError, match=TWO):
        advantage(td)
    advantage.set_keys(reward="reward")
    loss.set_keys(advantage="advantage")
    assert read_by(advantage, td) == ["reward"]
    # and it does not replace in silence what the advantage was told itself
    advantage.set_keys(reward=GROUP)
    assert read_by(advantage, td) == [GROUP]
    loss.set_keys(advantage="advantage")
    with pytest.raises(ValueError, match=TWO):
        advantage(td)


def test_another_reward_than_that_of_the_group():
    actor, critic, advantage = team()
    loss, td = ClipPPOLoss(actor, critic), batch_with_both().exclude(("next", *GROUP))
    td["next", "signals", "gain"] = torch.randn(2, 5, N, 1)
    advantage.set_keys(reward=("signals", "gain"))
    loss.make_value_estimator(advantage)
    loss.set_keys(value=critic.out_keys[0])
    with pytest.raises(ValueError, match=r"two rewards.*\('next', 'signals', 'gain'\)"):
        advantage(td)


@pytest.mark.parametrize("kind", [ObAdvantage, ComaAdvantage])
def test_for_loss(kind):
    actor, critic, _ = team()
    td = batch_with_both()
    loss = ClipPPOLoss(actor, critic)
    loss.set_keys(value=critic.out_keys[0])
    with pytest.raises(ValueError, match=TWO):
        kind.for_loss(loss, **OPTIONS)(td)
    loss.set_keys(reward=GROUP)
    advantage = kind.for_loss(loss, **OPTIONS)
    assert read_by(advantage, td) == [GROUP]
    loss.make_value_estimator(advantage)
    assert read_by(loss.value_estimator, td) == [GROUP]


@ignore_trainer_warnings
def test_a_trainer():
    pytest.importorskip("vmas")
    from pipelines import make_pipeline

    env, actor, critic, loss = make_pipeline(ClipPPOLoss)
    advantage = ObAdvantage(actor_network=actor, value_network=critic, **OPTIONS)
    loss.make_value_estimator(advantage)
    loss.set_keys(value=critic.out_keys[0])
    make_trainer(env, actor, loss, advantage)  # with reward_key
    assert advantage.tensor_keys.reward == advantage.named_reward == env.reward_key
    advantage.set_keys(
        reward="reward", done="done", terminated="terminated"
    )  # as one without it does
    td = env.rollout(3, actor)
    with pytest.raises(KeyError, match=r"reward .*missing"):
        advantage(td)
    td["next", "reward"] = torch.zeros(4, 3, 1)
    with pytest.raises(ValueError, match=TWO):
        advantage(td)
