"""What the benchmarks of critics share: rollouts, and critics fitted side by side while the first trains the policy."""

from collections import deque
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.envs import EnvBase, ExplorationType, set_exploration_type
from torchrl.modules import PopArtValueNorm, ProbabilisticActor
from torchrl.objectives.multiagent import MAPPOLoss

from torchrl_ob import ActionEffectFit, JointQCritic, ObAdvantage


def collect(env: EnvBase, policy: ProbabilisticActor, num_steps: int) -> TensorDictBase:
    """A batch of trajectories, ``[envs, steps]``."""
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        return env.rollout(num_steps, policy, break_when_any_done=False)


class Way:
    """A critic with MAPPO's loss, OB and an optimiser, and the fit of its action part where it has one."""

    def __init__(
        self,
        env: EnvBase,
        policy: ProbabilisticActor,
        kind: type[JointQCritic],
        *,
        lr: float,
        effect: float | None = None,
        num_batches: int = 1,
        critic: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Of this critic, its action part fitted to returns with λ = ``effect`` of the last batches.

        ``critic`` has the critic's options; the others are the advantage's.
        """
        network = kind.from_env(env, value_norm=PopArtValueNorm(shape=1), **(critic or {}))
        self.loss = MAPPOLoss(
            policy,
            network,
            value_norm=network.value_norm,
            entropy_coeff=1e-4,
            normalize_advantage=True,
            normalize_advantage_exclude_dims=(-2,),
        )
        self.advantage = ObAdvantage(actor_network=policy, value_network=network, **options)
        self.loss.make_value_estimator(self.advantage)
        self.loss.set_keys(value=network.out_keys[0], reward=env.reward_key, action=env.action_key)
        self.optimizer = torch.optim.Adam(self.loss.parameters(), lr=lr)
        self.fit = None if effect is None else ActionEffectFit(self.advantage, lmbda=effect)
        self.batches: deque[TensorDictBase] = deque(maxlen=num_batches)

    def step(self, total: Tensor) -> None:
        """A minibatch update."""
        total.backward()
        nn.utils.clip_grad_norm_(self.loss.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def fit_effect(self, batch: TensorDictBase) -> None:
        """Fit the action part to the last batches."""
        if self.fit is not None:
            self.batches.append(batch.select(*self.advantage.in_keys))
            self.fit(torch.cat(list(self.batches)))


def update(
    ways: dict[str, Way], batch: TensorDictBase, *, num_epochs: int, minibatch_size: int
) -> None:
    """One batch: every critic is fitted, and the policy trained by the first way."""
    steps = {name: way.advantage(batch.copy()).reshape(-1) for name, way in ways.items()}
    for _ in range(num_epochs):
        for index in torch.randperm(batch.numel()).split(minibatch_size):
            for place, (name, way) in enumerate(ways.items()):
                minibatch = steps[name][index]
                if place == 0:
                    out = way.loss(minibatch)
                    way.step(out["loss_objective"] + out["loss_critic"] + out["loss_entropy"])
                else:
                    way.step(way.loss.loss_critic(minibatch)[0].mean())
    for way in ways.values():
        way.fit_effect(batch)
