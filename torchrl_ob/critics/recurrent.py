"""A critic that remembers: it encodes the history once, and values actions by a critic of single steps."""

from __future__ import annotations

from typing import Any, Literal

import torch
from tensordict import TensorDictBase, unravel_key
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.envs import EnvBase
from torchrl.modules import ValueNorm, recurrent_mode, set_recurrent_mode

from torchrl_ob._checks.arguments import check_choice
from torchrl_ob._checks.batch import require_next, select
from torchrl_ob._specs import Group, read_observation
from torchrl_ob.critics._inputs import read_sizes
from torchrl_ob.critics.joint import JointQCritic
from torchrl_ob.critics.state_value import StateValue, state_sizes
from torchrl_ob.recurrent.networks import make_memory

__all__ = ["RecurrentCritic"]


class RecurrentCritic(TensorDictModuleBase):
    r"""A memory of observations, and a critic on its features: :math:`Q_i(\mathrm{GRU}(o_{1:t}), a_t)`.

    The memory follows TorchRL's recurrent mode: in a collector it runs one step at a time; in a loss, which sets
    ``set_recurrent_mode``, it runs over sequences ``[*B, T]`` that start from the state of their first step. An
    advantage calls :meth:`encode` once for a batch and calls the ``head`` with actions, so that no recurrence runs
    over candidates.

    Collect with ``TensorDictSequential(policy, critic.memory)`` in an environment with ``InitTracker()`` and the
    memory's ``make_tensordict_primer()``: the batch then has the state before every step. A batch without states is
    accepted if all its trajectories begin with an episode.

    Args:
        memory: a recurrent module such as :class:`~torchrl_ob.MultiAgentGRU`, or TorchRL's ``GRUModule`` or
            ``LSTMModule``, which :meth:`encode` runs a step at a time. For each state that it reads, it writes the next
            one under ``("next", key)``; its other outputs are features.
        head: a critic of single steps that reads the features, such as a :class:`~torchrl_ob.JointQCritic`.
        is_init_key: where the batch says that an episode begins.

    Raises:
        TypeError: for a memory without a state; in TorchRL's value estimators, which take the ``head``.
        ValueError: for a head that reads none of the features; a batch that begins within an episode, without states.
        RuntimeError: for a batch whose states were not kept when it was collected.

    Example:
        >>> from tensordict.nn import TensorDictSequential
        >>> from torchrl.envs import InitTracker, VmasEnv  # needs vmas
        >>> from torchrl_ob import ObAdvantage, RecurrentCritic, policy_from_env
        >>> env = VmasEnv("navigation", num_envs=2, n_agents=3)
        >>> policy = policy_from_env(env)
        >>> critic = RecurrentCritic.from_env(env, cell="gru", memory_size=16)
        >>> env = env.append_transform(InitTracker())
        >>> env = env.append_transform(critic.memory.make_tensordict_primer())
        >>> td = env.rollout(5, TensorDictSequential(policy, critic.memory))
        >>> advantage = ObAdvantage(
        ...     actor_network=policy, value_network=critic, gamma=0.99, lmbda=0.9
        ... )
        >>> advantage.set_keys(reward=env.reward_key)
        >>> advantage(td)["advantage"].shape
        torch.Size([2, 5, 3, 1])
    """

    def __init__(
        self,
        memory: TensorDictModuleBase,
        head: TensorDictModuleBase,
        *,
        is_init_key: NestedKey = "is_init",
    ) -> None:
        super().__init__()
        self.memory, self.head, self.is_init_key = memory, head, unravel_key(is_init_key)
        read, written, asked = (
            list(map(unravel_key, keys)) for keys in (memory.in_keys, memory.out_keys, head.in_keys)
        )
        self.state_keys = [key for key in read if _next(key) in written]
        self.feature_keys = [key for key in written if key[0] != "next"]
        if not self.state_keys:
            raise TypeError(
                f"the memory reads {read} and writes {written}, and so keeps no state: it must write ('next', key) for a key "
                "that it reads, as MultiAgentGRU does."
            )
        if not set(self.feature_keys) & set(asked):
            raise ValueError(
                f"the head reads {asked}, and none of the features {self.feature_keys} that the memory writes: name one as "
                "its observation_key."
            )
        own = [key for key in asked if key not in self.feature_keys]
        self.in_keys = list(dict.fromkeys([*read, *own]))
        self.out_keys = list(head.out_keys)

    @classmethod
    def from_env(
        cls,
        env: EnvBase,
        *,
        group: Group = "agents",
        cell: Literal["gru", "lstm"] = "gru",
        memory_size: int = 64,
        num_layers: int = 1,
        backbone: Any = "pooled",
        hidden_dim: int = 128,
        share_params: bool = True,
        activation: type[nn.Module] = nn.Tanh,
        value_norm: ValueNorm | None = None,
        observation_key: NestedKey | None = None,
        state_key: NestedKey = "state",
        head: Literal["q", "v"] = "q",
    ) -> RecurrentCritic:
        """Build a memory and a :class:`~torchrl_ob.JointQCritic` or :class:`~torchrl_ob.StateValue` from an environment's specs.

        Args:
            env: the environment.
            group: name of the group of agents.
            cell: ``"gru"`` or ``"lstm"``.
            memory_size: width of the memory's state.
            num_layers: number of stacked recurrences.
            backbone: backbone of the critic.
            hidden_dim: width of the critic's hidden layers.
            share_params: whether one network serves all agents, or each has its own.
            activation: activation function.
            value_norm: a TorchRL ``ValueNorm`` of shape 1.
            observation_key: where the observation is.
            state_key: key of a global state, which the critic reads beside the features if there is one.
            head: ``"q"`` values the joint action, ``"v"`` the state alone, for GAE.
        """
        check_choice("head", head, Literal["q", "v"])
        key, spec = read_observation(env, group, observation_key)
        memory = make_memory(
            cell,
            group,
            key,
            spec.shape,
            memory_size,
            share_params=share_params,
            num_layers=num_layers,
            prefix="critic_",
        )
        sizes = read_sizes(env, group, {"observation_key": key, "state_key": state_key})
        sizes |= {"observation_dim": memory_size, "observation_key": memory.out_keys[0]}
        options = {
            "backbone": backbone,
            "hidden_dim": hidden_dim,
            "share_params": share_params,
            "activation": activation,
            "value_norm": value_norm,
        }
        if head == "v":
            return cls(memory.to(env.device), StateValue(**state_sizes(sizes), **options))
        return cls(memory.to(env.device), JointQCritic(**sizes, **options))

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write the head's values: for single steps with their states, or in recurrent mode for sequences.

        Args:
            tensordict: of batch size ``[*B]``; in recurrent mode ``[*B, T]``.
        """
        remembered = self.memory(self._inputs(tensordict, sequences=bool(recurrent_mode())))
        merged = tensordict.copy().update(remembered.select(*self.feature_keys))
        values = self.head(merged)
        for key in self.out_keys:
            tensordict.set(key, values.get(key))
        return tensordict

    def encode(self, tensordict: TensorDictBase) -> TensorDictBase:
        """A copy with the features for every step and, under ``"next"``, for its next state.

        The memory runs over each trajectory from the state of its first step and starts anew with each episode. The
        features of a next state come from one more step, whether that step is in the batch or not. The caller's
        recurrent mode makes no difference.

        Args:
            tensordict: trajectories ``[*B, T]``, with next states.
        """
        along = self._remember(self._inputs(tensordict, sequences=True))
        seen = [k for k in self.memory.in_keys if unravel_key(k) not in self.state_keys]
        seen = [key for key in seen if unravel_key(key) != self.is_init_key]
        following = select(require_next(tensordict), seen, "the critic's memory")
        for key in self.state_keys:
            following.set(key, along.get(_next(key)))
        following.set(self.is_init_key, torch.zeros_like(tensordict.get(self.is_init_key)))
        with set_recurrent_mode(False):
            following = self.memory(following)
        encoded = tensordict.copy()
        for key in self.feature_keys:
            encoded.set(key, along.get(key))
            encoded.set(_next(key), following.get(key))
        return encoded

    def _remember(self, inputs: TensorDictBase) -> TensorDictBase:
        """Features of sequences, and the states after every step.

        TorchRL's modules write the states after the last steps of episodes alone: such a memory runs a step at a time.
        """
        written = {
            unravel_key(key)
            for module in self.memory.modules()
            if getattr(module, "writes_every_state", False)
            for key in module.in_keys
        }
        if written.issuperset(self.state_keys):
            with set_recurrent_mode(True):
                return self.memory(inputs)
        steps: list[TensorDictBase] = []
        with set_recurrent_mode(False):
            for step in inputs.unbind(-1):
                starts = step.get(self.is_init_key)
                for key in self.state_keys:
                    state = (steps[-1].get(_next(key)) if steps else step.get(key)).clone()
                    zeroed = starts.reshape(*starts.shape, *[1] * (state.ndim - starts.ndim))
                    step.set(key, state.masked_fill(zeroed, 0))
                steps.append(self.memory(step))
        return torch.stack([x.select(*self.memory.out_keys) for x in steps], -1)

    def _inputs(self, tensordict: TensorDictBase, *, sequences: bool) -> TensorDictBase:
        """What the memory reads, with states of zero where the batch has none and begins with episodes."""
        inputs = tensordict.select(*self.memory.in_keys, strict=False)
        starts = inputs.get(self.is_init_key, None)
        if starts is None:
            raise KeyError(
                f"the critic's memory reads {self.is_init_key!r}, which the tensordict lacks: append InitTracker() to the environment."
            )
        if torch._C._functorch.is_batchedtensor(starts):
            raise TypeError(
                "TorchRL's value estimators call the critic for steps and next steps at once, where its memory would start "
                "anew at the second: give them its head and the encoded batch, MultiAgentGAE(value_network=critic.head, ...) "
                "and critic.encode(batch)."
            )
        known = starts.flatten(tensordict.ndim).any(-1)
        for key in self.state_keys:
            state = inputs.get(key, None)
            if state is None:
                inputs.set(key, self._zeros(key, tensordict))
            else:
                known = known | state.flatten(tensordict.ndim).ne(0).any(-1)
        torch._assert_async(
            (known[..., 0] if sequences else known).all(),
            f"the batch begins within an episode, and has no state {self.state_keys} of the critic's memory there: collect with "
            "TensorDictSequential(policy, critic.memory), in an environment with critic.memory.make_tensordict_primer().",
        )
        return inputs

    def _zeros(self, key: NestedKey, tensordict: TensorDictBase) -> Tensor:
        for module in self.memory.modules():
            make = getattr(module, "make_tensordict_primer", None)
            spec = None if make is None else make().primers.get(key, None)
            if spec is not None:
                zeros: Tensor = spec.zero(tensordict.batch_size)
                return zeros.to(tensordict.get(self.is_init_key).device)
        raise KeyError(
            f"the critic's memory reads {key!r}, which the tensordict lacks: append its primer to the environment."
        )


def _next(key: NestedKey) -> NestedKey:
    return unravel_key(("next", key))
