"""Recurrent networks of a team, for one step at a time or whole sequences at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from tensordict import TensorDictBase, unravel_key
from tensordict.nn import TensorDictModuleBase, dispatch
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.data import Composite, Unbounded
from torchrl.envs import TensorDictPrimer
from torchrl.modules import recurrent_mode

from torchrl_ob.recurrent.equations import gru, lstm

__all__ = ["MultiAgentGRU", "MultiAgentLSTM"]

PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
"""Of a layer, as :class:`torch.nn.GRU` has them."""


class _MultiAgentRecurrence(TensorDictModuleBase):
    """What both have in common: keys, layouts of a batch, parameters and checks."""

    writes_every_state = True  # in recurrent mode, that after each step
    gates: int
    states: tuple[str, ...]
    recur: Callable[..., tuple[Tensor, ...]]  # the states after every step, the hidden one first

    def __init__(
        self,
        num_agents: int,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        share_params: bool = True,
        in_key: NestedKey = ("agents", "observation"),
        out_key: NestedKey | None = None,
        state_keys: Sequence[NestedKey] | None = None,
        is_init_key: NestedKey = "is_init",
        default_recurrent_mode: bool | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        in_key = unravel_key(in_key)
        group = in_key[:-1] if isinstance(in_key, tuple) else ()
        if state_keys is None:
            state_keys = [(*group, name) for name in self.states]
        if len(state_keys) != len(self.states):
            raise ValueError(
                f"{type(self).__name__} keeps {len(self.states)} state(s), {self.states}, got {state_keys}. Name one key for each."
            )
        self.state_keys = [unravel_key(key) for key in state_keys]
        self.is_init_key = unravel_key(is_init_key)
        self.in_keys = [in_key, *self.state_keys, self.is_init_key]
        out_key = unravel_key((*group, "features") if out_key is None else out_key)
        self.out_keys = [out_key, *(unravel_key(("next", key)) for key in self.state_keys)]
        self.num_agents, self.num_layers = num_agents, num_layers
        self.input_size, self.hidden_size = input_size, hidden_size
        self.share_params = share_params
        self._recurrent_mode = default_recurrent_mode
        sets = () if share_params else (num_agents,)
        for layer in range(num_layers):
            size = hidden_size if layer else input_size
            for name, shape in zip(PARAMETERS, ((size,), (hidden_size,), (), ()), strict=True):
                shape = (*sets, self.gates * hidden_size, *shape)
                values = torch.empty(shape, device=device, dtype=dtype)
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(values))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all parameters as :class:`torch.nn.GRU` does, uniform up to ``1 / sqrt(hidden_size)``."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    @property
    def recurrent_mode(self) -> bool:
        """Whether the last batch dimension is time, as set by ``set_recurrent_mode`` or by default."""
        mode = recurrent_mode()
        return bool(self._recurrent_mode if mode is None else mode)

    def make_tensordict_primer(self) -> TensorDictPrimer:
        """The transform that adds the states to an environment, zeros ``[*B, n, layers, h]`` at a reset."""
        shape = (self.num_agents, self.num_layers, self.hidden_size)
        dtype = self.weight_hh_l0.dtype
        specs = Composite({key: Unbounded(shape, dtype=dtype) for key in self.state_keys})
        for key in self.state_keys:
            if isinstance(key, tuple):  # the entries of a group share its agents' dimension
                specs[key[:-1]].shape = torch.Size((self.num_agents,))
        return TensorDictPrimer(specs, expand_specs=True)

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write features and next states, for one step or for every step of sequences."""
        x, states, is_init = self._read(tensordict)
        lead, n = x.shape[:-2], self.num_agents
        if self.recurrent_mode and not lead:
            raise ValueError(
                f"in recurrent mode the last batch dimension is time, and {self.in_keys[0]!r} of shape {list(x.shape)} has none. "
                f"Pass [*B, T, n, {self.input_size}], or leave the mode with set_recurrent_mode(False)."
            )
        batch = (lead[:-1].numel(), lead[-1]) if self.recurrent_mode else (lead.numel(), 1)
        x = self._to_sets(x.reshape(*batch, n, self.input_size))
        if is_init.ndim == len(lead) + 1:
            is_init = is_init.unsqueeze(-2).expand(*lead, n, 1)
        is_init = self._to_sets(is_init.reshape(*batch, n, 1))
        first = [state.reshape(*batch, *state.shape[len(lead) :])[:, :1] for state in states]
        after = []
        for layer in range(self.num_layers):
            start = [self._to_sets(state[..., layer, :]).squeeze(1) for state in first]
            after.append(self.recur(x, *start, is_init, *self._layer_parameters(layer)))
            x = after[-1][0]
        features = self._from_sets(x, batch).reshape(*lead, n, self.hidden_size)
        tensordict.set(self.out_keys[0], features)
        for key, layers in zip(self.out_keys[1:], zip(*after, strict=True), strict=True):
            state = torch.stack([self._from_sets(layer, batch) for layer in layers], -2)
            tensordict.set(key, state.reshape(*lead, *state.shape[2:]))
        return tensordict

    def _layer_parameters(self, layer: int) -> list[Tensor]:
        """Sets of parameters of a layer, one or ``n``."""
        parameters = [getattr(self, f"{name}_l{layer}") for name in PARAMETERS]
        return [p.unsqueeze(0) for p in parameters] if self.share_params else parameters

    def _to_sets(self, x: Tensor) -> Tensor:
        """``[B, T, n, f]`` to ``[1, T, B n, f]`` or, with parameters for each agent, ``[n, T, B, f]``."""
        if self.share_params:
            return x.transpose(0, 1).flatten(1, 2).unsqueeze(0)
        return x.permute(2, 1, 0, 3).contiguous()

    def _from_sets(self, x: Tensor, batch: tuple[int, int]) -> Tensor:
        if self.share_params:
            return x.squeeze(0).unflatten(1, (batch[0], self.num_agents)).transpose(0, 1)
        return x.permute(2, 1, 0, 3)

    def _read(self, tensordict: TensorDictBase) -> tuple[Tensor, list[Tensor], Tensor]:
        """Inputs, states and starts, of the shapes that belong together."""
        in_key, *state_keys, is_init_key = self.in_keys
        remedies = dict.fromkeys(
            state_keys, "append its make_tensordict_primer() to the environment"
        )
        remedies |= {
            in_key: "name the observation of the group with in_key",
            is_init_key: "append InitTracker() to the environment",
        }
        name, read = type(self).__name__, {key: tensordict.get(key, None) for key in self.in_keys}
        for key, entry in read.items():
            if entry is None:
                raise KeyError(
                    f"{name} reads {key!r}, which the tensordict lacks; it has "
                    f"{list(tensordict.keys(True, True))}. Remedy: {remedies[key]}."
                )
        x, *states, is_init = read.values()
        n, lead = self.num_agents, x.shape[:-2]
        state = (*lead, n, self.num_layers, self.hidden_size)
        expected = [
            [(*lead, n, self.input_size)],
            *[[state] for _ in states],
            [(*lead, 1), (*lead, n, 1)],
        ]
        for (key, entry), shapes in zip(read.items(), expected, strict=True):
            if x.ndim < 2 or entry.shape not in shapes:
                wanted = " or ".join(str(list(shape)) for shape in shapes)
                raise ValueError(
                    f"{name} reads {key!r} of shape {wanted}, and it has {list(entry.shape)}: num_agents={n}, input_size="
                    f"{self.input_size}, num_layers={self.num_layers}, hidden_size={self.hidden_size}. Remedy: build it with the "
                    f"environment's sizes, or {remedies[key]}."
                )
        if is_init.dtype != torch.bool:
            raise TypeError(f"{self.is_init_key!r} must be boolean, and is {is_init.dtype}.")
        return x, states, is_init


class MultiAgentGRU(_MultiAgentRecurrence):
    r"""A gated recurrent unit for each agent of a team (Cho et al., "Learning Phrase Representations", EMNLP 2014).

    Reads ``("agents", "observation")`` ``[*B, n, o]``, ``("agents", "hidden")`` ``[*B, n, layers, h]`` and ``"is_init"``
    ``[*B, 1]``, or one for each agent ``[*B, n, 1]``. Writes ``("agents", "features")`` ``[*B, n, h]`` and ``("next",
    "agents", "hidden")``. Of :func:`~torchrl_ob.recurrent.equations.gru`, the state is zeroed where ``is_init``.

    By default, each element of the batch is one step, as a collector needs it. Under
    :class:`torchrl.modules.set_recurrent_mode`, which TorchRL's losses set, the last batch dimension is time:
    sequences ``[*B, T]`` start from the state of their first step, and anew at every ``is_init``. The state after
    *every* step is written, as running one step at a time would write it, and the computation does not wait for the
    device.

    Args:
        num_agents: n.
        input_size: of an agent's observation.
        hidden_size: h.
        num_layers: number of stacked recurrences.
        share_params: whether one set of parameters serves all agents, named and shaped as those of
            :class:`torch.nn.GRU`, whose ``state_dict`` then loads; otherwise each has a leading dimension n.
        in_key: key of the observation. The other keys of the group are named after it.
        out_key: key of the features.
        state_keys: keys of the states, here ``[("agents", "hidden")]``.
        is_init_key: key that ``InitTracker`` writes.
        default_recurrent_mode: mode if no ``set_recurrent_mode`` is active; ``None`` means one step at a time.
        device: of the parameters.
        dtype: of the parameters and states.

    Raises:
        KeyError: if an entry is missing.
        ValueError: if shapes disagree, or a batch without dimensions is given in recurrent mode.
        TypeError: if ``is_init`` is not boolean.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.modules import set_recurrent_mode
        >>> from torchrl_ob.recurrent import MultiAgentGRU
        >>> net = MultiAgentGRU(num_agents=3, input_size=4, hidden_size=8)
        >>> agents = {"observation": torch.randn(2, 5, 3, 4), "hidden": torch.zeros(2, 5, 3, 1, 8)}
        >>> starts = torch.zeros(2, 5, 1, dtype=torch.bool)
        >>> sequences = TensorDict({"agents": agents, "is_init": starts}, [2, 5])
        >>> with set_recurrent_mode("recurrent"):
        ...     net(sequences)["agents", "features"].shape
        torch.Size([2, 5, 3, 8])
        >>> net(sequences[:, 0])["next", "agents", "hidden"].shape
        torch.Size([2, 3, 1, 8])
    """

    gates, states = 3, ("hidden",)
    recur = staticmethod(lambda *inputs: (gru(*inputs),))


class MultiAgentLSTM(_MultiAgentRecurrence):
    r"""Long short-term memory for each agent of a team (Hochreiter & Schmidhuber, Neural Computation 1997).

    As :class:`MultiAgentGRU`, with :func:`~torchrl_ob.recurrent.equations.lstm` and two states, ``("agents", "hidden")`` and
    ``("agents", "cell")``, each ``[*B, n, layers, h]``; the parameters are those of :class:`torch.nn.LSTM`.

    Args: as :class:`MultiAgentGRU`; ``state_keys`` names two.

    Example:
        >>> from torchrl_ob.recurrent import MultiAgentLSTM
        >>> net = MultiAgentLSTM(3, 4, 8, in_key=("adversaries", "observation"))
        >>> net.out_keys
        [('adversaries', 'features'), ('next', 'adversaries', 'hidden'), ('next', 'adversaries', 'cell')]
    """

    gates, states = 4, ("hidden", "cell")
    recur = staticmethod(lstm)


def make_memory(
    cell: Literal["gru", "lstm"],
    group: str | tuple[str, ...],
    observation_key: NestedKey,
    observations: Sequence[int],
    memory_size: int,
    *,
    share_params: bool,
    num_layers: int = 1,
    prefix: str = "",
) -> MultiAgentGRU | MultiAgentLSTM:
    """A memory of observations ``[n, o]``, by its name; ``prefix`` tells its features and states from those of another."""
    cells: dict[str, type[MultiAgentGRU | MultiAgentLSTM]] = {
        "gru": MultiAgentGRU,
        "lstm": MultiAgentLSTM,
    }
    if cell not in cells:
        raise ValueError(f"cell must be one of {list(cells)}, got {cell!r}.")
    features, *states = (
        unravel_key((*((group,) if isinstance(group, str) else group), prefix + name))
        for name in ("features", *cells[cell].states)
    )
    num_agents, size = observations
    return cells[cell](
        num_agents,
        size,
        memory_size,
        num_layers,
        share_params=share_params,
        in_key=observation_key,
        out_key=features,
        state_keys=states,
    )
