"""What the advantages share: the return of the joint critic, less a baseline over candidates."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from tensordict import TensorDictBase, unravel_key
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase, dispatch
from tensordict.utils import NestedKey
from torch import Tensor
from torch import distributions as D
from torchrl.objectives.value import ValueEstimatorBase

from torchrl_ob.candidates import Candidates
from torchrl_ob.cubature import ExpectationRule
from torchrl_ob.evaluation import (
    acting_parameters,
    action_key_of,
    joint_value,
    own_action_values,
    require_joint_critic,
    team_candidates,
    team_policy,
)
from torchrl_ob.functional import (
    GaussianPsi,
    control_variate,
    lambda_return,
    weighted_baseline,
)
from torchrl_ob.gauss import Measure
from torchrl_ob.loss_networks import live_network
from torchrl_ob.options import Bootstrap, Signal, check_options
from torchrl_ob.pairs import antithetic_pair
from torchrl_ob.reading import (
    active_agents,
    next_of,
    per_agent,
    require_finite,
    require_time,
    select,
    sibling,
)

__all__ = ["JointAdvantage"]


class JointAdvantage(ValueEstimatorBase):
    r"""Base of the advantages: a return of the joint critic, less a baseline over candidates.

    The value target is the :func:`~torchrl_ob.functional.lambda_return` of Q, the next action from
    the current policy. Arguments, options and keys are described in :class:`~torchrl_ob.ObAdvantage`.
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

    default_keys = _AcceptedKeys
    _weights: ClassVar[Literal["optimal_weights", "probabilities"] | None]
    """Which weights of the candidates make the baseline; None for no baseline."""

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
            chunk_size=chunk_size,
        )
        # like the critic, not a submodule: the loss owns its parameters
        self.__dict__["actor_network"] = actor_network
        self.__dict__["other_actors"] = tuple(other_actors)
        self.gamma, self.lmbda = gamma, lmbda
        self.signal, self.bootstrap = signal, bootstrap
        self.rule, self.num_points, self.psi = rule, num_points, psi
        self.chunk_size, self.time_dim = chunk_size, time_dim
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

    @classmethod
    def for_loss(cls, loss_module: Any, **hyperparams: Any) -> JointAdvantage:
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
        for argument, name in (
            ("actor_network", "actor_network"),
            ("value_network", "critic_network"),
        ):
            if argument not in hyperparams:
                hyperparams[argument] = live_network(loss_module, name)
        advantage = cls(**hyperparams)
        names = ("advantage", "value_target", "reward", "done", "terminated")
        keys = {name: getattr(loss_module.tensor_keys, name) for name in names}
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
        require_joint_critic(self.value_network, self.tensor_keys.action, self.other_action_keys)

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys that the advantage reads."""
        keys, actors = self.tensor_keys, (self.actor_network, *self.other_actors)
        read = [*self.value_network.in_keys, *(key for actor in actors for key in actor.in_keys)]
        actions = (keys.action, *self.other_action_keys)
        following = [key for key in map(unravel_key, read) if key not in actions]
        following += [keys.reward, keys.done, keys.terminated]
        read += [("next", *(key if isinstance(key, tuple) else (key,))) for key in following]
        return list(dict.fromkeys(map(unravel_key, read)))

    @property
    def out_keys(self) -> list[NestedKey]:
        """Keys that the advantage writes."""
        return [
            self.tensor_keys.advantage,
            self.tensor_keys.value_target,
            self.tensor_keys.baseline,
        ]

    @dispatch
    def forward(
        self,
        tensordict: TensorDictBase,
        *,
        params: TensorDictBase | None = None,
        target_params: TensorDictBase | None = None,
    ) -> TensorDictBase:
        """Write the advantage, the value target and the baseline, each ``[*B, T, n, 1]``.

        Args:
            tensordict: a batch of trajectories, ``[*B, T]``; nothing else in it is changed.

        Keyword Args:
            params: parameters of the critic, where it is functional.
            target_params: parameters of the critic for the next states; ``params`` by default.

        Returns:
            The input.

        Raises:
            KeyError: for a missing key.
            ValueError: for a wrong shape.
            RuntimeError: for observations, rewards, probabilities or values of the critic that
                are not finite.
        """
        keys = self.tensor_keys
        with torch.no_grad():
            value_target = self.value_estimate(
                tensordict, target_params=params if target_params is None else target_params
            )
            with self._critic_params(params):
                signal, baseline = value_target, torch.zeros_like(value_target)
                chunks = tensordict.split(self._trajectories_per_chunk(tensordict))
                if self.signal == "critic":
                    signal = torch.cat([self.action_value(chunk) for chunk in chunks])
                if self._weights is not None:
                    baseline = torch.cat([self._baseline(chunk) for chunk in chunks])
        advantage, active = signal - baseline, self.active(tensordict)
        if active is not None:
            advantage = torch.where(active.unsqueeze(-1), advantage, 0)
        tensordict.set(keys.advantage, advantage)
        tensordict.set(keys.value_target, value_target)
        tensordict.set(keys.baseline, baseline)
        return tensordict

    def value_estimate(
        self,
        tensordict: TensorDictBase,
        target_params: TensorDictBase | None = None,
        next_value: Tensor | None = None,
        time_dim: int | None = None,
        *,
        lmbda: float | None = None,
        bootstrap: Bootstrap | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The λ-return of Q, ``[*B, T, n, 1]``.

        Args:
            tensordict: a batch of trajectories, ``[*B, T]``.
            target_params: parameters of the critic, where it is functional.
            next_value: Q of the next states and actions, ``[*B, T, n, 1]``, where it is known.
            time_dim: the dimension of the input that is time.
            lmbda: another trace decay than that of the advantage.
            bootstrap: another one than that of the advantage.
            **kwargs: none; here for compatibility with TorchRL's estimators.
        """
        if kwargs:
            raise TypeError(f"value_estimate takes no arguments {sorted(kwargs)}.")
        if tensordict.get(self.tensor_keys.steps_to_next_obs, None) is not None:
            raise ValueError(
                f"the tensordict has {self.tensor_keys.steps_to_next_obs!r}: its rewards are sums "
                "over several steps, which the λ-return would count again. Remove MultiStep."
            )
        if time_dim is None and self.time_dim is None:
            require_time(tensordict)
        bootstrap = bootstrap or self.bootstrap
        with torch.no_grad():
            if next_value is None:
                with self._critic_params(target_params):
                    chunks = next_of(tensordict).split(self._trajectories_per_chunk(tensordict))
                    next_value = torch.cat([self._bootstrap_value(x, bootstrap) for x in chunks])
            reward, done, terminated = (
                per_agent(tensordict, getattr(self.tensor_keys, name), name, next_value)
                for name in ("reward", "done", "terminated")
            )
            decay: dict[str, Any] = {
                "gamma": self.gamma,
                "lmbda": self.lmbda if lmbda is None else lmbda,
                "time_dim": self._get_time_dim(time_dim, tensordict),
            }
            if bootstrap == "control_variate":
                with self._critic_params(target_params):
                    chunks = tensordict.split(self._trajectories_per_chunk(tensordict))
                    value = torch.cat([self.action_value(chunk) for chunk in chunks])
                reward = reward + control_variate(next_value, value, done, terminated, **decay)
            target = lambda_return(reward, next_value, done, terminated, **decay)
            require_finite(
                target, f"the return is not finite: the reward {self.tensor_keys.reward!r} has NaN."
            )
            return target

    def _trajectories_per_chunk(self, tensordict: TensorDictBase) -> int:
        """How many entries of the first dimension hold ``chunk_size`` steps of one agent."""
        key = self.tensor_keys.action
        action = select(tensordict, [key], "the critic").get(key)
        if tensordict.ndim < 2 or self._get_time_dim(None, tensordict) == 0:
            return max(1, len(tensordict))  # a single trajectory is not cut
        steps = action.shape[1 : tensordict.ndim + 1].numel()
        chunk_size = self.chunk_size or (9_000 if action.device.type == "cpu" else 36_000)
        return max(1, chunk_size // max(1, steps))

    def active(self, tensordict: TensorDictBase) -> Tensor | None:
        """Which agents take part, ``[*B, n]``: those alive, with a choice; ``None`` where all do.

        A mask with more dimensions, such as ``[*B, n, A]``, is one of actions, and says nothing here.

        Raises:
            ValueError: for a mask of another shape.
        """
        return active_agents(tensordict, self.tensor_keys.mask, self.tensor_keys.action)

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

    def _baseline(self, tensordict: TensorDictBase) -> Tensor:
        """The baseline of every agent, ``[*B, T, n, 1]``."""
        psi, options = acting_parameters(self.actor_network, tensordict), self._rule
        candidates = team_candidates(
            self.actor_network, tensordict, params=psi, measure=self._weights, **options
        )
        weights = getattr(candidates, str(self._weights))
        values = self.candidate_values(tensordict, candidates.actions)
        return weighted_baseline(values, weights).unsqueeze(-1)

    def state_value(self, tensordict: TensorDictBase) -> Tensor:
        """V, the policies' expectation of Q, without bias: its mean over an antithetic pair of joint actions.

        Args:
            tensordict: inputs of the actors and the critic, of batch size ``[*B]``.

        Returns:
            ``[*B, n, 1]``.
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
        if not self.other_actors:
            return tensordict
        drawn = tensordict.copy()
        for actor, key in zip(self.other_actors, self.other_action_keys, strict=True):
            drawn.set(key, team_policy(actor, tensordict).sample())
        return drawn

    def _bootstrap_value(self, following: TensorDictBase, bootstrap: Bootstrap) -> Tensor:
        """Q of the next states, with next actions from the current policies, ``[*B, T, n, 1]``."""
        if bootstrap == "control_variate":
            return self.state_value(following)
        action = self.policy(following).sample()
        following = self.with_other_actions(following)
        if bootstrap == "sampled":
            return self.action_value(following, action)
        candidates = self.candidates(following, "probabilities")
        values = self.candidate_values(following, candidates.actions, action)
        return weighted_baseline(values, candidates.probabilities).unsqueeze(-1)

    def _critic_params(self, params: TensorDictBase | None) -> AbstractContextManager[Any]:
        if params is None:
            return nullcontext()
        return params.to_module(self.value_network, preserve_module_state=False)
