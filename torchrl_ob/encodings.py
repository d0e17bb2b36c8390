"""Actions as features of a network, and the sizes of an action from its spec."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torchrl.data import Categorical, MultiCategorical, OneHot, TensorSpec

__all__ = ["ActionEncoding", "action_sizes", "one_hot"]

ActionEncoding = Literal["continuous", "categorical", "one_hot", "multi_categorical"]


def one_hot(index: Tensor, num_classes: int) -> Tensor:
    """Integers ``[...]`` as booleans ``[..., num_classes]``.

    Example:
        >>> import torch
        >>> from torchrl_ob.encodings import one_hot
        >>> one_hot(torch.tensor(1), 3)
        tensor([False,  True, False])
    """
    # unlike nn.functional.one_hot, reads no value back to the host
    return index.unsqueeze(-1) == torch.arange(num_classes, device=index.device)


def action_sizes(spec: TensorSpec) -> dict[str, Any]:
    """The arguments of a critic that follow from the action spec of a group, ``[n, *event]``."""
    sizes: dict[str, Any] = {"num_agents": spec.shape[0]}
    if isinstance(spec, OneHot):
        return {**sizes, "action_dim": spec.shape[-1], "action_encoding": "one_hot"}
    if isinstance(spec, Categorical):
        return {**sizes, "action_dim": spec.space.n, "action_encoding": "categorical"}
    if isinstance(spec, MultiCategorical):
        nvec = tuple(spec.nvec.reshape(-1, spec.shape[-1])[0].tolist())
        return {
            **sizes,
            "action_dim": sum(nvec),
            "action_encoding": "multi_categorical",
            "nvec": nvec,
        }
    return {**sizes, "action_dim": spec.shape[-1]}
