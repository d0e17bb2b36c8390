"""Functions of minibatches, compiled as one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any, Generic, TypeVar

import torch
from tensordict import TensorDictBase
from torch import nn

Result = TypeVar("Result")

# a gradient that a function takes is in its graph
_tracing_gradients = torch._dynamo.config.patch(trace_autograd_ops=True)


class CompiledOnMinibatches(Generic[Result]):
    """A function of a minibatch, which may take gradients, compiled as one graph for each size of minibatch.

    The same numbers to rounding; it takes tens of seconds at the first minibatch of a size, and again when a network
    that it calls is replaced by another. On a GPU it is recorded as a CUDA graph: what it returns is written over by
    its next call.

    Args:
        function: of a minibatch ``[N]``; what it returns depends on nothing else that changes but parameters and
            buffers in place.
        parameters: that it reads, which tell the device.
    """

    def __init__(
        self, function: Callable[[TensorDictBase], Result], parameters: Iterable[nn.Parameter]
    ) -> None:
        options: dict[str, Any] = {"triton.cudagraphs": True}  # launches take longer than kernels
        if all(x.device.type == "cpu" for x in parameters):
            # inductor's own tanh takes six times as long as torch's, and Python between the kernels
            # a twentieth of the update
            options = {"cpp.use_decompose_tanh": True, "cpp_wrapper": True}
        self.function, self.options = function, options
        self.of_size: dict[int, Callable[[TensorDictBase], Result]] = {}

    def __call__(self, minibatch: TensorDictBase) -> Result:
        """What the function returns."""
        size = len(minibatch)
        known = size in self.of_size
        if not known:
            self.of_size[size] = torch.compile(
                _copy(self.function), fullgraph=True, dynamic=False, options=self.options
            )
        # what is compiled depends on nothing but the size of the minibatch
        with _tracing_gradients, torch.compiler.set_stance(skip_guard_eval_unsafe=known):
            return self.of_size[size](minibatch)


def _copy(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function with a code object of its own, for which alone it is compiled."""
    assert isinstance(function, FunctionType)
    code, variables = function.__code__.replace(), function.__globals__
    return FunctionType(
        code, variables, function.__name__, function.__defaults__, function.__closure__
    )
