"""Fits both parts of a dueling critic to a batch, apart from the policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from torchrl_ob._checks.batch import require_finite
from torchrl_ob._compile import CompiledOnMinibatches
from torchrl_ob.advantages.base import JointAdvantage
from torchrl_ob.critics.dueling import DuelingCritic
from torchrl_ob.critics.target_scale import Units

if TYPE_CHECKING:
    from torchrl.trainers import Trainer

__all__ = ["DuelingFit"]


class Part:
    """A part of the critic, and how it is fitted: by least squares, with an optimiser of its own.

    Args:
        output: of the part, in its units.
        units: of the part.
        backbone: its network.
        lr: learning rate at the start of a batch, which falls to zero.
        num_epochs: passes over a batch.
        compile: whether loss and gradient are compiled.
    """

    def __init__(
        self,
        output: Callable[[TensorDictBase], Tensor],
        units: Units,
        backbone: Any,
        *,
        lr: float,
        num_epochs: int,
        compile: bool,
    ) -> None:
        def loss(steps: TensorDictBase, target: Tensor) -> Tensor:
            return nn.functional.mse_loss(output(steps), target)

        parameters = list(backbone.parameters())
        self.output, self.units, self.last = output, units, backbone.last
        self.loss = CompiledOnMinibatches(loss, parameters) if compile else loss
        self.optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)
        self.lr, self.num_epochs = lr, num_epochs

    def fit(self, steps: TensorDictBase, target: Tensor, minibatch_size: int) -> Tensor:
        """Fit the part to targets ``[N, n, 1]``; the share of their variance that it explained before."""
        with torch.no_grad():
            explained = 1 - (target - self.units(self.output(steps))).var() / target.var()
        if self.num_epochs:  # else it stays as it is
            target = self.units.follow(target, self.last)
        orders = [torch.randperm(len(target), device=target.device) for _ in range(self.num_epochs)]
        minibatches = [index for order in orders for index in order.split(minibatch_size)]
        for done, index in enumerate(minibatches):
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * (1 - done / len(minibatches))
            self.loss(steps[index], target[index]).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()  # the optimiser of the loss has these parameters too
        return explained


class DuelingFit:
    r"""Fits V of a :class:`~torchrl_ob.DuelingCritic` to returns, and A to the part of short returns beyond V.

    .. math::
        \min_V E\big[(V_i(s) - (G_i - A_i(s, a)))^2\big], \qquad
        \min_A E\big[(A_i(s, a) - (G'_i - V_i(s)))^2\big]

    Here G is the return of the advantage, and G' is the same with control variates and a small λ: over little more
    than one step, later actions do not yet mask the effect of an action. V is fitted slowly: at five times the
    learning rate its error is smaller, but the error is the same for all samples of the next batches and turns their
    mean gradient away from the true one. (A separate phase for the value: Cobbe et al., "Phasic Policy Gradient",
    ICML 2021.)

    Call it with each batch after the updates of the actor, so that the critic is used on data that it was not fitted
    to. ``DuelingFit(advantage).register(trainer)`` makes TorchRL's trainer do so.

    Args:
        advantage: an advantage of the joint action whose critic is a :class:`~torchrl_ob.DuelingCritic`.

    Keyword Args:
        lmbda: trace decay λ of the short return G'.
        value_lr: learning rate of Adam for V at the start of a batch.
        effect_lr: the same for A.
        value_epochs: passes of V over a batch.
        effect_epochs: passes of A over a batch; with none, A stays zero and Q is a state value.
        minibatch_size: in steps.
        compile: whether losses and gradients are compiled, once for each size of minibatch.

    Raises:
        TypeError: for another critic.

    Example:
        >>> from torchrl.envs import VmasEnv  # needs vmas
        >>> from torchrl_ob import DuelingCritic, DuelingFit, ObAdvantage
        >>> from torchrl_ob.policies import policy_from_env
        >>> env = VmasEnv("balance", num_envs=4)
        >>> policy, critic = policy_from_env(env), DuelingCritic.from_env(env)
        >>> advantage = ObAdvantage(
        ...     actor_network=policy, value_network=critic, gamma=0.99, lmbda=0.9
        ... )
        >>> advantage.set_keys(reward=env.reward_key)
        >>> fit = DuelingFit(advantage, value_epochs=1, effect_epochs=1)
        >>> sorted(fit(env.rollout(5, policy)))
        ['critic/effect_explained', 'critic/effect_scale', 'critic/value_explained', 'critic/value_scale']
    """

    def __init__(
        self,
        advantage: JointAdvantage,
        *,
        lmbda: float = 0.5,
        value_lr: float = 6e-4,
        effect_lr: float = 3e-3,
        value_epochs: int = 15,
        effect_epochs: int = 15,
        minibatch_size: int = 400,
        compile: bool = False,
    ) -> None:
        critic = getattr(advantage, "value_network", None)
        if not isinstance(critic, DuelingCritic):
            raise TypeError(
                "DuelingFit takes an advantage whose value_network is a DuelingCritic; "
                f"{type(advantage).__name__} has {type(critic).__name__}."
            )
        self.advantage, self.critic = advantage, critic
        self.lmbda, self.minibatch_size = lmbda, minibatch_size
        value = critic.value_output, critic.value_units, critic.value_backbone
        effect = critic.effect_output, critic.effect_units, critic.backbone
        self.value = Part(*value, lr=value_lr, num_epochs=value_epochs, compile=compile)
        self.effect = Part(*effect, lr=effect_lr, num_epochs=effect_epochs, compile=compile)

    def __call__(self, batch: TensorDictBase) -> dict[str, Tensor]:
        """Fit V, then A, to a batch.

        Args:
            batch: trajectories, ``[*B, T]``, as for the advantage; it is not changed.

        Returns:
            ``critic/value_explained`` and ``critic/effect_explained``, the share of the variance of its targets that
            each part explained before it was fitted to them, and ``critic/value_scale`` and
            ``critic/effect_scale``, the units of both.
        """
        steps = self._flat(batch, batch.select(*self.critic.in_keys).detach())
        value = self.value.fit(steps, self.value_target(batch), self.minibatch_size)
        effect = self.effect.fit(steps, self.effect_target(batch), self.minibatch_size)
        return {
            "critic/value_explained": value,
            "critic/effect_explained": effect,
            "critic/value_scale": self.value.units.scale.clone(),
            "critic/effect_scale": self.effect.units.scale.clone(),
        }

    @torch.no_grad()
    def value_target(self, batch: TensorDictBase) -> Tensor:
        """The returns that V is fitted to, less the effect A of the action, ``[N, n, 1]``."""
        returns = self.advantage.value_estimate(batch)
        return self._target(batch, returns - self.critic.action_effect(batch))

    @torch.no_grad()
    def effect_target(self, batch: TensorDictBase) -> Tensor:
        """Short returns less V, ``[N, n, 1]``."""
        short = self.advantage.value_estimate(batch, lmbda=self.lmbda, bootstrap="control_variate")
        return self._target(batch, short - self.critic.state_value(batch))

    def _target(self, batch: TensorDictBase, target: Tensor) -> Tensor:
        target, message = self._flat(batch, target), "what the critic is fitted to is not finite"
        if target.numel() < 2:
            raise ValueError(
                f"a critic is fitted to two returns or more: the batch of size {list(batch.batch_size)} has "
                f"{target.numel()}. Collect longer, or from several environments."
            )
        require_finite(target, f"{message}: see the critic's inputs.")
        return target

    def _flat(self, batch: TensorDictBase, entries: Any) -> Any:
        """The steps of a batch one after another, without padding."""
        valid = self.advantage.team.valid(batch)
        return entries.flatten(0, batch.ndim - 1) if valid is None else entries[valid]

    def state_dict(self) -> dict[str, Any]:
        """The optimisers'."""
        parts = {"value": self.value, "effect": self.effect}
        return {name: part.optimizer.state_dict() for name, part in parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The optimisers'."""
        self.value.optimizer.load_state_dict(state_dict["value"])
        self.effect.optimizer.load_state_dict(state_dict["effect"])

    def register(self, trainer: Trainer, name: str = "dueling_fit") -> None:
        """Add the hook to a trainer, after the updates of each batch."""
        trainer.register_op("post_steps_log", self)
        trainer.register_module(name, self)
