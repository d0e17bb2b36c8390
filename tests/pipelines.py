"""Small TorchRL pipelines on VMAS navigation, for the tests."""

import pytest
import torch
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer, SamplerWithoutReplacement
from torchrl.envs import ExplorationType, VmasEnv, set_exploration_type
from torchrl.modules import MultiAgentMLP, NormalParamExtractor, ProbabilisticActor, TanhNormal
from torchrl.trainers.algorithms.ppo import PPOTrainer

from torchrl_ob import JointQCritic


def ignore_trainer_warnings(test):
    """TorchRL's trainer warns of itself."""
    return pytest.mark.filterwarnings(
        "ignore:PPOTrainer is an experimental",
        "ignore:The .* hook stage will be replaced:FutureWarning",
    )(test)


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


def make_trainer(env, actor, loss, advantage, num_batches=2, logger=None):
    """TorchRL's trainer, on batches of 40 frames."""
    frames = 40 * num_batches
    return PPOTrainer(
        collector=Collector(
            env,
            actor,
            frames_per_batch=40,
            total_frames=frames,
            auto_register_policy_transforms=False,
        ),
        total_frames=frames,
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
        logger=logger,
        log_interval=1,
        enable_logging=False,
    )
