"""Policy gradients of parts of a batch, and what they tell of signal and noise."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from torchrl_ob.team import Team


class Moments(NamedTuple):
    r"""Of gradients :math:`g_1, \dots, g_S` of one batch, each an estimate: ``[S, S]`` both.

    Attributes:
        signal: inner products of what they estimate, :math:`\bar g_k \cdot \bar g_l`, without bias.
        noise: of their errors, :math:`\operatorname{tr}\operatorname{Cov}(g_k, g_l)`.
    """

    signal: Tensor
    noise: Tensor


def block_gradients(
    team: Team, tensordict: TensorDictBase, signals: Tensor, num_blocks: int
) -> Tensor:
    r"""Gradients of :math:`E[\log \pi(a|o)\,X]` in the actor's parameters, over blocks of a batch.

    Args:
        team: a :class:`~torchrl_ob.Team`, whose actor is asked.
        tensordict: trajectories ``[*B]``, cut along the first dimension where it is long enough.
        signals: X, ``[*B, n, S]``.
        num_blocks: how many parts of the batch.

    Returns:
        ``[num_blocks, S, P]``, each a mean over steps, summed over agents.
    """
    parameters = [p for p in team.actor.parameters() if p.requires_grad]
    entries = tensordict.select(*team.in_keys, strict=False).detach()
    if len(entries) < num_blocks:
        entries, signals = entries.flatten(), signals.flatten(0, tensordict.ndim - 1)
    blocks = zip(entries.chunk(num_blocks), signals.detach().chunk(num_blocks), strict=True)
    with torch.enable_grad():
        return torch.stack(
            [torch.stack(list(_gradients(team, parameters, *block))) for block in blocks]
        )


def _gradients(
    team: Team, parameters: list[nn.Parameter], steps: TensorDictBase, signals: Tensor
) -> Iterator[Tensor]:
    """The gradient of each signal, ``[P]``."""
    log_prob = team.policy(steps).log_prob(steps.get(team.action_key))
    for objective in (log_prob.unsqueeze(-1) * signals).flatten(0, -2).sum(0) / steps.numel():
        parts = torch.autograd.grad(objective, parameters, retain_graph=True, allow_unused=True)
        flat = [
            p.new_zeros(p.numel()) if g is None else g.flatten()
            for p, g in zip(parameters, parts, strict=True)
        ]
        yield torch.cat(flat)


def gradient_moments(blocks: Tensor) -> Moments:
    r"""Signal and noise of the mean over blocks.

    .. math::
        N_{kl} = \frac{1}{M (M - 1)} \sum_m (g_{mk} - \bar g_k) \cdot (g_{ml} - \bar g_l), \qquad
        S_{kl} = \bar g_k \cdot \bar g_l - N_{kl}

    (McCandlish et al., "An Empirical Model of Large-Batch Training", 2018, appendix A.)

    Args:
        blocks: gradients of M independent parts, ``[M, S, P]``.
    """
    mean, count = blocks.mean(0), len(blocks)
    rest = blocks - mean
    noise = torch.einsum("msp,mtp->st", rest, rest) / (count * (count - 1))
    return Moments(mean @ mean.T - noise, noise)
