"""What the benchmarks of critics share: rollouts, and critics fitted side by side while the first trains the policy."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import nn
from torchrl.envs import EnvBase, ExplorationType, set_exploration_type
from torchrl.modules import ProbabilisticActor
from torchrl.objectives.multiagent import MAPPOLoss

from torchrl_ob import DuelingCritic, DuelingFit, JointQCritic, ObAdvantage
from torchrl_ob.experiments.gae import multi_agent_gae


def collect(env: EnvBase, policy: ProbabilisticActor, num_steps: int) -> TensorDictBase:
    """A batch of trajectories, ``[envs, steps]``."""
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        return env.rollout(num_steps, policy, break_when_any_done=False)


class Way(Protocol):
    """A way of fitting a critic: to minibatches, or to a batch after them."""

    advantage: Any

    def fit_minibatch(self, minibatch: TensorDictBase, *, trains_policy: bool) -> None:
        """What is done with a minibatch whose advantage is known."""

    def fit_batch(self, batch: TensorDictBase) -> None:
        """What is done after the updates of a batch."""


class InLoss:
    """A critic that MAPPO's loss fits, with OB where it reads the action and TorchRL's GAE where it does not."""

    def __init__(
        self,
        policy: ProbabilisticActor,
        critic: TensorDictModuleBase,
        env: EnvBase,
        *,
        lr: float,
        value_norm: nn.Module | None = None,
        **options: Any,
    ) -> None:
        """With the advantage's options; the value norm is that of a critic that has none itself."""
        self.loss = MAPPOLoss(
            policy,
            critic,
            value_norm=getattr(critic, "value_norm", value_norm),
            entropy_coeff=1e-4,
            normalize_advantage=True,
            normalize_advantage_exclude_dims=(-2,),
        )
        make = ObAdvantage if isinstance(critic, JointQCritic) else multi_agent_gae
        self.advantage = make(actor_network=policy, value_network=critic, **options)
        self.loss.make_value_estimator(self.advantage)
        self.loss.set_keys(value=critic.out_keys[0], reward=env.reward_key, action=env.action_key)
        self.optimizer = torch.optim.Adam(self.loss.parameters(), lr=lr)

    def fit_minibatch(self, minibatch: TensorDictBase, *, trains_policy: bool) -> None:
        """An update of the critic, and of the policy."""
        if trains_policy:
            out = self.loss(minibatch)
            total = out["loss_objective"] + out["loss_critic"] + out["loss_entropy"]
        else:
            total = self.loss.loss_critic(minibatch)[0].mean()
        total.backward()
        nn.utils.clip_grad_norm_(self.loss.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def fit_batch(self, batch: TensorDictBase) -> None:
        """Nothing."""


class Apart:
    """A dueling critic, fitted apart; it does not train the policy."""

    def __init__(
        self,
        policy: ProbabilisticActor,
        critic: DuelingCritic,
        env: EnvBase,
        *,
        fit: Mapping[str, Any],
        **options: Any,
    ) -> None:
        """With the options of the fit and of the advantage."""
        self.advantage = ObAdvantage(actor_network=policy, value_network=critic, **options)
        self.advantage.set_keys(reward=env.reward_key)
        self.fit_batch = DuelingFit(self.advantage, **fit)

    def fit_minibatch(self, minibatch: TensorDictBase, *, trains_policy: bool) -> None:
        """Nothing."""


def update(
    ways: Mapping[str, Way], batch: TensorDictBase, *, num_epochs: int, minibatch_size: int
) -> None:
    """One batch: every critic is fitted, and the policy trained by the first way."""
    steps = {name: way.advantage(batch.copy()).reshape(-1) for name, way in ways.items()}
    for _ in range(num_epochs):
        for index in torch.randperm(batch.numel()).split(minibatch_size):
            for place, (name, way) in enumerate(ways.items()):
                way.fit_minibatch(steps[name][index], trains_policy=place == 0)
    for way in ways.values():
        way.fit_batch(batch)
