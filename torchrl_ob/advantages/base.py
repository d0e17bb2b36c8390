"""What the advantages share: the return of the joint critic, less a baseline over candidates."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from tensordict import TensorDictBase
from tensordict.nn import dispatch
from torch import Tensor

from torchrl_ob._checks.batch import (
    active_agents,
    as_flags,
    per_agent,
    require_finite,
    require_time,
    select,
    sibling,
)
from torchrl_ob._checks.trajectories import (
    fill_padding,
    following_states,
    require_steps,
    require_time_dim,
    require_whole_trajectories,
    shift_back,
    valid_steps,
)
from torchrl_ob.advantages._options import Bootstrap
from torchrl_ob.advantages.estimator import TeamEstimator
from torchrl_ob.expectations.availability import has_choice
from torchrl_ob.functional import control_variate, lambda_return, weighted_baseline
from torchrl_ob.team import acting_parameters, team_candidates

__all__ = ["JointAdvantage"]


class JointAdvantage(TeamEstimator):
    r"""Base of the advantages: a return of the joint critic, less a baseline over candidates.

    The value target is the :func:`~torchrl_ob.functional.lambda_return` of Q, the next action from
    the current policy. Arguments, options and keys are described in :class:`~torchrl_ob.ObAdvantage`.
    """

    _weights: ClassVar[Literal["optimal_weights", "probabilities"] | None]
    """Which weights of the candidates make the baseline; None for no baseline."""

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
            batch = self.read(tensordict)
            value_target = self.value_estimate(
                batch, target_params=params if target_params is None else target_params
            )
            with self._critic_params(params):
                signal, baseline = value_target, torch.zeros_like(value_target)
                chunks = batch.split(self._trajectories_per_chunk(batch))
                if self.signal == "critic":
                    signal = torch.cat([self.action_value(chunk) for chunk in chunks])
                if self._weights is not None:
                    baseline = torch.cat([self._baseline(chunk) for chunk in chunks])
        advantage, active, valid = signal - baseline, self.active(batch), self.valid(batch)
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

        Returns:
            The return; 0 at steps that are padding.
        """
        if kwargs:
            raise TypeError(f"value_estimate takes no arguments {sorted(kwargs)}.")
        if tensordict.get(self.tensor_keys.steps_to_next_obs, None) is not None:
            raise ValueError(
                f"the tensordict has {self.tensor_keys.steps_to_next_obs!r}: its rewards are sums "
                "over several steps, which the λ-return would count again. Remove MultiStep."
            )
        bootstrap, keys = bootstrap or self.bootstrap, self.tensor_keys
        with torch.no_grad():
            batch = self.read(tensordict, time_dim)
            decay: dict[str, Any] = {
                "gamma": self.gamma,
                "lmbda": self.lmbda if lmbda is None else lmbda,
                "time_dim": self._get_time_dim(time_dim, batch),
            }
            chunks = batch.split(self._trajectories_per_chunk(batch))
            if next_value is None:
                with self._critic_params(target_params):
                    self.require_pointwise(batch, decay["time_dim"])
                    next_value = torch.cat(
                        [self._bootstrap_value(self.following(x), bootstrap) for x in chunks]
                    )
            # of simulators that pay integers, or in double precision, in the critic's
            reward = per_agent(batch, keys.reward, "reward", next_value.shape).to(next_value.dtype)
            require_finite(
                reward, f"the reward {keys.reward!r} is not finite: it has NaN or infinite entries."
            )
            done, terminated = self.ends(batch, time_dim)
            next_value = torch.where(terminated, 0, next_value)  # it may be NaN there
            if bootstrap == "control_variate":
                with self._critic_params(target_params):
                    value = torch.cat([self.action_value(chunk) for chunk in chunks])
                reward = reward + control_variate(next_value, value, done, terminated, **decay)
            target = lambda_return(reward, next_value, done, terminated, **decay)
            require_finite(
                target,
                f"the return overflows {target.dtype}, though rewards and values are finite. Scale the reward "
                f"{keys.reward!r} down.",
            )
            valid = self.valid(batch)
            return target if valid is None else torch.where(valid[..., None, None], target, 0)

    def read(self, tensordict: TensorDictBase, time_dim: int | None = None) -> TensorDictBase:
        """The batch as the advantage and the diagnostics take it, its padding filled with a valid step.

        Args:
            tensordict: a batch of trajectories, ``[*B, T]``; it is not changed.
            time_dim: the dimension of the input that is time.

        Raises:
            KeyError: for a missing key.
            ValueError: for a batch that is empty or flattened, and where it is not clear which reward is meant.
            RuntimeError: where trajectories lie end to end in time, and where an agent that takes part
                has no available action.
        """
        keys = self.tensor_keys
        require_steps(tensordict)
        if time_dim is None and self.time_dim is None:
            require_time(tensordict)
        select(tensordict, [keys.action], "the critic")
        self.require_named_reward(tensordict)
        valid = self.valid(tensordict)
        require_whole_trajectories(
            tensordict,
            self._flags(tensordict, "done"),
            ids_key=sibling(keys.valid, "traj_ids"),
            valid=valid,
            time_dim=self._get_time_dim(time_dim, tensordict),
        )
        batch = tensordict if valid is None else fill_padding(tensordict, valid, keys.valid)
        self._require_choice(batch)
        return batch

    def ends(
        self, tensordict: TensorDictBase, time_dim: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Where trajectories end, for whatever reason, and where episodes terminate, ``[*B, T, n, 1]`` each.

        A trajectory also ends with the last step before padding.
        """
        done, terminated = (self._flags(tensordict, name) for name in ("done", "terminated"))
        valid = self.valid(tensordict)
        if valid is not None:
            goes_on = shift_back(valid, self._get_time_dim(time_dim, tensordict))
            done = done | ~goes_on[..., None, None]
        return done, terminated

    def following(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The next states; after a termination, where nothing follows, the states before it again."""
        return following_states(
            tensordict, self._flags(tensordict, "terminated"), self.network_keys
        )

    def active(self, tensordict: TensorDictBase) -> Tensor | None:
        """Which agents take part, ``[*B, n]``; ``None`` where all do.

        They are alive and have a choice, as the ``mask`` says, or else have an available action; and the
        step is no padding. A mask with more dimensions, such as ``[*B, n, A]``, is one of actions.

        Raises:
            ValueError: for a mask of another shape.
        """
        keys = self.tensor_keys
        valid = self.valid(tensordict)
        parts = [
            active_agents(tensordict, keys.mask, keys.action),
            has_choice(tensordict, self.actor_network.dist_params_keys, self._agents(tensordict)),
            None if valid is None else valid.unsqueeze(-1).expand(self._agents(tensordict)),
        ]
        known = [part for part in parts if part is not None]
        return torch.stack(known).all(0) if known else None

    def valid(self, tensordict: TensorDictBase) -> Tensor | None:
        """Which steps are no padding, ``[*B, T]``; ``None`` where the batch does not say so."""
        return valid_steps(tensordict, self.tensor_keys.valid)

    def _require_choice(self, tensordict: TensorDictBase) -> None:
        """Stop where an agent takes part, as the mask says, and has no available action."""
        keys, masks = self.tensor_keys, self.actor_network.dist_params_keys
        alive = active_agents(tensordict, keys.mask, keys.action)
        choice = has_choice(tensordict, masks, self._agents(tensordict))
        if alive is not None and choice is not None:
            torch._assert_async(
                (choice | ~alive).all(),
                f"an agent that takes part, as {keys.mask!r} says, has no available action in {masks}.",
            )

    def _flags(self, tensordict: TensorDictBase, name: str) -> Tensor:
        key, shape = getattr(self.tensor_keys, name), (*self._agents(tensordict), 1)
        return as_flags(per_agent(tensordict, key, name, shape), f"the {name} {key!r}")

    def _agents(self, tensordict: TensorDictBase) -> torch.Size:
        """``[*B, T, n]``."""
        return tensordict.get(self.tensor_keys.action).shape[: tensordict.ndim + 1]

    def _get_time_dim(self, time_dim: int | None, data: TensorDictBase) -> int:
        given = self.time_dim if time_dim is None else time_dim
        if given is not None:
            return require_time_dim(given, data.ndim)
        found: int = super()._get_time_dim(None, data)
        return found

    def _trajectories_per_chunk(self, tensordict: TensorDictBase) -> int:
        """How many entries of the first dimension hold ``chunk_size`` steps of one agent."""
        key = self.tensor_keys.action
        action = select(tensordict, [key], "the critic").get(key)
        if tensordict.ndim < 2 or self._get_time_dim(None, tensordict) == 0:
            return max(1, len(tensordict))  # a single trajectory is not cut
        steps = action.shape[1 : tensordict.ndim + 1].numel()
        chunk_size = self.chunk_size or (9_000 if action.device.type == "cpu" else 36_000)
        return max(1, chunk_size // max(1, steps))

    def _baseline(self, tensordict: TensorDictBase) -> Tensor:
        """The baseline of every agent, ``[*B, T, n, 1]``."""
        psi, options = acting_parameters(self.actor_network, tensordict), self._rule
        candidates = team_candidates(
            self.actor_network, tensordict, params=psi, measure=self._weights, **options
        )
        weights = getattr(candidates, str(self._weights))
        values = self.candidate_values(tensordict, candidates.actions)
        return weighted_baseline(values, weights).unsqueeze(-1)

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
