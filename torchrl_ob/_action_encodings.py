"""Actions as features of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from tensordict.utils import NestedKey
from torch import Tensor

ActionEncoding = Literal[
    "continuous", "categorical", "one_hot", "multi_categorical", "multi_one_hot"
]


def one_hot(index: Tensor, num_classes: int) -> Tensor:
    """Integers ``[...]`` as booleans ``[..., num_classes]``.

    Example:
        >>> import torch
        >>> from torchrl_ob._action_encodings import one_hot
        >>> one_hot(torch.tensor(1), 3)
        tensor([False,  True, False])
    """
    # unlike nn.functional.one_hot, reads no value back to the host
    return index.unsqueeze(-1) == torch.arange(num_classes, device=index.device)


def one_hot_factors(choices: Tensor, nvec: Sequence[int]) -> Tensor:
    """Integers ``[..., D]`` of D factors as one-hot vectors side by side, booleans ``[..., sum(nvec)]``.

    Example:
        >>> import torch
        >>> from torchrl_ob._action_encodings import one_hot_factors
        >>> one_hot_factors(torch.tensor([1, 0]), (2, 3)).int()
        tensor([0, 1, 1, 0, 0], dtype=torch.int32)
    """
    factors = zip(choices.unbind(-1), nvec, strict=True)
    return torch.cat([one_hot(choice, num) for choice, num in factors], -1)


def require_choices(
    key: NestedKey, action: Tensor, encoding: ActionEncoding, choices: Sequence[int]
) -> None:
    """Stop where a discrete action is none of the choices, without reading it back to the host.

    Args:
        key: of the action.
        action: integers ``[..., *event]``, or one-hot vectors.
        encoding: of the action.
        choices: how many there are, of each factor.
    """
    if encoding == "continuous":
        return
    if encoding in ("one_hot", "multi_one_hot"):
        # one that a gradient goes straight through is one-hot up to rounding
        factors = action.split(list(choices), -1)
        fits = [((x.sum(-1) - 1).abs() < 1e-2) & (x.amax(-1) > 0.99) for x in factors]
        kind = f"one-hot vectors of {', '.join(map(str, choices))} choices"
    else:
        factors = action.unbind(-1) if encoding == "multi_categorical" else (action,)
        fits = [(x >= 0) & (x < n) for x, n in zip(factors, choices, strict=True)]
        kind = f"whole numbers from 0 to {', '.join(str(n - 1) for n in choices)}"
    torch._assert_async(
        torch.stack(fits).all(),
        f"the actions {key!r}, or alternatives to them, are out of range: the critic takes {kind}. Build it with "
        "the number of actions that the policy has.",
    )
