"""Units of a network's outputs that follow its targets and leave its outputs unchanged."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Units"]

INERTIA = 0.7
"""How much of the units is kept from one batch of targets to the next."""


class Units(nn.Module):
    r"""Mean μ and scale σ of targets: a network that is fitted to :math:`(y - μ) / σ` outputs :math:`μ + σ f(x)`.

    When they move towards those of new targets, the last layer is changed so that :math:`μ + σ f(x)` stays the same.
    (van Hasselt et al., "Learning values across many orders of magnitude", NeurIPS 2016, section 2.2.) Before the
    first targets, μ and σ are zero, and so is the output.

    Example:
        >>> import torch
        >>> from torchrl_ob.critics.target_scale import Units
        >>> units, last = Units(), torch.nn.Linear(4, 1)
        >>> units(last(torch.ones(1, 4))).item()
        0.0
        >>> units.follow(torch.tensor([1.0, 2.0, 3.0]), last)
        tensor([-1.,  0.,  1.])
        >>> before = units(last(torch.ones(1, 4)))
        >>> _ = units.follow(torch.tensor([10.0, 30.0]), last)
        >>> torch.allclose(before, units(last(torch.ones(1, 4))))
        True
    """

    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("scale", torch.zeros(()))

    def forward(self, output: Tensor) -> Tensor:
        """What a network's output stands for, of any shape."""
        return self.mean + self.scale * output

    @torch.no_grad()
    def follow(self, target: Tensor, last: nn.Module) -> Tensor:
        """Move towards the mean and standard deviation of targets; the first time, to them.

        Args:
            target: of any shape, two or more.
            last: the network's last layer, of weights and biases.

        Returns:
            The targets in the new units.
        """
        known = self.scale > 0
        # where all targets are the same, any scale will do
        scale = target.std().clamp(min=torch.finfo(target.dtype).tiny)
        scale = torch.where(known, torch.lerp(scale, self.scale, INERTIA), scale)
        mean = torch.where(known, torch.lerp(target.mean(), self.mean, INERTIA), target.mean())
        ratio = torch.where(known, self.scale / scale, 1)
        shift = torch.where(known, (self.mean - mean) / scale, 0)
        for name, parameter in last.named_parameters():
            parameter.mul_(ratio)
            if name.endswith("bias"):
                parameter.add_(shift)
        self.mean.copy_(mean)
        self.scale.copy_(scale)
        return (target - mean) / scale
