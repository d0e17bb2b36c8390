"""Functions of minibatches, compiled as one graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import torch
from tensordict import TensorDictBase
from torch import nn

__all__ = ["CompiledOnMinibatches"]

Result = TypeVar("Result")


class CompiledOnMinibatches(Generic[Result]):
    """A function of a minibatch, compiled with its gradient as one graph for each size of minibatch.

    The same numbers to rounding; it takes tens of seconds at the first minibatch of a size, and again when a network
    that it calls is replaced by another.

    Args:
        function: of a minibatch ``[N]`` and tensors beside it; what it returns depends on nothing else that changes
            but parameters and buffers in place.
        parameters: that it reads, which tell the device.
    """

    def __init__(self, function: Callable[..., Result], parameters: Iterable[nn.Parameter]) -> None:
        # on a CPU inductor's own tanh takes six times as long as torch's, and Python between the
        # kernels a twentieth of the update; on a GPU, C++ would need CUDA's headers
        on_cpu = all(x.device.type == "cpu" for x in parameters)
        options: dict[str, Any] = {"cpp.use_decompose_tanh": True, "cpp_wrapper": on_cpu}
        self.function: Callable[..., Result] = torch.compile(
            function, fullgraph=True, options=options
        )
        self.sizes: set[int] = set()  # that it was compiled for

    def __call__(self, minibatch: TensorDictBase, *tensors: torch.Tensor) -> Result:
        """What the function returns."""
        # what is compiled depends on nothing but the size of the minibatch
        known = len(minibatch) in self.sizes
        with torch.compiler.set_stance(skip_guard_eval_unsafe=known):
            result = self.function(minibatch, *tensors)
        self.sizes.add(len(minibatch))
        return result
