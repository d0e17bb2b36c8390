"""Actions as features of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

__all__ = ["ActionEncoding", "one_hot", "one_hot_factors"]

ActionEncoding = Literal[
    "continuous", "categorical", "one_hot", "multi_categorical", "multi_one_hot"
]


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


def one_hot_factors(choices: Tensor, nvec: Sequence[int]) -> Tensor:
    """Integers ``[..., D]`` of D factors as one-hot vectors side by side, booleans ``[..., sum(nvec)]``.

    Example:
        >>> import torch
        >>> from torchrl_ob.encodings import one_hot_factors
        >>> one_hot_factors(torch.tensor([1, 0]), (2, 3)).int()
        tensor([0, 1, 1, 0, 0], dtype=torch.int32)
    """
    factors = zip(choices.unbind(-1), nvec, strict=True)
    return torch.cat([one_hot(choice, num) for choice, num in factors], -1)
