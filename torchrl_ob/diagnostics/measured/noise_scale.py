"""Whether the noise of its gradients limits a run: the gradient noise scale under four baselines."""

from __future__ import annotations

from typing import NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl_ob._actors import require_no_memory
from torchrl_ob.advantages.base import JointAdvantage
from torchrl_ob.diagnostics.intervals import Estimate
from torchrl_ob.diagnostics.measured.block_gradients import block_gradients
from torchrl_ob.diagnostics.measured.signals import measurement, policy_value

__all__ = ["NoiseScale", "noise_scale"]


class NoiseScale(NamedTuple):
    """The number of frames at which a batch's gradient is as much signal as noise.

    Attributes:
        frames: the noise scale under each baseline, in frames: scalars. It is infinite or negative if the batch shows
            no gradient.
        saved: for each baseline, the share of the frames that it saves against V for the same signal.
        batch: number of frames of the measured batch.
    """

    frames: dict[str, Estimate]
    saved: dict[str, Estimate]
    batch: int

    def __str__(self) -> str:
        """A table of the baselines, the intervals in brackets, and what it means for this batch."""
        lines = ["baseline  noise scale, frames              frames saved against V"]
        for name, frames in self.frames.items():
            value, low, high = (x.item() for x in frames)
            share, least, most = (x.item() for x in self.saved[name])
            interval = f"[{low:.3g}, {high:.3g}]"
            lines.append(
                f"{name:8} {value:9.3g} {interval:22} {share:8.1%} [{least:.1%}, {most:.1%}]"
            )
        verdict = "is limited by noise"
        if self.batch > self.frames["ob"].value > 0:
            verdict = "has more signal than noise"
        return "\n".join([*lines, f"a batch of {self.batch:,} frames {verdict}"])


def noise_scale(
    advantage: JointAdvantage,
    batch: TensorDictBase,
    *,
    num_draws: int = 8,
    confidence: float = 0.95,
) -> NoiseScale:
    r"""The gradient noise scale of a batch under no baseline, V, COMA's and OB.

    .. math::
        B = \frac{\operatorname{tr} \Sigma}{\|g\|^2}

    Here :math:`g = E[\sum_i X^i \nabla_\theta \log \pi^i]` is the team's gradient in the parameters of the actor, and
    :math:`\Sigma` is the covariance of the contribution of one frame: a batch of B frames has as much noise as
    signal. Far above B, more frames in a batch gain nothing. Far below it, learning is proportional to the frames,
    and a baseline that halves :math:`\operatorname{tr} \Sigma` is worth twice the frames. Frames of one trajectory
    depend on one another, so the covariance is measured between trajectories. (McCandlish et al., "An Empirical Model
    of Large-Batch Training", 2018, equation 2.9 and appendix A; X as in :func:`gradient_variance`.)

    Args:
        advantage: any advantage of the joint action; its actor, critic, keys, return and options are used, but not
            its baseline.
        batch: trajectories that the current policy collected, ``[*B, T]``. It is not changed, nor are parameters'
            gradients and torch's generators.
        num_draws: joint actions of the policy that V averages over.
        confidence: of the intervals, by resampling blocks of trajectories.

    Returns:
        The noise scale of each baseline, and the share of the frames that it saves.

    Raises:
        ValueError: for a batch of one trajectory of one step, and for an actor that remembers.
        KeyError: for a missing key.

    Example: see :mod:`torchrl_ob.diagnostics`.
    """
    require_no_memory(advantage.team.actor)
    with measurement(advantage, batch, num_draws) as (batch, found, blocks):
        names = list(found.baselines)
        # V twice, each with sampling noise of its own, of which their product is free
        again = policy_value(advantage, batch, num_draws).mean
        baselines = [*found.baselines.values(), again]
        signals = torch.stack([found.signal - baseline for baseline in baselines], -1)
        active = advantage.team.active(batch)
        if active is not None:
            signals = torch.where(active.unsqueeze(-1), signals, 0)
        gradients = block_gradients(advantage.team, batch, signals, blocks)
    count, num_frames = blocks.count, batch.numel()
    partner = torch.arange(len(names))
    partner[names.index("v")] = -1
    gram = torch.einsum("msp,nsp->smn", gradients[:, : len(names)], gradients[:, partner])
    least = names.index("ob")

    def statistic(counts: Tensor) -> Tensor:
        """``[R, 2 S]``: noise scales, and shares of V's noise that are saved."""
        total = counts.sum(-1, keepdim=True)
        square = torch.einsum("rm,smm->rs", counts, gram) / total
        mean = torch.einsum("rm,smn,rn->rs", counts, gram, counts) / total**2
        noise = (square - mean) * total / (total - 1)  # of one block
        # the signal is the same for all: that of the least noise, from pairs of different blocks
        different = 1 - torch.eye(count, dtype=gram.dtype, device=gram.device)
        pairs = torch.einsum("rm,mn,rn->r", counts, different, counts)
        signal = torch.einsum("rm,mn,rn->r", counts, gram[least] * different, counts) / pairs
        frames = noise / signal.unsqueeze(-1) * (num_frames / count)
        saved = 1 - noise / noise[:, [names.index("v")]]
        return torch.cat([frames, saved], -1)

    estimates = blocks.resample(statistic, confidence=confidence).unbind()
    return NoiseScale(
        dict(zip(names, estimates[: len(names)], strict=True)),
        dict(zip(names, estimates[len(names) :], strict=True)),
        num_frames,
    )
