"""What the advantages share: the return of the joint critic, less a baseline."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor

from torchrl_ob._actors import flat_parameters
from torchrl_ob._checks.batch import as_flags, per_agent, require_finite, select, sibling
from torchrl_ob._checks.critic import is_pointwise_in_time
from torchrl_ob._checks.trajectories import (
    fill_padding,
    following_states,
    require_steps,
    require_time_dim,
    require_whole_trajectories,
    shift_back,
)
from torchrl_ob._device_memory import memory_for_chunks
from torchrl_ob.advantages._routing import TeamEstimator
from torchrl_ob.functional import control_variate, lambda_return

__all__ = ["JointAdvantage"]


class JointAdvantage(TeamEstimator):
    r"""Base class of the advantages: a return of the joint critic, less the :meth:`baseline` of a subclass.

    .. math::
        X^i = G^i - b^i

    Here :math:`G` is the :func:`~torchrl_ob.functional.lambda_return` of Q, with the next action from the current
    policy. Arguments, options and keys are those of :class:`~torchrl_ob.ObAdvantage`. Its ``team``, a
    :class:`~torchrl_ob.Team`, provides Q, its expectations and the policies.

    Example, a custom baseline, the mean of Q over the agent's alternatives:
        >>> from torchrl.envs import VmasEnv  # needs vmas
        >>> from torchrl_ob import JointAdvantage, JointQCritic, policy_from_env
        >>> class MeanAdvantage(JointAdvantage):
        ...     def baseline(self, tensordict):
        ...         own = self.team.candidates(tensordict, acting=True)
        ...         return self.team.q_candidates(tensordict, own.actions).mean(-1, keepdim=True)
        >>> env = VmasEnv("balance", num_envs=2)
        >>> policy, critic = policy_from_env(env), JointQCritic.from_env(env)
        >>> advantage = MeanAdvantage(
        ...     actor_network=policy, value_network=critic, gamma=0.99, lmbda=0.9
        ... )
        >>> advantage.set_keys(reward=env.reward_key)
        >>> advantage(env.rollout(5, policy))["advantage"].shape
        torch.Size([2, 5, 3, 1])
    """

    known_pointwise = False  # whether no network has a memory in time

    def baseline(self, tensordict: TensorDictBase) -> Tensor:
        """The baseline of every agent, ``[*B, n, 1]``: the only method that a custom advantage needs.

        It may depend on the state and the others' actions, but not on the agent's own action: otherwise the expected
        gradient changes. No gradient is recorded.

        Args:
            tensordict: steps of the batch, ``[*B]``.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no baseline(tensordict): define it to return [*B, n, 1], one for each agent."
        )

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
            params: parameters of the critic, if it is functional.
            target_params: parameters of the critic for the next states; ``params`` by default.

        Returns:
            The input.

        Raises:
            KeyError: for a missing key.
            ValueError: for a wrong shape.
            RuntimeError: for observations, rewards, probabilities or values of the critic that
                are not finite.
        """
        keys, team = self.tensor_keys, self.team
        with torch.no_grad():
            with self._critic_params(params):
                batch = self.read(tensordict)
            if target_params is None:  # the history is encoded once
                value_target = self._returns(batch, params)
            else:
                value_target = self.value_estimate(tensordict, target_params)
            with self._critic_params(params):
                signal, chunks = value_target, self._chunks(batch)
                if self.signal == "critic":
                    signal = torch.cat([team.q(chunk) for chunk in chunks])
                baseline = torch.cat([self.baseline(chunk) for chunk in chunks])
                baseline = baseline.to(signal.dtype)
        if baseline.shape != signal.shape:
            raise ValueError(
                f"{type(self).__name__}.baseline gave the shape {list(baseline.shape)}: expected {list(signal.shape)}."
            )
        advantage, active, valid = signal - baseline, team.active(batch), team.valid(batch)
        if active is not None:
            advantage = torch.where(active.unsqueeze(-1), advantage, 0)
        if valid is not None:
            baseline = torch.where(valid[..., None, None], baseline, 0)
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
        **kwargs: Any,
    ) -> Tensor:
        """The λ-return of Q, ``[*B, T, n, 1]``.

        Args:
            tensordict: a batch of trajectories, ``[*B, T]``.
            target_params: parameters of the critic, if it is functional.
            next_value: Q of the next states and actions, ``[*B, T, n, 1]``, if it is known.
            time_dim: the dimension of the input that is time.
            **kwargs: none; here for compatibility with TorchRL's estimators.

        Returns:
            The return; 0 at steps that are padding.
        """
        if kwargs:
            raise TypeError(f"value_estimate takes no arguments {sorted(kwargs)}.")
        with torch.no_grad():
            with self._critic_params(target_params):
                batch = self.read(tensordict, time_dim)
            return self._returns(batch, target_params, next_value, time_dim)

    def _returns(
        self,
        batch: TensorDictBase,
        params: TensorDictBase | None,
        next_value: Tensor | None = None,
        time_dim: int | None = None,
    ) -> Tensor:
        """:meth:`value_estimate` of a batch that :meth:`read` gave."""
        keys = self.tensor_keys
        if batch.get(keys.steps_to_next_obs, None) is not None:
            raise ValueError(
                f"rewards are sums over several steps, says {keys.steps_to_next_obs!r}, which the λ-return would count again: "
                "remove MultiStep."
            )
        decay: dict[str, Any] = {
            "gamma": self.gamma,
            "lmbda": self.lmbda,
            "time_dim": self._get_time_dim(time_dim, batch),
        }
        chunks = self._chunks(batch)
        if next_value is None:
            with self._critic_params(params):
                self.require_pointwise(batch, decay["time_dim"])
                next_value = torch.cat(
                    [self._next_value(self.following(chunk)) for chunk in chunks]
                )
        # of simulators that pay integers, or in double precision, in the critic's
        reward = self.read_reward(batch, next_value.shape).to(next_value.dtype)
        done, terminated = self.ends(batch, time_dim)
        next_value = torch.where(terminated, 0, next_value)  # it may be NaN there
        if self.bootstrap == "control_variate":
            with self._critic_params(params):
                value = torch.cat([self.team.q(chunk) for chunk in chunks])
            reward = reward + control_variate(next_value, value, done, terminated, **decay)
        target = lambda_return(reward, next_value, done, terminated, **decay)
        require_finite(
            target,
            f"the return overflows {target.dtype}, though rewards and values are finite. Scale the reward "
            f"{keys.reward!r} down.",
        )
        valid = self.team.valid(batch)
        return target if valid is None else torch.where(valid[..., None, None], target, 0)

    def read(self, tensordict: TensorDictBase, time_dim: int | None = None) -> TensorDictBase:
        """The batch as advantages and diagnostics read it: padding filled with a valid step, the history encoded.

        Args:
            tensordict: a batch of trajectories, ``[*B, T]``; it is not changed.
            time_dim: the dimension of the input that is time.

        Raises:
            KeyError: for a missing key.
            ValueError: for a batch that is empty or flattened, and if it is not clear which reward is meant.
            RuntimeError: if trajectories lie end to end in time, and where an agent that takes part
                has no available action.
        """
        keys = self.tensor_keys
        require_steps(tensordict, self.time_dim if time_dim is None else time_dim)
        time_dim = self._get_time_dim(time_dim, tensordict)
        select(tensordict, [keys.action], "the critic")
        self._require_named_reward(tensordict)
        valid = self.team.valid(tensordict)
        require_whole_trajectories(
            tensordict,
            self._flags(tensordict, "done"),
            ids_key=sibling(keys.valid, "traj_ids"),
            valid=valid,
            time_dim=time_dim,
        )
        batch = tensordict if valid is None else fill_padding(tensordict, valid, keys.valid)
        self.team.require_choice(batch)
        return self.team.encode(batch, time_dim)

    def ends(
        self, tensordict: TensorDictBase, time_dim: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Where trajectories end, for whatever reason, and where episodes terminate, ``[*B, T, n, 1]`` each.

        A trajectory also ends with the last step before padding.
        """
        done, terminated = (self._flags(tensordict, name) for name in ("done", "terminated"))
        valid = self.team.valid(tensordict)
        if valid is not None:
            goes_on = shift_back(valid, self._get_time_dim(time_dim, tensordict))
            done = done | ~goes_on[..., None, None]
        return done, terminated

    def read_reward(self, tensordict: TensorDictBase, shape: torch.Size) -> Tensor:
        """The reward of every agent, ``[*B, T, n, 1]``, which is the shape given."""
        key = self.tensor_keys.reward
        reward = per_agent(tensordict, key, "reward", shape)
        require_finite(reward, f"the reward {key!r} is not finite: it has NaN or infinite entries.")
        return reward

    def following(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The next states; after a termination, where nothing follows, the states before it again."""
        terminated = self._flags(tensordict, "terminated")
        return following_states(tensordict, terminated, self.team.state_keys)

    def require_pointwise(self, tensordict: TensorDictBase, time_dim: int) -> None:
        """Refuse networks with a memory in time, once, where something can be told."""
        if self.known_pointwise or torch.compiler.is_compiling():
            return
        team = self.team
        inputs = tensordict.select(*team.state_keys, *team.action_keys, strict=False)
        asked: list[tuple[str, Any, Any]] = [
            ("the actor", actor, partial(flat_parameters, actor)) for actor in team.actors
        ]
        known = [
            is_pointwise_in_time(evaluate, network, inputs, time_dim=time_dim, name=name)
            for name, network, evaluate in [*asked, ("the critic", team.head, team.q)]
        ]
        self.known_pointwise = all(known)

    def _flags(self, tensordict: TensorDictBase, name: str) -> Tensor:
        key, shape = getattr(self.tensor_keys, name), (*self.team.agents(tensordict), 1)
        return as_flags(per_agent(tensordict, key, name, shape), f"the {name} {key!r}")

    def _get_time_dim(self, time_dim: int | None, data: TensorDictBase) -> int:
        given = self.time_dim if time_dim is None else time_dim
        if given is not None:
            return require_time_dim(given, data.ndim)
        found: int = super()._get_time_dim(None, data)
        return found

    def _chunks(self, tensordict: TensorDictBase) -> tuple[TensorDictBase, ...]:
        """The batch in parts of whole trajectories, of about ``chunk_size`` steps of one agent."""
        agents = self.team.agents(tensordict)
        if tensordict.ndim < 2 or self._get_time_dim(None, tensordict) == 0:
            return tensordict.split(max(1, len(tensordict)))  # a single trajectory is not cut
        device, chunk_size = tensordict.get(self.team.action_key).device, self.chunk_size
        if chunk_size is None:  # 128 KiB hold 1,000 samples of two actions, and what they become
            chunk_size = 9_000 if device.type == "cpu" else memory_for_chunks(device) // 2**17
        return tensordict.split(max(1, chunk_size // max(1, agents[1:].numel())))

    def _next_value(self, following: TensorDictBase) -> Tensor:
        """Q of the next states, with next actions from the current policies, ``[*B, T, n, 1]``."""
        if self.bootstrap == "control_variate":
            return self.team.v(following)
        following = self.team.next_action(following)
        if self.bootstrap == "sampled":
            return self.team.q(following)
        own = self.team.candidates(following, "probabilities")
        q = self.team.q_candidates(following, own.actions)
        return (own.probabilities * q).sum(-1, keepdim=True)
