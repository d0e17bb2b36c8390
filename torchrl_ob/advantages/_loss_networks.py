"""The networks of a TorchRL loss, callable on their own."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from tensordict import TensorDict
from tensordict.nn import TensorDictParams


def live_network(loss_module: Any, name: str) -> Any:
    """A network of a loss, with the loss's own parameters, so that it follows their training.

    Args:
        loss_module: a TorchRL loss. A functional one keeps stateless templates of its networks,
            and their parameters apart, under ``name + "_params"``.
        name: attribute of the loss, such as ``"actor_network"``.

    Returns:
        The network; for a functional loss, a copy of the template that holds the parameters.

    Raises:
        TypeError: if the loss has no such network.
    """
    network = getattr(loss_module, name, None)
    if network is None:
        raise TypeError(
            f"{type(loss_module).__name__} has no {name}: pass a TorchRL actor-critic loss, or the network itself."
        )
    params = getattr(loss_module, f"{name}_params", None)
    if params is not None:
        network = deepcopy(network)
        params.to_module(network, preserve_module_state=False)
    return network


def copy_network(network: Any, memo: dict[int, Any]) -> Any:
    """A copy of a network; where a loss is copied along with it, with the parameters of the loss's copy.

    A functional loss keeps its parameters in ``TensorDictParams``, whose copies are new parameters that
    ``copy.deepcopy`` does not know of: it would give the network others, which nothing trains.

    Args:
        network: such as the actor of an advantage.
        memo: of ``copy.deepcopy``: copies by the identity of what was copied; under its own, what was.
    """
    copied, own = deepcopy(network, memo), TensorDict.from_module(network)
    leaves = {key: id(leaf) for key, leaf in own.items(True, True)}
    for params in list(memo.get(id(memo), ())):
        if isinstance(params, TensorDictParams) and leaves:
            found = {key: id(leaf) for key, leaf in params.items(True, True)}
            if found == leaves:
                memo[id(params)].to_module(copied, preserve_module_state=False)
    return copied
