"""The networks of a TorchRL loss, callable on their own."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

__all__ = ["live_network"]


def live_network(loss_module: Any, name: str) -> Any:
    """A network of a loss, with the loss's own parameters, so that it follows their training.

    Args:
        loss_module: a TorchRL loss. A functional one keeps stateless templates of its networks,
            and their parameters apart, under ``name + "_params"``.
        name: attribute of the loss, such as ``"actor_network"``.

    Returns:
        The network; for a functional loss, a copy of the template that holds the parameters.

    Raises:
        TypeError: where the loss has no such network.
    """
    network = getattr(loss_module, name, None)
    if network is None:
        raise TypeError(
            f"{type(loss_module).__name__} has no {name}: pass a TorchRL actor-critic loss that was "
            "built with one, or the network itself."
        )
    params = getattr(loss_module, f"{name}_params", None)
    if params is not None:
        network = deepcopy(network)
        params.to_module(network, preserve_module_state=False)
    return network
