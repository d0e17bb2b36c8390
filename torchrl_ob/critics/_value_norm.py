"""A critic that outputs normalized values, as TorchRL's value norms keep them."""

from __future__ import annotations

from torch import Tensor
from torchrl.modules import ValueNorm

__all__ = ["denormalize", "require_value_norm"]


def require_value_norm(norm: ValueNorm | None) -> ValueNorm | None:
    """The norm, if it is one number for all agents.

    Raises:
        ValueError: for another.
    """
    if norm is not None and getattr(norm, "shape", None) != (1,):
        raise ValueError(
            f"value_norm must be a TorchRL ValueNorm of shape 1, such as PopArtValueNorm(shape=1), got {norm!r}."
        )
    return norm


def denormalize(norm: ValueNorm | None, values: Tensor) -> Tensor:
    """Outputs of a network ``[N, n, K]`` in units of the return."""
    if norm is None:
        return values
    denormalized: Tensor = norm.denormalize(values.unsqueeze(-1)).squeeze(-1)
    return denormalized
