"""What an advantage knows of its team: networks, keys and rule of expectation."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from tensordict import TensorDictBase, unravel_key
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torch import distributions as D
from torchrl.objectives.value import ValueEstimatorBase

from torchrl_ob._checks.arguments import check_arguments
from torchrl_ob._checks.batch import require_only_reward, sibling
from torchrl_ob._checks.pointwise import is_pointwise_in_time
from torchrl_ob.advantages._loss_networks import copy_network, live_network
from torchrl_ob.advantages._options import Bootstrap, Signal, check_options
from torchrl_ob.expectations.antithetic import antithetic_pair
from torchrl_ob.expectations.candidates import Candidates
from torchrl_ob.expectations.lines import ExpectationRule
from torchrl_ob.expectations.quadrature import Measure
from torchrl_ob.functional import GaussianPsi
from torchrl_ob.team import (
    action_key_of,
    flat_parameters,
    inputs_of,
    joint_value,
    own_action_values,
    require_joint_critic,
    team_candidates,
    team_policy,
)

__all__ = ["TeamEstimator"]

RELAYED = {"reward", "done", "terminated"}  # a loss or a trainer hands these on together


class TeamEstimator(ValueEstimatorBase):
    """A value estimator that asks the actors and the joint critic of a team, and routes its keys.

    Arguments, options and keys are described in :class:`~torchrl_ob.ObAdvantage`.
    """

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

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Refuse wrong arguments by the name of the class; a copy is made without any."""
        if args or kwargs:
            check_arguments(cls, args, kwargs)
        return super().__new__(cls)

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
        check_options(
            signal=signal,
            bootstrap=bootstrap,
            rule=rule,
            psi=psi,
            gamma=gamma,
            lmbda=lmbda,
            num_points=num_points,
            chunk_size=chunk_size,
            time_dim=time_dim,
        )
        # like the critic, not a submodule: the loss owns its parameters
        self.__dict__["actor_network"] = actor_network
        self.__dict__["other_actors"] = tuple(other_actors)
        self.gamma, self.lmbda = gamma, lmbda
        self.signal, self.bootstrap = signal, bootstrap
        self.rule, self.num_points, self.psi = rule, num_points, psi
        self.chunk_size, self.time_dim = chunk_size, time_dim
        self.named_reward: NestedKey | None = None  # the last that was named on purpose
        self.known_pointwise = False  # whether no network has a memory in time
        action, *self.other_action_keys = map(action_key_of, (actor_network, *other_actors))
        if not getattr(value_network, "in_keys", None):
            raise TypeError(
                f"value_network must be a tensordict module; {type(value_network).__name__} has no "
                "in_keys. Wrap it in a TensorDictModule."
            )
        self.dep_keys = {
            "action": action,
            "baseline": sibling(action, "baseline"),
            "mask": sibling(action, "mask"),
            "value": unravel_key(value_network.out_keys[0]),
        }
        self.set_keys()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy; within that of a loss, with the networks and parameters of the loss's copy."""
        for network in (self.actor_network, self.value_network, *self.other_actors):
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
            TypeError: where the loss has no actor or no critic.
        """
        names = {"actor_network": "actor_network", "value_network": "critic_network"}
        for argument, name in names.items():
            if argument not in hyperparams:
                hyperparams[argument] = live_network(loss_module, name)
        advantage = cls(**hyperparams)
        relayed = ("advantage", "value_target", *RELAYED)
        keys = {name: getattr(loss_module.tensor_keys, name) for name in relayed}
        value = unravel_key(loss_module.tensor_keys.value)
        if value in advantage.value_network.out_keys:  # else the loss still has TorchRL's default
            keys["value"] = value
        advantage.set_keys(**keys)
        return advantage

    def set_keys(self, **kwargs: Any) -> None:
        """Set tensordict keys; see the class for their names.

        Raises:
            ValueError: where the critic does not read the joint action, or reads an action that no
                actor given writes.
        """
        super().set_keys(**kwargs)
        # a loss or a trainer relays the default reward where it was told of none: that names none
        relayed = set(kwargs) >= RELAYED and self.tensor_keys.reward == self.default_keys().reward
        if "reward" in kwargs and not relayed:
            self.named_reward = self.tensor_keys.reward
        require_joint_critic(self.value_network, self.tensor_keys.action, self.other_action_keys)

    def require_named_reward(self, tensordict: TensorDictBase) -> None:
        """Refuse the default reward beside another one, where nobody named it."""
        key = self.tensor_keys.reward
        if key == self.default_keys().reward and key != self.named_reward:
            others = (self.named_reward, sibling(self.tensor_keys.action, "reward"))
            require_only_reward(tensordict, key, [other for other in others if other is not None])

    def require_pointwise(self, tensordict: TensorDictBase, time_dim: int) -> None:
        """Refuse networks with a memory in time, once, where something can be told."""
        if self.known_pointwise or torch.compiler.is_compiling():
            return
        inputs = tensordict.select(*self.network_keys, *self.action_keys, strict=False)
        asked: list[tuple[str, Any, Any]] = [
            ("the actor", actor, partial(flat_parameters, actor))
            for actor in (self.actor_network, *self.other_actors)
        ]
        asked.append(("the critic", self.value_network, self.action_value))
        known = [
            is_pointwise_in_time(evaluate, network, inputs, time_dim=time_dim, name=name)
            for name, network, evaluate in asked
        ]
        self.known_pointwise = all(known)

    @property
    def action_keys(self) -> list[NestedKey]:
        """Where the actions of this group are, and those of the others."""
        return [self.tensor_keys.action, *self.other_action_keys]

    @property
    def _read_keys(self) -> list[NestedKey]:
        actors = (self.actor_network, *self.other_actors)
        read = [*self.value_network.in_keys, *(key for actor in actors for key in inputs_of(actor))]
        return list(dict.fromkeys(map(unravel_key, read)))

    @property
    def network_keys(self) -> list[NestedKey]:
        """What the networks read beside the actions."""
        return [key for key in self._read_keys if key not in self.action_keys]

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys that the advantage reads."""
        keys = self.tensor_keys
        following = [*self.network_keys, keys.reward, keys.done, keys.terminated]
        following = [("next", *(key if isinstance(key, tuple) else (key,))) for key in following]
        return list(dict.fromkeys([*self._read_keys, *following]))

    @property
    def out_keys(self) -> list[NestedKey]:
        """Keys that the advantage writes."""
        return [
            self.tensor_keys.advantage,
            self.tensor_keys.value_target,
            self.tensor_keys.baseline,
        ]

    def policy(self, tensordict: TensorDictBase) -> D.Distribution:
        """The agents' policies, one distribution of batch shape ``[*B, n]``."""
        return team_policy(self.actor_network, tensordict)

    def candidates(self, tensordict: TensorDictBase, measure: Measure | None = None) -> Candidates:
        """Candidate own actions of every agent, by the ``rule``, ``num_points`` and ``psi`` given.

        Args:
            tensordict: the actor's inputs, of batch size ``[*B]``.
            measure: which of their weights will be used; both by default.
        """
        return team_candidates(self.actor_network, tensordict, measure=measure, **self._rule)

    def action_value(self, tensordict: TensorDictBase, action: Tensor | None = None) -> Tensor:
        """Q of the joint action that was taken, or of another one, ``[*B, n, 1]``."""
        return joint_value(self.value_network, tensordict, action=action, **self._critic_keys)

    def candidate_values(
        self, tensordict: TensorDictBase, candidates: Tensor, action: Tensor | None = None
    ) -> Tensor:
        """Q of alternative own actions, the others' held as taken or as in ``action``: ``[*B, n, K]``."""
        return own_action_values(
            self.value_network, tensordict, candidates, action=action, **self._critic_keys
        )

    @property
    def _critic_keys(self) -> dict[str, NestedKey]:
        return {"action_key": self.tensor_keys.action, "value_key": self.tensor_keys.value}

    @property
    def _rule(self) -> dict[str, Any]:
        return {"rule": self.rule, "num_points": self.num_points, "psi": self.psi}

    def state_value(self, tensordict: TensorDictBase) -> Tensor:
        """V, the policies' expectation of Q, without bias: its mean over an antithetic pair of joint actions.

        Args:
            tensordict: inputs of the actors and the critic, of batch size ``[*B]``; ``[*B, n, 1]`` is returned.
        """
        pairs = [
            antithetic_pair(team_policy(actor, tensordict))
            for actor in (self.actor_network, *self.other_actors)
        ]
        values = []
        for action, *others in zip(*pairs, strict=True):
            drawn = tensordict
            for key, other in zip(self.other_action_keys, others, strict=True):
                drawn = drawn.copy().set(key, other)
            values.append(self.action_value(drawn, action))
        return torch.stack(values).mean(0)

    def with_other_actions(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The same entries with actions of the other groups as their current policies draw them."""
        drawn = tensordict.copy()
        for actor, key in zip(self.other_actors, self.other_action_keys, strict=True):
            drawn.set(key, team_policy(actor, tensordict).sample())
        return drawn

    def _critic_params(self, params: TensorDictBase | None) -> AbstractContextManager[Any]:
        if params is None:
            return nullcontext()
        return params.to_module(self.value_network, preserve_module_state=False)
