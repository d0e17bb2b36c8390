"""Actions of several categorical factors, each with a number of choices of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch import distributions as D

from torchrl_ob._action_encodings import one_hot_factors


class FactoredCategorical(D.Distribution):
    r"""Independent categorical factors: :math:`\pi(a) = \prod_d \pi_d(a_d)`.

    Other than ``Independent(Categorical)``, factors may differ in their number of choices, and the action
    may be written as one-hot vectors side by side.

    Args:
        logits: of all factors side by side, ``[*B, sum(nvec)]``.
        nvec: number of choices of each of D factors.
        mask: which choices are available, like ``logits``; all by default.
        one_hot: whether an action is D one-hot vectors side by side, ``[*B, sum(nvec)]``, or integers
            ``[*B, D]``.
        dtype: of the actions.

    Raises:
        ValueError: if ``logits`` or ``mask`` has another size than ``sum(nvec)``.

    Example:
        >>> import torch
        >>> from torchrl_ob import FactoredCategorical
        >>> dist = FactoredCategorical(torch.tensor([0.0, 9.0, 9.0, 0.0, 0.0]), nvec=(2, 3))
        >>> dist.mode
        tensor([1, 0])
        >>> FactoredCategorical(dist.logits, (2, 3), one_hot=True).mode
        tensor([0, 1, 1, 0, 0])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        logits: Tensor,
        nvec: Sequence[int],
        mask: Tensor | None = None,
        *,
        one_hot: bool = False,
        dtype: torch.dtype = torch.int64,
    ) -> None:
        for name, value in (("logits", logits), ("mask", mask)):
            if value is not None and value.shape[-1:] != (sum(nvec),):
                raise ValueError(
                    f"the {name} of factors with {tuple(nvec)} choices must have a last dimension of "
                    f"{sum(nvec)}, and have the shape {list(value.shape)}."
                )
        if mask is not None:
            logits = logits.masked_fill(~mask, -math.inf)
        self.logits, self.nvec, self.one_hot, self.dtype = logits, tuple(nvec), one_hot, dtype
        parts = logits.split(list(nvec), -1)
        self.factors = [D.Categorical(logits=part, validate_args=False) for part in parts]
        event_size = sum(nvec) if one_hot else len(nvec)
        super().__init__(logits.shape[:-1], torch.Size([event_size]), validate_args=False)

    def encode(self, choices: Tensor) -> Tensor:
        """Choices ``[*, D]`` as actions ``[*, *event_shape]``."""
        if self.one_hot:
            choices = one_hot_factors(choices, self.nvec)
        return choices.to(self.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw actions, ``[*sample_shape, *B, *event_shape]``."""
        shape = torch.Size(sample_shape)
        return self.encode(torch.stack([factor.sample(shape) for factor in self.factors], -1))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of actions, ``[*B]``."""
        if self.one_hot:
            choices = [part.long().argmax(-1) for part in value.split(list(self.nvec), -1)]
        else:
            choices = list(value.long().unbind(-1))
        pairs = zip(self.factors, choices, strict=True)
        return torch.stack([factor.log_prob(choice) for factor, choice in pairs], -1).sum(-1)

    def entropy(self) -> Tensor:
        """Of the joint action: the sum of the factors', ``[*B]``."""
        return torch.stack([factor.entropy() for factor in self.factors], -1).sum(-1)

    @property
    def mode(self) -> Tensor:
        """The most probable action, the first of equals."""
        return self.encode(torch.stack([factor.logits.argmax(-1) for factor in self.factors], -1))

    @property
    def deterministic_sample(self) -> Tensor:
        """TorchRL's name for the mode."""
        return self.mode
