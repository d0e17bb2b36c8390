"""Fitting the action part of a dueling critic, after the state's value has been fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from torchrl_ob.dueling import DuelingCritic
from torchrl_ob.joint_advantage import JointAdvantage
from torchrl_ob.reading import require_finite

if TYPE_CHECKING:
    from torchrl.trainers import Trainer

__all__ = ["ActionEffectFit"]

INERTIA = 0.7
"""How much of the scale of the action part is kept from one batch to the next."""


class ActionEffectFit:
    r"""Fits A of a :class:`~torchrl_ob.DuelingCritic` to what V leaves of short returns.

    .. math::
        \min_A E\big[(A_i(s, a) - (G_i - V_i(s)))^2\big]

    with G the return of the advantage with control variates and a small λ: near one step, where the effect
    of an action is not yet buried under that of later ones. The residual is divided by its standard deviation,
    and A's outputs stay as they are when that changes (as in van Hasselt et al., "Learning values across many
    orders of magnitude", NeurIPS 2016, section 2.2).

    Call it with each batch after the updates of actor and critic, so that A is used on data that it was not fitted on;
    ``ActionEffectFit(advantage).register(trainer)`` has TorchRL's trainer do so.

    Args:
        advantage: an advantage of the joint action whose critic is a :class:`~torchrl_ob.DuelingCritic`.

    Keyword Args:
        lmbda: trace decay λ of the return.
        lr: learning rate, of Adam.
        num_epochs: passes over a batch; with none A stays zero, and Q is a state value.
        minibatch_size: in steps.

    Raises:
        TypeError: for another critic.

    Example:
        >>> from torchrl.envs import VmasEnv  # needs vmas
        >>> from torchrl_ob import ActionEffectFit, DuelingCritic, ObAdvantage
        >>> from torchrl_ob.policies import policy_from_env
        >>> env = VmasEnv("balance", num_envs=4)
        >>> policy, critic = policy_from_env(env), DuelingCritic.from_env(env)
        >>> advantage = ObAdvantage(
        ...     actor_network=policy, value_network=critic, gamma=0.99, lmbda=0.9
        ... )
        >>> advantage.set_keys(reward=env.reward_key)
        >>> fit = ActionEffectFit(advantage, num_epochs=1)
        >>> sorted(fit(env.rollout(5, policy)))
        ['critic/effect_explained', 'critic/effect_scale']
    """

    def __init__(
        self,
        advantage: JointAdvantage,
        *,
        lmbda: float = 0.5,
        lr: float = 1e-3,
        num_epochs: int = 10,
        minibatch_size: int = 400,
    ) -> None:
        critic = advantage.value_network
        if not isinstance(critic, DuelingCritic):
            raise TypeError(
                f"the advantage's critic is a {type(critic).__name__}, which has no action part of its own: "
                "take DuelingCritic."
            )
        self.advantage, self.critic, self.lmbda = advantage, critic, lmbda
        self.num_epochs, self.minibatch_size = num_epochs, minibatch_size
        self.optimizer = torch.optim.Adam(critic.backbone.parameters(), lr=lr)

    def __call__(self, batch: TensorDictBase) -> dict[str, Tensor]:
        """Fit A to a batch.

        Args:
            batch: trajectories, ``[*B, T]``, as for the advantage; it is not changed.

        Returns:
            ``critic/effect_explained``, the share of the residual's variance that A explained before it was
            fitted to this batch, and ``critic/effect_scale``, the residual's standard deviation.
        """
        critic = self.critic
        with torch.no_grad():
            residual = self.residual(batch).flatten(0, batch.ndim - 1)
            steps = batch.select(*critic.in_keys).reshape(-1)
            before = critic.scale * critic.action_effect(steps)
            explained = 1 - (residual - before).var() / residual.var()
            if self.num_epochs:
                self._rescale(residual.std())
            target = residual / critic.scale
        for _ in range(self.num_epochs):
            order = torch.randperm(len(target), device=target.device)
            for index in order.split(self.minibatch_size):
                effect = critic.action_effect(steps[index])
                nn.functional.mse_loss(effect, target[index]).backward()
                self.optimizer.step()
                self.optimizer.zero_grad()  # the loss's optimiser has these parameters too
        return {"critic/effect_explained": explained, "critic/effect_scale": critic.scale.clone()}

    def residual(self, batch: TensorDictBase) -> Tensor:
        """What V leaves of the return, ``[*B, T, n, 1]``."""
        short = self.advantage.value_estimate(batch, lmbda=self.lmbda, bootstrap="control_variate")
        residual = short - self.critic.state_value(batch)
        require_finite(
            residual, "what V leaves of the return is not finite: see the critic's inputs."
        )
        return residual

    def _rescale(self, deviation: Tensor) -> None:
        """Move the scale towards a deviation, with A's outputs as they are."""
        scale, last = self.critic.scale, self.critic.backbone.tail[-1]
        tiny = torch.finfo(scale.dtype).tiny
        moved = torch.where(scale > 0, INERTIA * scale + (1 - INERTIA) * deviation, deviation)
        moved = moved.clamp(min=tiny)  # where nothing is left, A stays as it is
        ratio = torch.where(scale > 0, scale / moved, 1)
        for parameter in last.parameters():
            parameter.mul_(ratio)
        scale.copy_(moved)

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The optimiser's."""
        self.optimizer.load_state_dict(state_dict)

    def register(self, trainer: Trainer, name: str = "action_effect_fit") -> None:
        """Add the hook to a trainer, after the updates of each batch."""
        trainer.register_op("post_steps_log", self)
        trainer.register_module(name, self)
