"""What a critic must be: a function of the joint action, and like every network one of a single step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tensordict import TensorDictBase, unravel_key
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from torchrl_ob._checks.batch import entry_name
from torchrl_ob._rng import isolated_rng


def require_joint_critic(
    critic: TensorDictModuleBase, action: NestedKey, others: Sequence[NestedKey]
) -> None:
    """Refuse a critic that does not read the joint action, or reads an action that no actor writes."""
    in_keys = [unravel_key(key) for key in critic.in_keys]
    # of a critic that does not tell, what is named as the own action is
    read = getattr(critic, "action_keys", None) or [
        key for key in in_keys if entry_name(key) == entry_name(action)
    ]
    missing = [key for key in read if key not in (action, *others)]
    if missing and action in in_keys:
        raise ValueError(
            f"the critic reads the actions {missing}, which {action!r} does not include: give the actors "
            "that write them, as other_actors=[...]. An entry that is no action needs another name."
        )
    if action not in in_keys:
        raise ValueError(
            f"the critic reads {in_keys} and so ignores the joint action {action!r}, as a state value does. Take a critic of "
            "the joint action, such as JointQCritic, or TorchRL's GAE or MultiAgentGAE with this one."
        )


def is_pointwise_in_time(
    evaluate: Callable[[TensorDictBase], Tensor],
    network: nn.Module,
    inputs: TensorDictBase,
    *,
    time_dim: int,
    name: str,
) -> bool:
    """Whether a network's output at a step is known to depend on that step alone.

    It is asked about two trajectories as they are and with time reversed, in evaluation mode and with the
    random numbers of training left alone.

    Args:
        evaluate: the network's output ``[*B, T, *]`` for inputs ``[*B, T]``.
        network: whose modules are meant.
        inputs: what it reads, ``[*B, T]``.
        time_dim: which dimension is time.
        name: what the network is called.

    Returns:
        True; or False where nothing can be told yet: of a single step, or of an output that is the same everywhere.

    Raises:
        ValueError: where the output depends on the order of the steps, or on the other steps of the batch.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl_ob._checks.critic import is_pointwise_in_time
        >>> td = TensorDict({"x": torch.arange(6.0).reshape(2, 3, 1)}, [2, 3])
        >>> layer = torch.nn.Linear(1, 1)
        >>> is_pointwise_in_time(lambda td: layer(td["x"]), layer, td, time_dim=1, name="the critic")
        True
        >>> is_pointwise_in_time(lambda td: td["x"].cumsum(1), layer, td, time_dim=1, name="the critic")
        Traceback (most recent call last):
        ...
        ValueError: the critic has a memory in time: its output at a step changes with the order of the others...
    """
    for key, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise ValueError(
                f"{name} has a {type(module).__name__} in training mode ({key!r}): its output at a step depends on the rest of the "
                "batch, alternative actions included. Take LayerNorm, or call eval() on it."
            )
    if inputs.shape[time_dim] < 2:
        return False
    few = inputs[tuple(slice(None if dim == time_dim else 2) for dim in range(inputs.ndim))]
    backwards = torch.arange(few.shape[time_dim] - 1, -1, -1, device=few.device)
    at: tuple[Any, ...] = (slice(None),) * time_dim
    with torch.no_grad(), isolated_rng(), _evaluating(network):
        output, again = evaluate(few), evaluate(few)
        turned = evaluate(few[(*at, backwards)])[(*at, backwards.to(output.device))]
    scale = output.abs().max()
    tolerance = scale * min(0.05, 1000 * torch.finfo(output.dtype).eps)
    moved = (turned - output).abs().max() > tolerance
    random, flat = (again - output).abs().max() > tolerance, output.amax() == output.amin()
    moved, random, flat = torch.stack([moved, random, flat]).tolist()  # once, before training
    if moved and not random:
        memories = [type(x).__name__ for x in network.modules() if isinstance(x, nn.RNNBase)]
        found = f" ({', '.join(dict.fromkeys(memories))})" if memories else ""
        raise ValueError(
            f"{name} has a memory in time{found}: its output at a step changes with the order of the others, and alternative "
            "actions are asked about single steps. Take a RecurrentCritic, or a critic with a method encode(tensordict) for the "
            "history and a head for the actions; of an actor, MultiAgentGRU, whose state is in the batch and an input like any other."
        )
    return random or not flat


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """A block in evaluation mode that leaves the modes of all modules as they were."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
