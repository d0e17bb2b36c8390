"""All parameters in one tensor, so that clipping and the optimiser are one operation each."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from torchrl_ob.experiments.errors import ExperimentError

__all__ = ["flatten_parameters"]


def flatten_parameters(parameters: Iterable[nn.Parameter]) -> nn.Parameter:
    """Make parameters, and their gradients, slices of one.

    For optimisers that treat every number alike, such as Adam and SGD. Gradients are then added in
    place: zero that of the flat parameter, and do not set it to ``None``.

    Args:
        parameters: of one type on one device. Their numbers stay; where they are kept changes, so this
            comes before anything else holds on to their data.

    Returns:
        The flat parameter, to hand to the optimiser.

    Raises:
        ExperimentError: for parameters of several types or devices.

    Example:
        >>> import torch
        >>> from torchrl_ob.experiments.flat import flatten_parameters
        >>> net = torch.nn.Linear(2, 1)
        >>> flat = flatten_parameters(net.parameters())
        >>> net(torch.ones(2)).sum().backward()
        >>> torch.optim.SGD([flat], lr=0.1).step()
        >>> flat.grad, torch.equal(flat[:2], net.weight[0])
        (tensor([1., 1., 1.]), True)
    """
    pieces = list(dict.fromkeys(parameters))
    kinds = {(str(piece.dtype), str(piece.device)) for piece in pieces}
    if len(kinds) != 1:
        raise ExperimentError(
            f"parameters of {len(kinds)} kinds, {sorted(kinds)}, do not fit into one tensor: take "
            "trainer.flat_parameters=false."
        )
    flat = nn.Parameter(torch.cat([piece.detach().flatten() for piece in pieces]))
    flat.grad = torch.zeros_like(flat)
    sizes = [piece.numel() for piece in pieces]
    slices = zip(pieces, flat.detach().split(sizes), flat.grad.split(sizes), strict=True)
    for piece, values, gradient in slices:
        piece.data, piece.grad = values.view_as(piece), gradient.view_as(piece)
    return flat
