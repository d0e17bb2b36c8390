"""Tensors of PyTorch and arrays of JAX in the same memory, on the same device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack


def to_torch(array: Any) -> Tensor:
    """The tensor in the memory of a JAX array, once that is computed.

    JAX takes its arrays to be constant. Whoever writes into the tensor must be the last to read the
    array.

    Example:
        >>> import jax  # needs jax
        >>> from torchrl_ob.envs._dlpack import to_torch
        >>> array = jax.numpy.arange(3) > 0
        >>> tensor = to_torch(array)
        >>> tensor.dtype, tensor.data_ptr() == array.unsafe_buffer_pointer()
        (torch.bool, True)
    """
    return from_dlpack(array)


def to_jax(tensor: Tensor) -> Any:
    """The JAX array in the memory of a tensor, which must not be written before JAX has read it.

    On a CPU JAX copies a tensor that does not start at a multiple of 64 bytes, as a slice may. It also
    copies integers of 64 bits, of which it has none by default: view them as pairs of 32.
    """
    from jax import dlpack

    return dlpack.from_dlpack(tensor.detach().contiguous())


def jax_device(device: torch.device) -> Any:
    """JAX's name of a device of PyTorch.

    Raises:
        RuntimeError: where the installed JAX has no such device.
    """
    import jax

    index = device.index or 0
    if device == torch.device("cuda") and torch.cuda.is_available():
        index = torch.cuda.current_device()
    try:
        return jax.devices(device.type)[index]
    except (RuntimeError, IndexError) as error:
        raise RuntimeError(
            f"JAX has no device {device} here, only {jax.devices()}: take device=cpu, or install JAX "
            "for this device (of CUDA: pip install 'jax[cuda12]')."
        ) from error
