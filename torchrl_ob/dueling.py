"""A joint critic whose action part is not drowned by the variance of the state's value."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl_ob.backbones import Others
from torchrl_ob.critics import JointQCritic

__all__ = ["DuelingCritic"]


class DuelingCritic(JointQCritic):
    r"""Joint critic in two parts, each with targets of its own: :math:`Q_i(s, a) = V_i(s) + A_i(s, a)`.

    Returns differ by far more between states than between actions, so that a single network fitted to them
    learns the state's value and little of the action. Here V is fitted to the returns by the loss, through
    which no gradient reaches A, and A to what V leaves of short returns, by
    :class:`~torchrl_ob.ActionEffectFit`, with an optimiser and a scale of its own. Until then A is zero: every baseline is
    a state value. (The form: Wang et al., "Dueling Network Architectures", ICML 2016, equation 7; fitting the
    advantage directly: Pan et al., "Direct Advantage Estimation", NeurIPS 2022. A is not centred: its mean
    over actions corrects V.)

    Arguments, keys and methods are those of :class:`~torchrl_ob.JointQCritic`; ``backbone`` is that of both
    parts. With a ``value_norm``, V works in normalised values.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl_ob import DuelingCritic
        >>> critic = DuelingCritic(num_agents=3, observation_dim=4, action_dim=2)
        >>> agents = {"observation": torch.randn(5, 3, 4), "action": torch.randn(5, 3, 2)}
        >>> td = critic(TensorDict({"agents": agents}, batch_size=[5]))
        >>> torch.equal(td["agents", "state_action_value"], critic.state_value(td))  # A is not fitted yet
        True
    """

    scale: Tensor

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # self.backbone is the action part
        self.value_backbone = self.make_backbone(self.sizes._replace(action_dim=0, out_dim=1))
        self.register_buffer("scale", torch.zeros(()))

    def state_value(self, tensordict: TensorDictBase) -> Tensor:
        """V of the states, ``[*B, n, 1]``.

        Args:
            tensordict: with the critic's inputs, of batch size ``[*B]``.
        """
        observation, state, _ = self._inputs(tensordict)
        values = self._in_chunks(self._state_value, 1, observation, state)
        return values.reshape(*tensordict.batch_size, *values.shape[1:])

    def action_effect(self, tensordict: TensorDictBase) -> Tensor:
        """A of the joint action, before it is multiplied by ``scale``, ``[*B, n, 1]``.

        Args:
            tensordict: with the critic's inputs, of batch size ``[*B]``.
        """
        effects = self._in_chunks(self._network, 1, *self._inputs(tensordict))
        return effects.reshape(*tensordict.batch_size, *effects.shape[1:])

    def _evaluate(
        self,
        observation: Tensor,
        state: Tensor,
        action: Tensor,
        own: Tensor | None,
        others: Others | None,
    ) -> Tensor:
        """V and A added up; the gradient is that of V."""
        with torch.no_grad():
            effect = self.scale * self._network(observation, state, action, own, others)
        return self._state_value(observation, state) + effect

    def _state_value(self, observation: Tensor, state: Tensor) -> Tensor:
        """V, ``[N, n, 1]``."""
        blank = observation.new_zeros(*observation.shape[:2], 0)
        return self._denormalized(self.value_backbone(observation, state, blank).squeeze(-1))
