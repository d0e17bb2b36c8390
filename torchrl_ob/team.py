"""The team of agents of one group: its actor and its joint critic, with checked outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from tensordict import TensorDictBase, unravel_key
from tensordict.nn import ProbabilisticTensorDictSequential, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torch import distributions as D
from torchrl.modules import set_recurrent_mode

from torchrl_ob._actors import (
    action_key,
    build_policy,
    current_policy,
    input_keys,
    policy_parameters,
    require_choice,
)
from torchrl_ob._checks.batch import (
    active_agents,
    require_finite,
    require_value_per_agent,
    select,
    sibling,
)
from torchrl_ob._checks.critic import require_joint_critic
from torchrl_ob._checks.trajectories import valid_steps
from torchrl_ob.critics.history import encode_history, find_head
from torchrl_ob.critics.substitution import value_candidates
from torchrl_ob.expectations import Candidates, action_candidates
from torchrl_ob.expectations.antithetic import antithetic_pair
from torchrl_ob.expectations.autodiff import score_candidates
from torchrl_ob.expectations.masks import has_choice, lend_a_choice
from torchrl_ob.expectations.quadrature import Measure
from torchrl_ob.expectations.rules import ExpectationRule
from torchrl_ob.functional import GaussianPsi

__all__ = ["Team"]


@dataclass(eq=False)
class Team:
    r"""The agents of one group: their actor, the joint critic, the keys and the rule of expectation.

    Advantages and diagnostics get Q, its expectations and the policies from it; an advantage has its own team as
    ``advantage.team``. Every result is checked: a missing key, a wrong shape, or a number that is not finite is
    refused with a remedy.

    Args:
        actor: the agents' policies, such as a :class:`~torchrl.modules.ProbabilisticActor`.
        critic: a critic of the joint action, such as a :class:`~torchrl_ob.JointQCritic`; one that remembers, such as
            a :class:`~torchrl_ob.RecurrentCritic`, has an ``encode`` and a ``head`` that values actions given the
            encoded history.
        other_actors: the policies of other groups of agents, whose actions the critic reads too.
        rule: rule of the expectation over an agent's own continuous action, as for :class:`~torchrl_ob.ObAdvantage`.
        num_points: size of the rule.
        psi: for Gaussians, the parameters in which the score is taken.
        action_key: key of the joint action, ``[*B, n, *event]``; by default the actor's output.
        value_key: key of Q, ``[*B, n, 1]``; by default the critic's first output.
        mask_key: key of the mask of agents that take part, ``[*B, n]``; by default ``"mask"`` in the action's group.
        valid_key: key of the mask of steps that are not padding, ``[*B]``.

    Raises:
        TypeError: for an actor without a distribution, or a critic that is no tensordict module.
        ValueError: for an actor of several actions, and for a critic that does not read the joint action, or reads an
            action that no actor given writes.

    Example:
        >>> import torch
        >>> from torchrl.envs import VmasEnv  # needs vmas
        >>> from torchrl_ob import JointQCritic, Team, policy_from_env
        >>> env = VmasEnv("balance", num_envs=2, n_agents=4)
        >>> team = Team(policy_from_env(env), JointQCritic.from_env(env))
        >>> td = env.rollout(5, team.actor)
        >>> own = team.candidates(td)
        >>> team.q(td).shape, team.q_candidates(td, own.actions).shape
        (torch.Size([2, 5, 4, 1]), torch.Size([2, 5, 4, 18]))
    """

    actor: ProbabilisticTensorDictSequential
    critic: TensorDictModuleBase
    other_actors: Sequence[ProbabilisticTensorDictSequential] = ()
    rule: ExpectationRule = "gauss"
    num_points: int | None = None
    psi: GaussianPsi = "loc_scale"
    action_key: Any = None
    value_key: Any = None
    mask_key: Any = None
    valid_key: NestedKey = ("collector", "mask")
    other_action_keys: list[NestedKey] = field(init=False)

    def __post_init__(self) -> None:
        self.other_actors = tuple(self.other_actors)
        written, *self.other_action_keys = map(action_key, self.actors)
        if not getattr(self.critic, "in_keys", None):
            raise TypeError(
                f"value_network must be a tensordict module, such as a TensorDictModule, got {type(self.critic).__name__}."
            )
        self.action_key = unravel_key(self.action_key or written)
        self.value_key = unravel_key(self.value_key or self.critic.out_keys[0])
        self.mask_key = unravel_key(self.mask_key or sibling(self.action_key, "mask"))
        require_joint_critic(self.head, self.action_key, self.other_action_keys)

    @property
    def head(self) -> TensorDictModuleBase:
        """The critic of single steps: the critic itself, or the head of a critic that remembers."""
        return find_head(self.critic)

    @property
    def actors(self) -> list[ProbabilisticTensorDictSequential]:
        """The actor of this group, and those of the others."""
        return [self.actor, *self.other_actors]

    @property
    def action_keys(self) -> list[NestedKey]:
        """Where the actions of this group are, and those of the others."""
        return [self.action_key, *self.other_action_keys]

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys that the networks read, actions included."""
        return self._keys(self.critic)

    @property
    def state_keys(self) -> list[NestedKey]:
        """Keys that are read beside the actions once the history is encoded."""
        return [key for key in self._keys(self.head) if key not in self.action_keys]

    def encode(self, tensordict: TensorDictBase, time_dim: int = -1) -> TensorDictBase:
        """The trajectories ``[*B, T]`` as a critic that remembers encodes them; unchanged for any other critic."""
        return encode_history(self.critic, tensordict, time_dim)

    def q(self, tensordict: TensorDictBase, action: Tensor | None = None) -> Tensor:
        """Q of the joint action, ``[*B, n, 1]``.

        Args:
            tensordict: the critic's inputs, of batch size ``[*B]``.
            action: a joint action that replaces the one in it, ``[*B, n, *event]``.
        """
        inputs = self._critic_inputs(tensordict, action)
        with set_recurrent_mode(False):
            value = self.head(inputs).get(self.value_key)
        require_value_per_agent(value, self.value_key, inputs, self.action_key)
        return self._require_finite(value)

    def q_candidates(
        self, tensordict: TensorDictBase, actions: Tensor, action: Tensor | None = None
    ) -> Tensor:
        """Q of alternative own actions, with the others' actions held, ``[*B, n, K]``.

        A critic with a method ``candidate_values(tensordict, actions)``, such as a :class:`~torchrl_ob.JointQCritic`,
        computes it; otherwise each candidate is substituted into a copy of the critic's inputs.

        Args:
            tensordict: the critic's inputs, of batch size ``[*B]``.
            actions: K own actions of every agent, ``[*B, n, K, *event]``.
            action: a joint action that replaces the one in it, whose others' part is held.

        Raises:
            ValueError: if the alternatives are of other agents, or of another shape, than the action.
        """
        inputs = self._critic_inputs(tensordict, action)
        taken, at = inputs.get(self.action_key).shape, tensordict.ndim + 1
        if (*actions.shape[:at], *actions.shape[at + 1 :]) != taken:
            raise ValueError(
                f"the action {self.action_key!r} has shape {list(taken)}, and the policy's alternatives {list(actions.shape)}, so "
                "many of each. Check the parameters of the policy that the batch has beside the action."
            )
        keys = {"action_key": self.action_key, "value_key": self.value_key}
        with set_recurrent_mode(False):
            values = value_candidates(self.head, inputs, actions, **keys)
        return self._require_finite(values)

    def v(self, tensordict: TensorDictBase) -> Tensor:
        """V, the policies' expectation of Q, ``[*B, n, 1]``: unbiased, the mean over an antithetic pair."""
        pairs = [antithetic_pair(current_policy(actor, tensordict)) for actor in self.actors]
        values = []
        for actions in zip(*pairs, strict=True):
            drawn = tensordict.copy()
            for key, action in zip(self.action_keys, actions, strict=True):
                drawn.set(key, action)
            values.append(self.q(drawn))
        return torch.stack(values).mean(0)

    def policy(self, tensordict: TensorDictBase) -> D.Distribution:
        """The agents' policies for the actor's inputs ``[*B]``: one distribution of batch shape ``[*B, n]``."""
        return current_policy(self.actor, tensordict)

    def candidates(
        self, tensordict: TensorDictBase, measure: Measure | None = None, *, acting: bool = False
    ) -> Candidates:
        """Candidate own actions of every agent, with the weights of both expectations.

        Args:
            tensordict: the actor's inputs, of batch size ``[*B]``.
            measure: the weights that will be used; both by default.
            acting: whether to use the policy that acted, whose parameters the actor left in the batch beside the
                action, if they are there; otherwise the current policy is used.
        """
        keys = self.actor.dist_params_keys
        if acting and all(tensordict.get(key, None) is not None for key in keys):
            params = tensordict
        else:
            params = policy_parameters(self.actor, tensordict)
        policy = build_policy(self.actor, params)
        if acting:
            require_choice(policy, tensordict, self.action_key, self.active(tensordict))
        own = action_candidates(
            policy, rule=self.rule, num_points=self.num_points, psi=self.psi, measure=measure
        )
        if own is None:
            given = lend_a_choice(params, keys), partial(build_policy, self.actor), keys
            own = score_candidates(policy, *given, num_points=self.num_points)
        if own.probabilities.ndim != tensordict.ndim + 2:
            raise ValueError(
                f"the policy is a {type(policy).__name__} of batch shape {list(policy.batch_shape)}; expected "
                f"{[*tensordict.batch_size, 'n']}. Wrap it in torch.distributions.Independent so that an action is a single event."
            )
        message = "the policy's probabilities are not finite: a parameter or an observation is NaN."
        require_finite(own.optimal_weights, message)
        return own

    def next_action(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The same entries, with actions of all groups drawn from their current policies.

        Args:
            tensordict: inputs of the actors, such as next states, of batch size ``[*B]``.
        """
        own = self.policy(tensordict).sample()
        return self.draw_others(tensordict).set(self.action_key, own)

    def draw_others(self, tensordict: TensorDictBase) -> TensorDictBase:
        """The same entries with actions of the other groups as their current policies draw them."""
        drawn = tensordict.copy()
        for actor, key in zip(self.other_actors, self.other_action_keys, strict=True):
            drawn.set(key, current_policy(actor, tensordict).sample())
        return drawn

    def active(self, tensordict: TensorDictBase) -> Tensor | None:
        """Which agents take part, ``[*B, n]``; ``None`` if all do.

        An agent takes part if it is alive and has a choice, as the mask says, or else has an available action, and if
        the step is not padding. A mask with more dimensions, such as ``[*B, n, A]``, is a mask of actions.

        Raises:
            ValueError: for a mask of another shape.
        """
        agents, valid = self.agents(tensordict), self.valid(tensordict)
        parts = [
            active_agents(tensordict, self.mask_key, self.action_key),
            has_choice(tensordict, self.actor.dist_params_keys, agents),
            None if valid is None else valid.unsqueeze(-1).expand(agents),
        ]
        known = [part for part in parts if part is not None]
        return torch.stack(known).all(0) if known else None

    def valid(self, tensordict: TensorDictBase) -> Tensor | None:
        """Which steps are not padding, ``[*B]``; ``None`` if the batch does not say so."""
        return valid_steps(tensordict, self.valid_key)

    def agents(self, tensordict: TensorDictBase) -> torch.Size:
        """``[*B, n]``, from the joint action."""
        action = select(tensordict, [self.action_key], "the critic").get(self.action_key)
        return action.shape[: tensordict.ndim + 1]

    def require_choice(self, tensordict: TensorDictBase) -> None:
        """Stop where an agent takes part, as the mask says, and has no available action."""
        masks = self.actor.dist_params_keys
        alive = active_agents(tensordict, self.mask_key, self.action_key)
        choice = has_choice(tensordict, masks, self.agents(tensordict))
        if alive is not None and choice is not None:
            torch._assert_async(
                (choice | ~alive).all(),
                f"an agent that takes part, as {self.mask_key!r} says, has no available action in {masks}.",
            )

    def _critic_inputs(self, tensordict: TensorDictBase, action: Tensor | None) -> TensorDictBase:
        if action is not None:
            tensordict = tensordict.copy().set(self.action_key, action)
        reader = "the critic" if self.head is self.critic else "after team.encode(...), the critic"
        return select(tensordict, map(unravel_key, self.head.in_keys), reader)

    def _keys(self, critic: TensorDictModuleBase) -> list[NestedKey]:
        read = [*critic.in_keys, *(key for x in self.actors for key in input_keys(x))]
        return list(dict.fromkeys(map(unravel_key, read)))

    def _require_finite(self, value: Tensor) -> Tensor:
        message = (
            f"the critic's output {self.value_key!r} is not finite. Check its inputs "
            f"{list(self.head.in_keys)} for NaN, the learning rate and the gradient norm."
        )
        require_finite(value, message)
        return value
