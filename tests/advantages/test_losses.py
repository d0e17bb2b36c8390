"""The advantages inside TorchRL's own losses and trainer, on VMAS."""

import copy
import pickle

import pytest
import torch
from pipelines import (
    collect,
    ignore_trainer_warnings,
    make_pipeline,
    make_trainer,
)
from torchrl.modules import (
    PopArtValueNorm,
)
from torchrl.objectives import A2CLoss, ClipPPOLoss, ReinforceLoss
from torchrl.objectives.multiagent import IPPOLoss, MAPPOLoss

from torchrl_ob import ComaAdvantage, MapgAdvantage, ObAdvantage

MODULES = [ObAdvantage, ComaAdvantage, MapgAdvantage]
LOSSES = [ClipPPOLoss, MAPPOLoss, IPPOLoss, A2CLoss, ReinforceLoss]


@pytest.mark.parametrize("continuous", [True, False])
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("loss_class", LOSSES)
def test_one_step_of_every_loss_on_flattened_minibatches(loss_class, module, continuous):
    env, actor, critic, loss = make_pipeline(loss_class, continuous)
    advantage = module(actor_network=actor, value_network=critic, gamma=0.99, lmbda=0.9)
    loss.make_value_estimator(advantage)
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key, action=env.action_key)
    assert loss.value_estimator is advantage
    assert advantage.tensor_keys.reward == env.reward_key
    td = advantage(collect(env, actor))
    minibatch = td.reshape(-1)[torch.randperm(td.numel())[:20]]
    losses = loss(minibatch)
    total = sum(v for k, v in losses.items() if k.startswith("loss_"))
    total.backward()
    for network in (actor, critic):  # the loss trains the very networks it was given
        assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
        assert sum(p.grad.abs().sum() for p in network.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize("loss_class", [ClipPPOLoss, MAPPOLoss, A2CLoss])
def test_policy_gradient_is_the_score_times_the_advantage(loss_class):
    env, actor, critic, loss = make_pipeline(loss_class)
    advantage = ObAdvantage(actor_network=actor, value_network=critic, gamma=0.99, lmbda=0.9)
    loss.make_value_estimator(advantage)
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key)
    loss.normalize_advantage = False
    td = advantage(collect(env, actor)).reshape(-1)
    losses = loss(td)
    actual = torch.autograd.grad(
        losses["loss_objective"], list(loss.actor_network_params.parameters())
    )
    log_prob = actor.get_dist(td.select(*actor.in_keys)).log_prob(td["agents", "action"])
    objective = -(log_prob.unsqueeze(-1) * td["advantage"]).mean()
    expected = torch.autograd.grad(objective, list(actor.parameters()))
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("loss_class", LOSSES)
@pytest.mark.parametrize("module", MODULES)
def test_for_loss_is_the_instance_with_live_parameters(module, loss_class):
    env, actor, critic, loss = make_pipeline(loss_class)
    td = collect(env, actor)
    built = module.for_loss(loss, gamma=0.99, lmbda=0.9)
    own = module(actor_network=actor, value_network=critic, gamma=0.99, lmbda=0.9)
    outputs = []
    for _ in range(2):  # before and after a step of the loss's parameters
        for advantage in (built, own):
            advantage.set_keys(reward=env.reward_key)
            torch.manual_seed(0)
            outputs.append(advantage(td.clone())["advantage"])
        with torch.no_grad():
            for p in loss.parameters():
                p.mul_(1.5)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[2], outputs[3])
    assert not torch.equal(outputs[0], outputs[2])


def test_for_loss_takes_the_keys_set_so_far():
    env, actor, critic, loss = make_pipeline(ClipPPOLoss)
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key, advantage=("agents", "adv"))
    advantage = ObAdvantage.for_loss(loss, gamma=0.99, lmbda=0.9)
    td = advantage(collect(env, actor))
    assert td["agents", "adv"].shape == (4, 10, 3, 1)
    loss.make_value_estimator(advantage)
    assert loss(td.reshape(-1))["loss_objective"].isfinite()


def test_for_loss_without_a_loss_is_a_clear_error():
    with pytest.raises(TypeError, match="Linear has no actor_network"):
        ObAdvantage.for_loss(torch.nn.Linear(1, 1), gamma=0.99, lmbda=0.9)


def test_keys_set_before_the_advantage_was_attached_are_explained():
    env, actor, critic, loss = make_pipeline(ClipPPOLoss)
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key)
    advantage = ObAdvantage(actor_network=actor, value_network=critic, gamma=0.99, lmbda=0.9)
    loss.make_value_estimator(advantage)
    with pytest.raises(KeyError, match=r"after loss\.make_value_estimator"):
        advantage(collect(env, actor))


def test_make_value_estimator_from_the_class():
    env, actor, critic, loss = make_pipeline(ClipPPOLoss)
    loss.make_value_estimator(
        ObAdvantage, actor_network=actor, value_network=critic, gamma=0.99, lmbda=0.9
    )
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key)
    td = loss.value_estimator(collect(env, actor))
    assert td["advantage"].shape == (4, 10, 3, 1)


def test_loss_computes_a_missing_advantage_with_its_own_parameters():
    env, actor, critic, loss = make_pipeline(ClipPPOLoss)
    loss.make_value_estimator(
        ObAdvantage(actor_network=actor, value_network=critic, gamma=0.99, lmbda=0.9)
    )
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key)
    td = collect(env, actor)
    torch.manual_seed(0)
    implicit = loss(td)["loss_objective"]
    torch.manual_seed(0)
    loss.value_estimator(td)
    torch.testing.assert_close(loss(td)["loss_objective"], implicit, rtol=1e-6, atol=0)


def test_forgotten_keys_of_the_loss_are_an_error():
    _, actor, critic, loss = make_pipeline(ClipPPOLoss)
    loss.make_value_estimator(
        ObAdvantage(actor_network=actor, value_network=critic, gamma=0.99, lmbda=0.9)
    )
    with pytest.raises(KeyError, match="state_value"):
        loss.set_keys(reward=("agents", "reward"))  # without value=critic.out_keys[0]


def test_value_norm_is_shared_by_critic_and_loss():
    norm = PopArtValueNorm(shape=1, beta=0.99)
    env, actor, critic, loss = make_pipeline(MAPPOLoss, value_norm=norm)
    advantage = ObAdvantage(actor_network=actor, value_network=critic, gamma=0.99, lmbda=0.9)
    loss.make_value_estimator(advantage)
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key)
    td = collect(env, actor)
    td["next", "agents", "reward"] = td["next", "agents", "reward"] * 100 + 300
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    assert critic.value_norm is loss.value_norm
    for _ in range(200):
        advantage(td)
        losses = loss(td.reshape(-1))
        optimizer.zero_grad()
        sum(v for k, v in losses.items() if k.startswith("loss_")).backward()
        optimizer.step()
    value = critic(td.clone())["agents", "state_action_value"]
    target = advantage(td)["value_target"]
    assert target.mean() > 1000
    assert (value - target).abs().mean() < 0.2 * target.mean()  # learnt on the scale of returns


@ignore_trainer_warnings
@pytest.mark.parametrize("module", MODULES)
def test_trainer_takes_the_advantage_as_its_gae(module):
    env, actor, critic, loss = make_pipeline(ClipPPOLoss)
    advantage = module(actor_network=actor, value_network=critic, gamma=0.99, lmbda=0.9)
    loss.make_value_estimator(advantage)
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key)
    before = [p.clone() for p in loss.parameters()]
    trainer = make_trainer(env, actor, loss, advantage)
    trainer.train()
    moved = [not torch.equal(a, b) for a, b in zip(before, loss.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("as_class", [False, True])
@pytest.mark.parametrize("loss_class", LOSSES)
def test_a_copied_loss_has_an_advantage_of_its_own_networks(loss_class, as_class, copies):
    env, actor, critic, loss = make_pipeline(loss_class)
    networks = {"actor_network": actor, "value_network": critic, "gamma": 0.99, "lmbda": 0.9}
    attached = (
        ObAdvantage.for_loss(loss, gamma=0.99, lmbda=0.9) if as_class else ObAdvantage(**networks)
    )
    loss.make_value_estimator(attached)
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key, action=env.action_key)
    td = collect(env, actor)
    copied = loss
    for _ in range(copies):
        copied = copy.deepcopy(copied)
    advantage = copied.value_estimator
    assert advantage is not attached
    assert advantage.tensor_keys == attached.tensor_keys

    def estimate(module):
        torch.manual_seed(0)
        return module(td.clone())["advantage"]

    before = estimate(attached)
    assert torch.equal(estimate(advantage), before)
    with torch.no_grad():  # what is trained of the copy moves the copy's advantage alone
        for p in copied.parameters():
            p.mul_(1.5)
    assert not torch.equal(estimate(advantage), before)
    assert torch.equal(estimate(attached), before)
    moved = estimate(advantage)
    with torch.no_grad():
        for p in loss.parameters():
            p.mul_(1.5)
    assert torch.equal(estimate(attached), moved)  # all networks of the copy had moved


def test_a_copied_advantage_has_networks_of_its_own():
    env, actor, critic, _ = make_pipeline(ClipPPOLoss)
    advantage = ObAdvantage(actor_network=actor, value_network=critic, gamma=0.99, lmbda=0.9)
    advantage.set_keys(reward=env.reward_key)
    td = collect(env, actor)
    copied = copy.deepcopy(advantage)
    with torch.no_grad():
        for p in critic.parameters():
            p.mul_(1.5)
    outputs = []
    for module in (advantage, copied, pickle.loads(pickle.dumps(advantage))):
        torch.manual_seed(0)
        outputs.append(module(td.clone())["advantage"])
    assert not torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
