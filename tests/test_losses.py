"""The advantages inside TorchRL's own losses and trainer, on VMAS."""

import pytest
import torch
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer, SamplerWithoutReplacement
from torchrl.envs import ExplorationType, VmasEnv, set_exploration_type
from torchrl.modules import (
    MultiAgentMLP,
    NormalParamExtractor,
    PopArtValueNorm,
    ProbabilisticActor,
    TanhNormal,
)
from torchrl.objectives import A2CLoss, ClipPPOLoss, ReinforceLoss
from torchrl.objectives.multiagent import IPPOLoss, MAPPOLoss
from torchrl.trainers.algorithms.ppo import PPOTrainer

from torchrl_ob import ComaAdvantage, JointQCritic, MapgAdvantage, ObAdvantage

MODULES = [ObAdvantage, ComaAdvantage, MapgAdvantage]
LOSSES = [ClipPPOLoss, MAPPOLoss, IPPOLoss, A2CLoss, ReinforceLoss]


def make_env(**options):
    return VmasEnv("navigation", num_envs=4, n_agents=3, max_steps=10, seed=0, **options)


def make_actor(env):
    spec = env.full_action_spec_unbatched["agents", "action"]
    continuous = spec.dtype.is_floating_point
    net = MultiAgentMLP(
        n_agent_inputs=18,
        n_agent_outputs=2 * spec.shape[-1] if continuous else spec.space.n,
        n_agents=3,
        centralized=False,
        share_params=True,
        depth=1,
        num_cells=16,
    )
    names = ["loc", "scale"] if continuous else ["logits"]
    module = torch.nn.Sequential(net, NormalParamExtractor()) if continuous else net
    out_keys = [("agents", name) for name in names]
    return ProbabilisticActor(
        TensorDictModule(module, [("agents", "observation")], out_keys),
        in_keys=out_keys,
        out_keys=[("agents", "action")],
        distribution_class=TanhNormal if continuous else torch.distributions.Categorical,
        return_log_prob=True,
    )


def make_pipeline(loss_class, continuous=True, **critic_options):
    torch.manual_seed(0)
    env = make_env(continuous_actions=continuous)
    actor = make_actor(env)
    critic = JointQCritic.from_env(env, hidden_dim=16, **critic_options)
    options = {"value_norm": critic.value_norm} if critic.value_norm is not None else {}
    loss = loss_class(actor, critic, **options)
    return env, actor, critic, loss


def collect(env, actor, steps=10):
    with set_exploration_type(ExplorationType.RANDOM), torch.no_grad():
        return env.rollout(steps, actor)


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
    assert torch.equal(loss(td)["loss_objective"], implicit)


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


@pytest.mark.filterwarnings(
    "ignore:PPOTrainer is an experimental",
    "ignore:The .* hook stage will be replaced:FutureWarning",
)
@pytest.mark.parametrize("module", MODULES)
def test_trainer_takes_the_advantage_as_its_gae(module):
    env, actor, critic, loss = make_pipeline(ClipPPOLoss)
    advantage = module(actor_network=actor, value_network=critic, gamma=0.99, lmbda=0.9)
    loss.make_value_estimator(advantage)
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key)
    before = [p.clone() for p in loss.parameters()]
    collector = Collector(
        env, actor, frames_per_batch=40, total_frames=80, auto_register_policy_transforms=False
    )
    trainer = PPOTrainer(
        collector=collector,
        total_frames=80,
        frame_skip=1,
        optim_steps_per_batch=2,
        loss_module=loss,
        optimizer=torch.optim.Adam(loss.parameters()),
        num_epochs=2,
        replay_buffer=ReplayBuffer(
            storage=LazyTensorStorage(40), sampler=SamplerWithoutReplacement(), batch_size=20
        ),
        gae=advantage,
        reward_key=env.reward_key,
        episode_reward_key=env.reward_key,
        action_key=env.action_key,
        progress_bar=False,
        logger=None,
        enable_logging=False,
    )
    trainer.train()
    moved = [not torch.equal(a, b) for a, b in zip(before, loss.parameters(), strict=True)]
    assert sum(moved) > len(moved) / 2
