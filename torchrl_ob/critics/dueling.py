"""A joint critic in which the variance of the state's value does not drown the action part."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl_ob.critics._inputs import Inputs
from torchrl_ob.critics.joint import JointQCritic
from torchrl_ob.critics.target_scale import Units

__all__ = ["DuelingCritic"]


class DuelingCritic(JointQCritic):
    r"""Joint critic in two parts that are fitted separately: :math:`Q_i(s, a) = V_i(s) + A_i(s, a)`.

    Returns differ far more between states than between actions, so a single network fitted to them learns the state's
    value and little about the action. Here, :class:`~torchrl_ob.DuelingFit` fits V to the returns less A, and A to
    short returns less V. No gradient of a loss reaches either part: build the loss with ``critic_coeff=0``. Until the
    first fit, Q is zero. (The form: Wang et al., "Dueling Network Architectures", ICML 2016, equation 7; fitting the
    advantage directly: Pan et al., "Direct Advantage Estimation", NeurIPS 2022. A is not centered: its mean over
    actions corrects V.)

    Arguments, keys and methods are those of :class:`~torchrl_ob.JointQCritic`; both parts use ``backbone``. There is
    no ``value_norm``: each part has its own units instead.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl_ob import DuelingCritic
        >>> critic = DuelingCritic(num_agents=3, observation_dim=4, action_dim=2)
        >>> agents = {"observation": torch.randn(5, 3, 4), "action": torch.randn(5, 3, 2)}
        >>> td = critic(TensorDict({"agents": agents}, batch_size=[5]))
        >>> total = critic.state_value(td) + critic.action_effect(td)
        >>> torch.equal(td["agents", "state_action_value"], total)
        True
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if options.get("value_norm") is not None:
            raise ValueError("a DuelingCritic keeps the units of its values: leave value_norm out.")
        super().__init__(*arguments, **options)
        # self.backbone is the action part
        self.value_backbone: Any = self.make_backbone(self.sizes._replace(action_dim=0, out_dim=1))
        if not hasattr(self.backbone, "last") or not hasattr(self.value_backbone, "last"):
            raise TypeError(
                f"a DuelingCritic rescales `last` of its backbone, which one of your own must name as `last`: {type(self.backbone).__name__} has none."
            )
        self.value_units, self.effect_units = Units(), Units()

    def state_value(self, tensordict: TensorDictBase) -> Tensor:
        """V of the states, ``[*B, n, 1]``.

        Args:
            tensordict: with the critic's inputs, of batch size ``[*B]``.
        """
        return self.value_units(self.value_output(tensordict))

    def action_effect(self, tensordict: TensorDictBase) -> Tensor:
        """A of the joint action, ``[*B, n, 1]``.

        Args:
            tensordict: with the critic's inputs, of batch size ``[*B]``.
        """
        return self.effect_units(self.effect_output(tensordict))

    def value_output(self, tensordict: TensorDictBase) -> Tensor:
        """V in its units: the output of its network, ``[*B, n, 1]``."""
        return self._of_batch(self._value_network, tensordict)

    def effect_output(self, tensordict: TensorDictBase) -> Tensor:
        """A of the joint action in its units: the output of its network, ``[*B, n, 1]``."""
        return self._of_batch(self._network, tensordict)

    @torch.no_grad()
    def _evaluate(self, inputs: Inputs) -> Tensor:
        """V and A added up."""
        value = self.value_units(self._value_network(inputs))
        return value + self.effect_units(self._network(inputs))

    def _value_network(self, inputs: Inputs) -> Tensor:
        """The output of the network of V, ``[N, n, 1]``."""
        observation, state = inputs.observation, inputs.state
        blank = observation.new_zeros(*observation.shape[:2], 0)
        values: Tensor = self.value_backbone(observation, state, blank)
        return values
