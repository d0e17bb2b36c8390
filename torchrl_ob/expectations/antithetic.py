"""Pairs of actions whose mean is nearer to the policy's than that of two independent draws."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributions as D

from torchrl_ob.expectations.gaussian import unwrap_gaussian

__all__ = ["antithetic_pair"]


def antithetic_pair(dist: D.Distribution) -> Tensor:
    r"""Two actions of a distribution, ``[2, *B, n, *event]``, each distributed as one draw is.

    Of a Gaussian, also under elementwise transforms, they mirror one another,

    .. math::
        a = f(\mu + \sigma z), \qquad a' = f(\mu - \sigma z),

    so that what is odd in z cancels in their mean. Of any other they are independent. (Hammersley and
    Morton, "A new Monte Carlo technique: antithetic variates", 1956.)

    Args:
        dist: the agents' policies.

    Example:
        >>> import torch
        >>> from torchrl_ob.expectations.antithetic import antithetic_pair
        >>> antithetic_pair(torch.distributions.Normal(torch.zeros(3), 2.0)).sum(0)
        tensor([0., 0., 0.])
    """
    gaussian = unwrap_gaussian(dist)
    if gaussian is None:
        return dist.sample(torch.Size([2]))
    base, transforms = gaussian
    noise = base.scale * torch.randn_like(base.loc)
    action = base.loc + torch.stack([noise, -noise])
    for transform in transforms:
        action = transform(action)
    return action
