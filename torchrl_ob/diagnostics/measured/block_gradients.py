"""Policy gradients of parts of a batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from torchrl_ob.diagnostics.intervals import Blocks
from torchrl_ob.team import Team

__all__ = ["block_gradients"]


def block_gradients(
    team: Team, tensordict: TensorDictBase, signals: Tensor, blocks: Blocks
) -> Tensor:
    r"""Gradients of :math:`E[\log \pi(a|o)\,X]` in the actor's parameters, over blocks of a batch.

    Args:
        team: a :class:`~torchrl_ob.Team`, whose actor is asked.
        tensordict: trajectories ``[*B]``.
        signals: X, ``[*B, n, S]``.
        blocks: of the batch, F of them.

    Returns:
        ``[F, S, P]``, summed over agents: their mean over blocks is the gradient of the mean over steps.
    """
    parameters = [p for p in team.actor.parameters() if p.requires_grad]
    steps = tensordict.select(*team.in_keys, strict=False).detach().reshape(-1)
    signals = signals.detach().flatten(0, tensordict.ndim - 1) * (blocks.count / len(steps))
    parts = [blocks.index == k for k in range(blocks.count)]
    with torch.enable_grad():
        return torch.stack(
            [
                torch.stack(list(_gradients(team, parameters, steps[part], signals[part])))
                for part in parts
            ]
        )


def _gradients(
    team: Team, parameters: list[nn.Parameter], steps: TensorDictBase, signals: Tensor
) -> Iterator[Tensor]:
    """The gradient of each signal, ``[P]``."""
    log_prob = team.policy(steps).log_prob(steps.get(team.action_key))
    for objective in (log_prob.unsqueeze(-1) * signals).flatten(0, -2).sum(0):
        parts = torch.autograd.grad(objective, parameters, retain_graph=True, allow_unused=True)
        flat = [
            p.new_zeros(p.numel()) if g is None else g.flatten()
            for p, g in zip(parameters, parts, strict=True)
        ]
        yield torch.cat(flat)
