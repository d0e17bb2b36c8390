"""What an advantage is built from: options and networks, and the keys that TorchRL's losses hand to it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal

import torch
from tensordict import TensorDictBase, unravel_key
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.objectives.value import ValueEstimatorBase

from torchrl_ob._checks.arguments import NamedArguments, check_choice, check_whole_number
from torchrl_ob._checks.batch import sibling
from torchrl_ob.advantages._loss_networks import copy_network, live_network
from torchrl_ob.expectations.rules import ExpectationRule
from torchrl_ob.functional import GaussianPsi
from torchrl_ob.team import Team

Signal = Literal["lambda_return", "critic"]
Bootstrap = Literal["sampled", "expected", "control_variate"]

RELAYED = {"reward", "done", "terminated"}  # a loss or a trainer hands these on together


class TeamEstimator(NamedArguments, ValueEstimatorBase):
    """A value estimator of a team, which routes TorchRL's keys to it.

    Arguments, options and keys are described in :class:`~torchrl_ob.ObAdvantage`.
    """

    team: Team

    @dataclass
    class _AcceptedKeys:
        # TorchRL looks keys up in this class alone: those of ValueEstimatorBase stand here again
        advantage: NestedKey = "advantage"
        value_target: NestedKey = "value_target"
        value: NestedKey = "state_action_value"
        reward: NestedKey = "reward"
        done: NestedKey = "done"
        terminated: NestedKey = "terminated"
        steps_to_next_obs: NestedKey = "steps_to_next_obs"
        sample_log_prob: NestedKey = "sample_log_prob"
        action: NestedKey = "action"
        baseline: NestedKey = "baseline"
        mask: NestedKey = "mask"
        valid: NestedKey = ("collector", "mask")

    default_keys = _AcceptedKeys

    def __init__(
        self,
        *,
        actor_network: ProbabilisticTensorDictSequential,
        value_network: TensorDictModuleBase,
        gamma: float,
        lmbda: float,
        signal: Signal = "lambda_return",
        bootstrap: Bootstrap = "sampled",
        rule: ExpectationRule = "gauss",
        num_points: int | None = None,
        psi: GaussianPsi = "loc_scale",
        chunk_size: int | None = None,
        time_dim: int | None = None,
        other_actors: Sequence[ProbabilisticTensorDictSequential] = (),
        device: torch.device | None = None,
    ) -> None:
        """See the class for the arguments."""
        super().__init__(value_network=value_network, device=device)
        check_choice("signal", signal, Signal)
        check_choice("bootstrap", bootstrap, Bootstrap)
        check_choice("psi", psi, GaussianPsi)
        check_choice("rule", rule, ExpectationRule)
        for name, decay in (("gamma", gamma), ("lmbda", lmbda)):
            if not isinstance(decay, Real | Tensor) or isinstance(decay, bool):
                raise TypeError(f"{name} must be a number, got {decay!r}.")
            if not 0 <= decay <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {decay}.")
        check_whole_number("num_points", num_points, or_none=True)
        check_whole_number("chunk_size", chunk_size, or_none=True)
        check_whole_number("time_dim", time_dim, least=None, or_none=True)
        self.gamma, self.lmbda = gamma, lmbda
        self.signal, self.bootstrap = signal, bootstrap
        self.chunk_size, self.time_dim = chunk_size, time_dim
        self.named_reward: NestedKey | None = None  # the last that was named on purpose
        # no submodules, like the critic in TorchRL's estimators: the loss owns their parameters
        self.team = Team(
            actor_network, value_network, other_actors, rule=rule, num_points=num_points, psi=psi
        )
        self.dep_keys = {
            "action": self.team.action_key,
            "baseline": sibling(self.team.action_key, "baseline"),
            "mask": self.team.mask_key,
            "value": self.team.value_key,
        }
        self.set_keys()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy; within that of a loss, with the networks and parameters of the loss's copy."""
        for network in (self.team.critic, *self.team.actors):
            copy_network(network, memo)
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__setstate__(copy.deepcopy(self.__dict__, memo))
        return copied

    @classmethod
    def for_loss(cls, loss_module: Any, **hyperparams: Any) -> TeamEstimator:
        """Build the advantage for a loss: with its actor, its critic and the keys set so far.

        The networks are TorchRL's stateless templates with the loss's parameters, so that they
        follow its training.

        Args:
            loss_module: a TorchRL actor-critic loss.
            **hyperparams: the other arguments of the class.

        Returns:
            The advantage. Hand it to ``loss_module.make_value_estimator`` to attach it.

        Raises:
            TypeError: if the loss has no actor or no critic.
        """
        names = {"actor_network": "actor_network", "value_network": "critic_network"}
        for argument, name in names.items():
            if argument not in hyperparams:
                hyperparams[argument] = live_network(loss_module, name)
        advantage, relayed = cls(**hyperparams), ["advantage", "value_target", *RELAYED]
        if unravel_key(loss_module.tensor_keys.value) in advantage.value_network.out_keys:
            relayed.append("value")  # else the loss still has TorchRL's default
        keys = {name: getattr(loss_module.tensor_keys, name) for name in relayed}
        advantage.set_keys(**keys)
        return advantage

    def set_keys(self, **kwargs: Any) -> None:
        """Set tensordict keys; see the class for their names.

        Raises:
            ValueError: if the critic does not read the joint action, or reads an action that no
                actor given writes.
        """
        super().set_keys(**kwargs)
        keys = self.tensor_keys
        # a loss or a trainer relays the default reward where it was told of none: that names none
        relayed = set(kwargs) >= RELAYED and keys.reward == self.default_keys().reward
        if "reward" in kwargs and not relayed:
            self.named_reward = keys.reward
        of_team = {f"{x}_key": getattr(keys, x) for x in ("action", "value", "mask", "valid")}
        self.team = replace(self.team, **of_team)

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys that the advantage reads."""
        keys = self.tensor_keys
        states = [key for key in self.team.in_keys if key not in self.team.action_keys]
        following = [*states, keys.reward, keys.done, keys.terminated]
        following = [unravel_key(("next", key)) for key in following]
        return list(dict.fromkeys([*self.team.in_keys, *following]))

    @property
    def out_keys(self) -> list[NestedKey]:
        """Keys that the advantage writes."""
        keys = self.tensor_keys
        return [keys.advantage, keys.value_target, keys.baseline]

    def _require_named_reward(self, tensordict: TensorDictBase) -> None:
        """Refuse the default reward beside another that may be meant, where nobody named it."""
        key, named = self.tensor_keys.reward, self.named_reward
        if key == named or key != self.default_keys().reward:
            return
        for other in (named, sibling(self.tensor_keys.action, "reward")):
            if other is None or (other := unravel_key(other)) == key:
                continue
            entry, beside = (unravel_key(("next", x)) for x in (key, other))
            if any(tensordict.get(x, None) is None for x in (entry, beside)):
                continue
            raise ValueError(
                f"the batch has two rewards, {entry!r} and {beside!r}, and {key!r} is a default that nobody named. Name one with "
                f"set_keys(reward={other!r}), or reward={key!r}: on the advantage, on the loss after "
                "loss.make_value_estimator(advantage), which forwards no key set before, or as reward_key of a trainer."
            )

    def _critic_params(self, params: TensorDictBase | None) -> AbstractContextManager[Any]:
        if params is None:
            return nullcontext()
        return params.to_module(self.team.critic, preserve_module_state=False)
