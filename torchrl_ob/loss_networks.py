"""The networks of a TorchRL loss, callable on their own."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from tensordict.nn import TensorDictParams

__all__ = ["live_network", "share_copied_params"]


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


def share_copied_params(memo: dict[int, Any]) -> None:
    """Have networks that are copied along with a loss take the parameters of its copy.

    A functional loss keeps its parameters in ``TensorDictParams``, whose copies are new parameters that
    ``copy.deepcopy`` does not know of: it would give the networks others, which nothing trains.

    Args:
        memo: of ``copy.deepcopy``: copies by the identity of what was copied; under its own, what was.
    """
    for params in memo.get(id(memo), ()):
        copied = memo.get(id(params))
        if isinstance(params, TensorDictParams) and isinstance(copied, TensorDictParams):
            for key, parameter in params.items(True, True):
                memo[id(parameter)] = copied.get(key)
