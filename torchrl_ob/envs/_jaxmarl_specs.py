"""Specs of TorchRL for what JaxMARL's environments take and show."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torchrl.data import Bounded, Categorical, Composite, OneHot, TensorSpec, Unbounded


def example_spec(example: Any, device: torch.device) -> Any:
    """The spec of one environment's part of what is shown, from the shapes of a batch of it."""
    if isinstance(example, dict):
        parts = {name: example_spec(part, device) for name, part in example.items()}
        return Composite(parts, device=device)
    if example.dtype == bool:
        return Categorical(2, example.shape[1:], dtype=torch.bool, device=device)
    return Unbounded(example.shape[1:], device=device)


def action_spec(
    space: Any, agents: torch.Size, categorical: bool, device: torch.device
) -> TensorSpec:
    """The spec of a team's actions, ``[n]``, ``[n, choices]`` or ``[n, d]``, from the space of one of them."""
    if not hasattr(space, "n"):
        low, high = (
            torch.tensor(np.broadcast_to(end, (*agents, *space.shape)), device=device).float()
            for end in (space.low, space.high)
        )
        return Bounded(low, high, dtype=torch.float32, device=device)
    if categorical:
        return Categorical(space.n, agents, dtype=torch.int64, device=device)
    return OneHot(space.n, (*agents, space.n), dtype=torch.int64, device=device)


def require_equal_spaces(env: Any) -> None:
    """Refuse agents that differ in their spaces, by what they have.

    Raises:
        ValueError: naming the sizes of each agent.
    """
    for name in ("observation", "action"):
        spaces = {agent: getattr(env, f"{name}_space")(agent) for agent in env.agents}
        sizes = {agent: (space.shape, getattr(space, "n", None)) for agent, space in spaces.items()}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{agent} {n or list(shape)}" for agent, (shape, n) in sizes.items())
            raise ValueError(
                f"the {name}s of the agents of {env.name} differ in size ({listed}), and must be of one."
            )
