"""What the benchmarks of critics share: rollouts, and MAPPO's loss with OB around a critic."""

from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.envs import EnvBase, ExplorationType, set_exploration_type
from torchrl.modules import ProbabilisticActor
from torchrl.objectives.multiagent import MAPPOLoss

from torchrl_ob import JointQCritic, ObAdvantage


def collect(env: EnvBase, policy: ProbabilisticActor, num_steps: int) -> TensorDictBase:
    """A batch of trajectories, ``[envs, steps]``."""
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        return env.rollout(num_steps, policy, break_when_any_done=False)


def mappo_with_ob(
    env: EnvBase, policy: ProbabilisticActor, critic: JointQCritic, **options: Any
) -> tuple[MAPPOLoss, ObAdvantage]:
    """The loss, which updates the critic's value norm, and its advantage, of these options."""
    loss = MAPPOLoss(
        policy,
        critic,
        value_norm=critic.value_norm,
        entropy_coeff=1e-4,
        normalize_advantage=True,
        normalize_advantage_exclude_dims=(-2,),
    )
    advantage = ObAdvantage(actor_network=policy, value_network=critic, **options)
    loss.make_value_estimator(advantage)
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key, action=env.action_key)
    return loss, advantage
