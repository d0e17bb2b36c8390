"""Gated recurrences over whole sequences that may start anew at any step: the equations, for sets of parameters.

Dimensions: ``s`` sets of parameters, ``T`` steps, ``M`` sequences of a set, ``f`` inputs, ``h`` hidden units. Each
function is one operator, with its gradient as another: ``torch.compile`` handles it as one node for any ``T``. It has
only first derivatives, and no batching rule for ``torch.vmap``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["gru", "lstm"]

_sigmoid_backward = torch.ops.aten.sigmoid_backward
_tanh_backward = torch.ops.aten.tanh_backward


def gru(
    x: Tensor,
    hidden: Tensor,
    is_init: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
) -> Tensor:
    r"""Hidden states of a gated recurrent unit (Cho et al., 2014) after every step, as :class:`torch.nn.GRU` has them.

    .. math::
        h &\leftarrow 0 \text{ where } is\_init \\
        r &= \sigma(W_{ir} x + b_{ir} + W_{hr} h + b_{hr}) \\
        z &= \sigma(W_{iz} x + b_{iz} + W_{hz} h + b_{hz}) \\
        n &= \tanh(W_{in} x + b_{in} + r \odot (W_{hn} h + b_{hn})) \\
        h' &= (1 - z) \odot n + z \odot h

    Args:
        x: inputs ``[s, T, M, f]``.
        hidden: state before the first step ``[s, M, h]``.
        is_init: whether a sequence starts at a step ``[s, T, M, 1]``, boolean.
        weight_ih: rows for r, z, n, ``[s, 3h, f]``.
        weight_hh: ``[s, 3h, h]``.
        bias_ih: ``[s, 3h]``.
        bias_hh: ``[s, 3h]``.

    Returns:
        ``[s, T, M, h]``.

    Example:
        >>> import torch
        >>> from torchrl_ob.recurrent.equations import gru
        >>> net = torch.nn.GRU(3, 4)
        >>> x, start = torch.randn(5, 2, 3), torch.zeros(1, 5, 2, 1, dtype=torch.bool)
        >>> params = [parameter.unsqueeze(0) for parameter in net.parameters()]
        >>> hidden = gru(x.unsqueeze(0), torch.zeros(1, 2, 4), start, *params)
        >>> torch.allclose(hidden[0], net(x)[0], atol=1e-6)
        True
    """
    return _gru(x, hidden, is_init, weight_ih, weight_hh, bias_ih, bias_hh)[0]


def lstm(
    x: Tensor,
    hidden: Tensor,
    cell: Tensor,
    is_init: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
) -> tuple[Tensor, Tensor]:
    r"""Hidden and cell states of long short-term memory (Hochreiter & Schmidhuber, 1997; forget gate: Gers et al., 2000).

    .. math::
        h, c &\leftarrow 0 \text{ where } is\_init \\
        i, f, o &= \sigma(W_{i\cdot} x + b_{i\cdot} + W_{h\cdot} h + b_{h\cdot}) \\
        g &= \tanh(W_{ig} x + b_{ig} + W_{hg} h + b_{hg}) \\
        c' &= f \odot c + i \odot g \\
        h' &= o \odot \tanh(c')

    Args:
        x: inputs ``[s, T, M, f]``.
        hidden: hidden state before the first step ``[s, M, h]``.
        cell: cell state before the first step ``[s, M, h]``.
        is_init: whether a sequence starts at a step ``[s, T, M, 1]``, boolean.
        weight_ih: rows for i, f, g, o as in :class:`torch.nn.LSTM`, ``[s, 4h, f]``.
        weight_hh: ``[s, 4h, h]``.
        bias_ih: ``[s, 4h]``.
        bias_hh: ``[s, 4h]``.

    Returns:
        Hidden and cell states after every step, each ``[s, T, M, h]``.
    """
    return _lstm(x, hidden, cell, is_init, weight_ih, weight_hh, bias_ih + bias_hh)[:2]


def _project(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x W^T + b`` at every step, ``[s, T, M, rows]``."""
    flat = torch.baddbmm(bias.unsqueeze(1), x.flatten(1, 2), weight.mT)
    return flat.unflatten(1, x.shape[1:3])


def _before(first: Tensor, after: Tensor, is_init: Tensor) -> Tensor:
    """The state that each step starts from, ``[s, T, M, h]``."""
    return torch.cat([first.unsqueeze(1), after[:, :-1]], 1).masked_fill_(is_init, 0)


def _weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """``sum_t grad_t^T x_t``, ``[s, rows, f]``: one product for all steps."""
    return grad.flatten(1, 2).mT @ x.flatten(1, 2)


def _operator(name: str, inputs: int, outputs: int) -> Callable[..., Any]:
    """Make an operator of a function of so many tensors, on all devices."""
    arguments = ", ".join(f"Tensor x{k}" for k in range(inputs))
    schema = f"({arguments}) -> ({', '.join(['Tensor'] * outputs)})"
    return torch.library.custom_op(f"torchrl_ob::{name}", mutates_args=(), schema=schema)


@_operator("gru", inputs=7, outputs=4)
def _gru(*inputs: Tensor) -> tuple[Tensor, ...]:
    """Hidden states, and what the gradient needs: r and z, n, and n's share of the state."""
    x, hidden, is_init, weight_ih, weight_hh, bias_ih, bias_hh = inputs
    h = hidden.shape[-1]
    rz = _project(x, weight_ih[:, : 2 * h], (bias_ih + bias_hh)[:, : 2 * h])
    n = _project(x, weight_ih[:, 2 * h :], bias_ih[:, 2 * h :])
    weight_rz, weight_n = weight_hh[:, : 2 * h].mT, weight_hh[:, 2 * h :].mT
    bias_n = bias_hh[:, None, 2 * h :]
    after, share = torch.empty_like(n), torch.empty_like(n)
    for t in range(x.shape[1]):
        hidden = hidden.masked_fill(is_init[:, t], 0)
        reset, update = rz[:, t].baddbmm_(hidden, weight_rz).sigmoid_().chunk(2, -1)
        share[:, t] = torch.baddbmm(bias_n, hidden, weight_n)
        n[:, t].addcmul_(reset, share[:, t]).tanh_()
        hidden = torch.lerp(n[:, t], hidden, update, out=after[:, t])
    return after, rz, n, share


@_operator("gru_backward", inputs=12, outputs=6)
def _gru_backward(*inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the inputs, the state and the parameters, from the last step to the first."""
    grad, after, rz, n, share, x, hidden, is_init, weight_ih, weight_hh, _, _ = inputs
    h = hidden.shape[-1]
    before = _before(hidden, after, is_init)
    d_gates = n.new_empty(*n.shape[:-1], 4 * h)  # r, z, n, and n's share of the state
    d_hidden = torch.zeros_like(hidden)
    for t in range(x.shape[1] - 1, -1, -1):
        reset, update = rz[:, t].chunk(2, -1)
        d_reset, d_update, d_n, d_share = d_gates[:, t].chunk(4, -1)
        d_hidden.add_(grad[:, t])
        _tanh_backward(d_hidden * (1 - update), n[:, t], grad_input=d_n)
        _sigmoid_backward(d_hidden * (before[:, t] - n[:, t]), update, grad_input=d_update)
        _sigmoid_backward(d_n * share[:, t], reset, grad_input=d_reset)
        torch.mul(d_n, reset, out=d_share)
        d_hidden.mul_(update)
        d_hidden.baddbmm_(d_gates[:, t, :, : 2 * h], weight_hh[:, : 2 * h])
        d_hidden.baddbmm_(d_share, weight_hh[:, 2 * h :])
        d_hidden.masked_fill_(is_init[:, t], 0)
    d_input = d_gates[..., : 3 * h]
    d_rz, d_share = d_gates[..., : 2 * h], d_gates[..., 3 * h :]
    d_x = (d_input.flatten(1, 2) @ weight_ih).view_as(x)
    d_weight_hh = torch.cat([_weight_gradient(d_rz, before), _weight_gradient(d_share, before)], 1)
    sums = d_gates.sum((1, 2))
    d_bias_hh = torch.cat([sums[:, : 2 * h], sums[:, 3 * h :]], 1)
    d_weight_ih, d_bias_ih = _weight_gradient(d_input, x), sums[:, : 3 * h].clone()
    return d_x, d_hidden, d_weight_ih, d_weight_hh, d_bias_ih, d_bias_hh


@_operator("lstm", inputs=7, outputs=3)
def _lstm(*inputs: Tensor) -> tuple[Tensor, ...]:
    """Hidden and cell states, and the gates for the gradient."""
    x, hidden, cell, is_init, weight_ih, weight_hh, bias = inputs
    h = hidden.shape[-1]
    gates = _project(x, weight_ih, bias)
    after, cells = (gates.new_empty(*gates.shape[:-1], h) for _ in range(2))
    for t in range(x.shape[1]):
        hidden, cell = hidden.masked_fill(is_init[:, t], 0), cell.masked_fill(is_init[:, t], 0)
        now = gates[:, t].baddbmm_(hidden, weight_hh.mT)
        now[..., : 2 * h].sigmoid_()
        now[..., 3 * h :].sigmoid_()
        enter, keep, new, out = now.chunk(4, -1)
        cell = torch.mul(keep, cell, out=cells[:, t]).addcmul_(enter, new.tanh_())
        hidden = torch.mul(out, cell.tanh(), out=after[:, t])
    return after, cells, gates


@_operator("lstm_backward", inputs=12, outputs=6)
def _lstm_backward(*inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of the inputs, both states, the weights and the bias."""
    grad, grad_cell, after, cells, gates, x, hidden, cell, is_init, weight_ih, weight_hh, _ = inputs
    before, cell_before = _before(hidden, after, is_init), _before(cell, cells, is_init)
    d_gates = torch.empty_like(gates)
    d_hidden, d_cell = torch.zeros_like(hidden), torch.zeros_like(cell)
    for t in range(x.shape[1] - 1, -1, -1):
        enter, keep, new, out = gates[:, t].chunk(4, -1)
        d_enter, d_keep, d_new, d_out = d_gates[:, t].chunk(4, -1)
        d_hidden.add_(grad[:, t])
        squashed = cells[:, t].tanh()
        d_cell.add_(grad_cell[:, t]).add_(_tanh_backward(d_hidden * out, squashed))
        _sigmoid_backward(d_hidden * squashed, out, grad_input=d_out)
        _sigmoid_backward(d_cell * new, enter, grad_input=d_enter)
        _sigmoid_backward(d_cell * cell_before[:, t], keep, grad_input=d_keep)
        _tanh_backward(d_cell * enter, new, grad_input=d_new)
        d_hidden = torch.bmm(d_gates[:, t], weight_hh).masked_fill_(is_init[:, t], 0)
        d_cell.mul_(keep).masked_fill_(is_init[:, t], 0)
    d_x = (d_gates.flatten(1, 2) @ weight_ih).view_as(x)
    d_weight_ih, d_weight_hh = _weight_gradient(d_gates, x), _weight_gradient(d_gates, before)
    return d_x, d_hidden, d_cell, d_weight_ih, d_weight_hh, d_gates.sum((1, 2))


def _connect(operator: Any, backward: Any, num_states: int, widths: Sequence[int]) -> None:
    """Say what both operators return, for tracing, and how the gradient of the first follows.

    Args:
        operator: of inputs, states, starts and parameters; returns the states after every step, and what the gradient needs.
        backward: of gradients of these states, all that the operator returns, and all that it is given.
        num_states: number of states.
        widths: of what the operator returns, in hidden units.
    """

    def context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[num_states:])
        ctx.save_for_backward(*output, *inputs)

    def gradient(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        nothing = saved[0].new_zeros(()).expand_as(saved[0])  # takes no memory
        defined = [nothing if grad is None else grad for grad in grads[:num_states]]
        d_inputs = backward(*defined, *saved)
        return *d_inputs[: 1 + num_states], None, *d_inputs[1 + num_states :]

    def differentiable(*given: Tensor) -> list[Tensor]:
        x, *rest = given[num_states + len(widths) :]
        return [torch.empty_like(y) for y in (x, *rest[:num_states], *rest[num_states + 1 :])]

    operator.register_fake(
        lambda x, h, *_: tuple(x.new_empty(*x.shape[:-1], m * h.shape[-1]) for m in widths)
    )
    backward.register_fake(differentiable)
    operator.register_autograd(gradient, setup_context=context)
    for device in ("cpu", "cuda"):
        operator.register_autocast(device, torch.float32)


_connect(_gru, _gru_backward, num_states=1, widths=(1, 2, 1, 1))
_connect(_lstm, _lstm_backward, num_states=2, widths=(1, 1, 4))
