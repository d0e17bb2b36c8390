"""Intervals for what is measured, by resampling whole trajectories or states."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Blocks", "Estimate", "resample"]

MAX_BLOCKS = 32


class Estimate(NamedTuple):
    """A measured value and the bounds of its confidence interval, three tensors of one shape."""

    value: Tensor
    low: Tensor
    high: Tensor

    def unbind(self) -> list[Estimate]:
        """One estimate for each entry of the last dimension."""
        return [Estimate(*parts) for parts in zip(*(x.unbind(-1) for x in self), strict=True)]


def resample(
    statistic: Callable[[Tensor], Tensor],
    num_blocks: int,
    *,
    like: Tensor,
    confidence: float = 0.95,
    num_resamples: int = 1000,
) -> Estimate:
    r"""Percentile interval by resampling independent blocks of data, such as trajectories.

    Blocks are drawn with replacement, and a resample is written as how often each block was drawn.
    The generator is its own: torch's is not touched, and the same data give the same interval.
    (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.)

    Args:
        statistic: from counts of the blocks, ``[R, F]``, to what is estimated, ``[R, *]``.
        num_blocks: number of blocks F.
        like: a tensor of the data; the counts have its dtype and device.
        confidence: probability that the interval aims at.
        num_resamples: number of resamples R.

    Returns:
        The statistic of the data themselves, and its interval.

    Raises:
        ValueError: for fewer than two blocks.

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics.intervals import resample
        >>> x = torch.arange(100.)
        >>> mean = resample(lambda count: (count @ x) / count.sum(-1), 100, like=x)
        >>> mean.value, bool(mean.low < 49.5 < mean.high)
        (tensor(49.5000), True)
    """
    if num_blocks < 2:
        raise ValueError(
            f"an interval needs two independent trajectories or more, got {num_blocks}: collect from more environments."
        )
    generator = torch.Generator(device=like.device).manual_seed(0)
    drawn = torch.randint(
        num_blocks, (num_resamples, num_blocks), generator=generator, device=like.device
    )
    counts = like.new_zeros(num_resamples, num_blocks)
    counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=like.dtype))
    resampled = statistic(counts)
    tail = (1 - confidence) / 2
    low, high = torch.quantile(resampled, resampled.new_tensor([tail, 1 - tail]), dim=0)
    return Estimate(statistic(like.new_ones(1, num_blocks))[0], low, high)


class Blocks:
    """The steps of a batch in at most 32 blocks of whole trajectories.

    Where there are fewer than eight trajectories, they are cut along time.

    Args:
        batch_size: of the batch, ``[*B, T]``.
        time_dim: which dimension is time.
        like: a tensor of the data.
        active: which agents take part in each step, ``[*B, T, n]``, where not all do: the others enter
            neither a sum nor a mean.

    Example:
        >>> import torch
        >>> from torchrl_ob.diagnostics.intervals import Blocks
        >>> rewards = torch.arange(20.).reshape(10, 2)  # ten trajectories of two steps
        >>> blocks = Blocks(rewards.shape, time_dim=1, like=rewards)
        >>> blocks.sums(rewards)
        tensor([ 1.,  5.,  9., 13., 17., 21., 25., 29., 33., 37.])
        >>> blocks.mean(rewards).value
        tensor(9.5000)
    """

    def __init__(
        self, batch_size: torch.Size, time_dim: int, like: Tensor, active: Tensor | None = None
    ) -> None:
        time_dim %= len(batch_size)
        steps = batch_size[time_dim]
        rows = batch_size.numel() // max(steps, 1)
        units = rows if rows >= 8 else rows * steps
        self.count = min(units, MAX_BLOCKS)
        block = torch.arange(units, device=like.device) * self.count // max(units, 1)
        block = block.reshape(rows, -1).expand(rows, steps)
        others = [size for dim, size in enumerate(batch_size) if dim != time_dim]
        self.index = block.reshape(*others, steps).movedim(-1, time_dim).flatten()
        self.ndim = len(batch_size)
        self.active = None if active is None else active.flatten(0, self.ndim - 1)
        # steps of each block, [F]; those in which each agent takes part, [F, n]
        ones = like.new_ones(batch_size if active is None else active.shape)
        self.sizes = self.sums(ones)
        self.every = like.new_ones(1, self.count)  # the counts of the data themselves

    def sums(self, values: Tensor) -> Tensor:
        """Sums ``[F, *]`` of ``values`` ``[*B, T, *]`` over each block."""
        return self.sums_of_steps(values.flatten(0, self.ndim - 1), slice(None))

    def sums_of_steps(self, values: Tensor, steps: slice) -> Tensor:
        """Sums ``[F, *]`` of the values ``[c, *]`` of some steps of the batch flattened."""
        if self.active is not None:
            active = self.active[steps]
            active = active.reshape(*active.shape, *[1] * (values.ndim - active.ndim))
            values = torch.where(active, values, 0)
        return values.new_zeros(self.count, *values.shape[1:]).index_add_(
            0, self.index[steps], values
        )

    def resample(
        self, statistic: Callable[[Tensor], Tensor], *, confidence: float = 0.95
    ) -> Estimate:
        """A statistic of the counts of the blocks, ``[R, F]``, with its interval."""
        return resample(statistic, self.count, like=self.sizes, confidence=confidence)

    def means(self, values: Tensor) -> Callable[[Tensor], Tensor]:
        """The statistic that is the mean over steps of ``values`` ``[*B, T, *]``."""
        sums = self.sums(values)
        rest = [1] * (sums.ndim - self.sizes.ndim)

        def statistic(counts: Tensor) -> Tensor:
            sizes = counts @ self.sizes
            return torch.tensordot(counts, sums, dims=1) / sizes.reshape(*sizes.shape, *rest)

        return statistic

    def mean(self, values: Tensor, *, confidence: float = 0.95) -> Estimate:
        """Mean over steps of ``values`` ``[*B, T, *]``, with its interval."""
        return self.resample(self.means(values), confidence=confidence)

    def squared_mean(self, sums: Tensor) -> Callable[[Tensor], Tensor]:
        r"""The statistic that is the squared norm of a mean vector, without the bias of its noise.

        Only products of different blocks enter, whose noises are independent:
        :math:`\sum_{f \ne g} \langle s_f, s_g \rangle / \sum_{f \ne g} N_f N_g`.

        Args:
            sums: sums of the vectors over each block, ``[F, n, P]``.

        Returns:
            The statistic, from counts ``[R, F]`` to ``[R, n]``.
        """
        different = 1 - torch.eye(self.count, dtype=sums.dtype, device=sums.device)
        products = torch.einsum("fnp,gnp->nfg", sums, sums) * different
        sizes = self.sizes.reshape(self.count, -1)  # [F, n], or [F, 1] where all take part
        pairs = torch.einsum("fn,gn->nfg", sizes, sizes) * different

        def statistic(counts: Tensor) -> Tensor:
            total = torch.einsum("rf,nfg,rg->rn", counts, products, counts)
            return total / torch.einsum("rf,nfg,rg->rn", counts, pairs, counts)

        return statistic
