"""The joint critic: Q(s, a) of the joint action, and of alternative own actions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tensordict import TensorDictBase, unravel_key
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.envs import EnvBase
from torchrl.modules import ValueNorm

from torchrl_ob._action_encodings import ActionEncoding, one_hot, one_hot_factors, require_choices
from torchrl_ob._checks.arguments import NamedArguments, check_choice, check_whole_number
from torchrl_ob._checks.batch import check_shape, sibling
from torchrl_ob._device_memory import memory_for_chunks
from torchrl_ob._specs import Group
from torchrl_ob.critics._inputs import Inputs, input_shapes, read_entry, read_sizes, read_states
from torchrl_ob.critics._value_norm import denormalize, require_value_norm
from torchrl_ob.critics.backbones import Others, Sizes, find_backbone, own_values

__all__ = ["JointQCritic"]


class JointQCritic(NamedArguments, TensorDictModuleBase):
    r"""Action value of the joint action, for every agent: :math:`Q_i(s, a^1, \dots, a^n)`.

    Each agent's value is computed from a part that does not depend on its own action and a part that does, so that
    :meth:`candidate_values` gives :math:`Q_i(s, a^{-i}, a^i_k)` for K alternative own actions without evaluating the
    first part again. With a single discrete action for each agent, the network reads only the others' actions and
    returns the value of each of the agent's own actions in one forward pass, as COMA's critic does (Foerster et al.,
    AAAI 2018, section 4).

    Args:
        num_agents: number of agents n.
        action_dim: size of a continuous (or one-hot) action, or number of discrete actions.
        observation_dim: size of an agent's observation; ``None`` if only the state is read.
        state_dim: size of the global state; ``None`` if only observations are read.

    Keyword Args:
        action_encoding: ``"continuous"`` ``[*B, n, d]``, ``"categorical"`` (integers ``[*B, n]``),
            ``"one_hot"`` ``[*B, n, A]``, ``"multi_categorical"`` (integers ``[*B, n, D]``, with ``nvec``
            choices each) or ``"multi_one_hot"`` (one-hot vectors side by side).
        nvec: number of choices of each factor of a multi-categorical action; ``action_dim`` is
            then their sum.
        backbone: ``"pooled"`` (the default: an embedding of each agent's observation and action, averaged over the
            other agents; linear in the number of agents), ``"concat"`` (all inputs concatenated, as in COMA), or
            ``"additive"`` (the sum of one term for each agent, one value for the team: for team rewards); or a
            function ``(sizes, share_params=..., activation=...)`` that makes a custom module, see
            :class:`~torchrl_ob.critics.Backbone`.
        hidden_dim: width of the hidden layers.
        share_params: whether the agents' values come from one network, which receives the agent's identity, or from a
            network for each agent.
        activation: activation function.
        value_norm: a TorchRL :class:`~torchrl.modules.ValueNorm` of shape 1, for returns far from unit scale: the
            network works in normalized values and the output is denormalized. Pass the same instance to
            :class:`~torchrl.objectives.multiagent.MAPPOLoss`, which alone updates its statistics.
        observation_key: where the observations are, ``[*B, n, observation_dim]``.
        state_key: where the global state is, ``[*B, state_dim]``.
        action_key: where the joint action is.
        out_key: where the values are written, ``[*B, n, 1]``; by default ``"state_action_value"``
            in the group of the action.
        chunk_bytes: memory for the activations of one layer; without gradients, the batch is processed in chunks of
            that size. By default 4 MiB, which fits in a CPU's caches, and on a GPU a 64th of its memory, or a 32nd of what is
            free where that is less.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl_ob import JointQCritic
        >>> critic = JointQCritic(num_agents=3, observation_dim=4, action_dim=2)
        >>> agents = {"observation": torch.randn(5, 3, 4), "action": torch.randn(5, 3, 2)}
        >>> td = critic(TensorDict({"agents": agents}, batch_size=[5]))
        >>> td["agents", "state_action_value"].shape
        torch.Size([5, 3, 1])
        >>> critic.candidate_values(td, torch.randn(5, 3, 9, 2)).shape
        torch.Size([5, 3, 9])
    """

    def __init__(
        self,
        num_agents: int,
        action_dim: int,
        observation_dim: int | None = None,
        state_dim: int | None = None,
        *,
        action_encoding: ActionEncoding = "continuous",
        nvec: tuple[int, ...] | None = None,
        backbone: str | Callable[..., nn.Module] = "pooled",
        hidden_dim: int = 128,
        share_params: bool = True,
        activation: type[nn.Module] = nn.Tanh,
        value_norm: ValueNorm | None = None,
        observation_key: NestedKey = ("agents", "observation"),
        state_key: NestedKey = "state",
        action_key: NestedKey = ("agents", "action"),
        out_key: NestedKey | None = None,
        chunk_bytes: int | None = None,
    ) -> None:
        super().__init__()
        check_whole_number("num_agents", num_agents)
        check_whole_number("action_dim", action_dim)
        check_whole_number("chunk_bytes", chunk_bytes, or_none=True)
        check_choice("action_encoding", action_encoding, ActionEncoding)
        if action_encoding == "multi_categorical" and sum(nvec or ()) != action_dim:
            raise ValueError(
                "a multi_categorical critic needs nvec, the number of choices of each factor, "
                f"summing to action_dim; got nvec={nvec} and action_dim={action_dim}."
            )
        action_key = unravel_key(action_key)
        event_shapes = {"categorical": (), "multi_categorical": (len(nvec or ()),)}
        self.action_encoding, self.action_dim, self.nvec = action_encoding, action_dim, nvec
        self.action_key = action_key
        self.action_shape = (num_agents, *event_shapes.get(action_encoding, (action_dim,)))
        read = (observation_key, observation_dim), (state_key, state_dim)
        self.state_shapes = input_shapes(num_agents, *read)
        self.in_keys = [*(key for key, x in self.state_shapes.items() if x[-1]), action_key]
        self.out_keys = [unravel_key(out_key or sibling(action_key, "state_action_value"))]
        # a network with one output for every own action must not read the own action
        self.all_actions_at_once = action_encoding in ("categorical", "one_hot")
        out_dim = action_dim if self.all_actions_at_once else 1
        widths = observation_dim or 0, state_dim or 0, action_dim, hidden_dim, out_dim
        make, sizes = find_backbone(backbone), Sizes(num_agents, *widths)
        self.backbone: Any = make(sizes, share_params=share_params, activation=activation)
        self.hidden_dim, self.chunk_bytes = hidden_dim, chunk_bytes
        self.value_norm = require_value_norm(value_norm)

    @classmethod
    def from_env(cls, env: EnvBase, *, group: Group = "agents", **kwargs: Any) -> JointQCritic:
        """Build the critic of a group of agents from an environment's specs.

        Args:
            env: the environment, with ``(group, "observation")`` ``[n, o]`` or a root ``"state"``,
                and ``(group, "action")``.
            group: name of the group of agents.
            **kwargs: the other arguments of the class. ``observation_dim=None`` leaves the
                observations out; the state is read if the environment has one.

        Returns:
            The critic.

        Raises:
            KeyError: if the environment has no such group, or neither observation nor state.
            TypeError: for actions, observations or a state of another kind.
            ValueError: for those of another shape.

        Example:
            >>> from torchrl_ob import JointQCritic  # needs vmas
            >>> from torchrl.envs import VmasEnv
            >>> env = VmasEnv("balance", num_envs=2, n_agents=4)
            >>> JointQCritic.from_env(env).action_shape
            (4, 2)
        """
        return cls(**read_sizes(env, group, kwargs))

    def forward(self, tensordict: TensorDictBase, others: Others | None = None) -> TensorDictBase:
        """Write Q of the joint action, ``[*B, n, 1]``, under ``out_keys[0]``.

        Args:
            tensordict: with the critic's inputs, of batch size ``[*B]``.
            others: agents of other groups, for :func:`~torchrl_ob.group_critics`.
        """
        return tensordict.set(self.out_keys[0], self._values(tensordict, others=others))

    def candidate_values(
        self, tensordict: TensorDictBase, actions: Tensor, others: Others | None = None
    ) -> Tensor:
        """Q of alternative own actions, with the other agents' actions as they were taken.

        Args:
            tensordict: as for :meth:`forward`, of batch size ``[*B]``.
            actions: K own actions of every agent, ``[*B, n, K, *event]``.
            others: as for :meth:`forward`.

        Returns:
            ``[*B, n, K]``.
        """
        batch, (n, *event) = tensordict.batch_size, self.action_shape
        num_candidates = actions.shape[len(batch) + 1] if actions.ndim > len(batch) + 1 else 0
        check_shape("candidate actions", actions, (*batch, n, num_candidates, *event))
        own = actions.reshape(batch.numel(), n, num_candidates, *event)
        return self._values(tensordict, own=own, others=others)

    def messages(self, tensordict: TensorDictBase) -> Tensor:
        """Messages of the agents, with the actions that they took, to the agents of other groups.

        Args:
            tensordict: as for :meth:`forward`, of batch size ``[*B]``.

        Returns:
            The sum over the agents, ``[N, hidden_dim]``, N being the number of states in the batch.
        """
        inputs = self._inputs(tensordict)
        return self._in_chunks(lambda x: self.backbone.messages(x.observation, x.action), inputs)

    def _values(self, tensordict: TensorDictBase, **more: Any) -> Tensor:
        """Values ``[*B, n, K]`` of own actions; of the joint action itself, ``[*B, n, 1]``, where none are given."""
        values = self._in_chunks(self._evaluate, self._inputs(tensordict)._replace(**more))
        return values.reshape(*tensordict.batch_size, *values.shape[1:])

    def _evaluate(self, inputs: Inputs) -> Tensor:
        """:meth:`_values` of N states, ``[N, n, K]``."""
        return denormalize(self.value_norm, self._network(inputs))

    def _network(self, inputs: Inputs) -> Tensor:
        """The output of the network itself, ``[N, n, K]``, in normalized values where there is a norm."""
        observation, state, action, own, others = inputs
        groups = {} if others is None else {"others": others}
        own = None if own is None else self._encode(own, action.dtype)
        if own is None and not self.all_actions_at_once:
            joint: Tensor = self.backbone(observation, state, action, **groups)
            return joint
        candidates: Callable[..., Tensor] = getattr(
            self.backbone, "candidates", partial(own_values, self.backbone)
        )
        if self.all_actions_at_once:
            chosen = action.unsqueeze(-2) if own is None else own
            own = torch.zeros_like(action).unsqueeze(-2)
            return (candidates(observation, state, action, own, **groups) * chosen).sum(-1)
        values: Tensor = candidates(observation, state, action, own, **groups)
        return values.squeeze(-1)

    def _in_chunks(self, function: Callable[[Inputs], Tensor], inputs: Inputs) -> Tensor:
        """A function of states, in chunks whose activations take ``chunk_bytes`` in each layer.

        Whole where a gradient is recorded, which keeps all activations.
        """
        if torch.is_grad_enabled():
            return function(inputs)
        action, own = inputs.action, inputs.own
        num_candidates = 1 if own is None else own.shape[2]
        widest = num_candidates * self.hidden_dim  # of an agent's activations
        if self.all_actions_at_once:
            widest = max(self.hidden_dim, num_candidates * self.action_dim)
        if not hasattr(self.backbone, "candidates"):
            widest = widest * self.action_shape[0]  # copies of the team
        bytes_per_state = self.action_shape[0] * widest * action.element_size()
        chunk_bytes = self.chunk_bytes
        if chunk_bytes is None:
            on_cpu = action.device.type == "cpu"
            chunk_bytes = 2**22 if on_cpu else memory_for_chunks(action.device) // 16
        size = max(1, chunk_bytes // max(bytes_per_state, 1))
        return torch.cat([function(chunk) for chunk in inputs.split(size)])

    def _inputs(self, tensordict: TensorDictBase) -> Inputs:
        joint = read_entry(tensordict, self.action_key, self.action_shape)
        observation, state = read_states(tensordict, self.state_shapes)
        return Inputs(observation, state, self._encode(joint, observation.dtype))

    def _encode(self, action: Tensor, dtype: torch.dtype) -> Tensor:
        """Actions ``[..., *event]`` as features of the network, ``[..., action_dim]``."""
        choices = self.nvec or (self.action_dim,)
        require_choices(self.action_key, action, self.action_encoding, choices)
        if self.action_encoding == "categorical":
            return one_hot(action, self.action_dim).to(dtype)
        if self.action_encoding == "multi_categorical":
            return one_hot_factors(action, choices).to(dtype)
        return action.to(dtype)
