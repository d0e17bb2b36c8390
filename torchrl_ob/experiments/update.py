"""The update of the networks on a minibatch: what is read, the objective, its gradient and its guard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from tensordict import TensorDictBase, unravel_key
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torch._dynamo.exc import Unsupported
from torchrl.objectives import LossModule

from torchrl_ob._compile import CompiledOnMinibatches
from torchrl_ob.experiments.errors import ExperimentError, first_line
from torchrl_ob.experiments.ranks import average_gradients, count_ranks, is_first, rank

__all__ = [
    "Differentiate",
    "clip_gradient",
    "make_differentiate",
    "mean_over_active",
    "minibatches",
    "require_finite_losses",
    "update_keys",
]

Differentiate = Callable[[TensorDictBase], TensorDictBase]
"""Writes the gradient of a minibatch to the parameters, the clipped mean over ranks, and tells losses and norm."""

Gradient = tuple[Sequence[Tensor | None], TensorDictBase]
"""Of each parameter, ``None`` where no loss depends on it; and what is reported beside it, detached."""


def update_keys(loss: LossModule) -> list[NestedKey]:
    """What a loss reads of a batch whose advantage is known: nothing of the next steps.

    Args:
        loss: TorchRL's loss module, with its keys set.
    """
    keys = [unravel_key(key) for key in loss.in_keys]
    keys += [loss.tensor_keys.advantage, loss.tensor_keys.value_target]
    # in one order in all processes, as what is compiled is kept by the order of its inputs; TorchRL's is a set's
    return sorted({key for key in keys if key[0] != "next"}, key=str)


def minibatches(
    batch: TensorDictBase,
    keys: Sequence[NestedKey],
    size: int,
    sequence_length: int | None = None,
) -> Iterator[TensorDictBase]:
    """The steps of a batch, shuffled and cut, ``[size]``; or sequences of steps, ``[size / sequence_length, sequence_length]``.

    Args:
        batch: ``[*B, T]``, with its advantages.
        keys: what an update reads of a step; what the batch has of them.
        size: of a minibatch, in steps.
        sequence_length: of which T and the size are multiples; ``None`` for single steps.
    """
    read = batch.select(*keys, strict=False)
    if sequence_length is None:
        parts = read.reshape(-1)
    else:
        parts = read.reshape(-1, sequence_length)
        size //= sequence_length
    order = torch.randperm(len(parts), device=parts.device)
    yield from parts[order].split(size)


def mean_over_active(
    losses: TensorDictBase, active: Tensor, count: Tensor | None = None
) -> TensorDictBase:
    """Losses of each agent as means: of the policy over agents that take part, of the critic over all.

    Args:
        losses: what a loss module of ``reduction="none"`` returns, ``[N, n]`` each; ``loss_critic``
            and ``loss_value`` are the critic's.
        active: which agents take part, ``[N, n]``.
        count: what the sums over them are divided by, the same for every step; by default how many take part.

    Returns:
        The same entries, every loss a scalar.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl_ob.experiments.update import mean_over_active
        >>> losses = TensorDict({"loss_objective": torch.tensor([[1., 5.], [3., 5.]])})
        >>> mean_over_active(losses, torch.tensor([[True, False], [True, False]]))["loss_objective"]
        tensor(2.)
    """
    means = losses.copy()
    divisor = (active.sum() if count is None else count.flatten()[0]).clamp(min=1)
    for name, term in losses.items():
        if name in ("loss_critic", "loss_value"):
            means[name] = term.mean()
        elif name.startswith("loss"):
            if term.shape != active.shape:
                raise ExperimentError(
                    f"{name} has shape {list(term.shape)} and the mask of agents {list(active.shape)}: "
                    "the loss must keep the agents apart."
                )
            means[name] = torch.where(active, term, 0).sum() / divisor
    return means


def make_differentiate(
    losses: Callable[[TensorDictBase], TensorDictBase],
    parameters: Iterable[nn.Parameter],
    clip_norm: float | None = None,
    *,
    compile: bool = False,
) -> Differentiate:
    """The gradient of the sum of all losses of a minibatch, as one compiled graph where that is asked for.

    Compiled, the numbers are the same to rounding, and where TorchRL samples the entropy the random ones are others.
    It takes tens of seconds at the first minibatch, and again for one of another size. Of several ranks each compiles
    loss and gradient, whose mean is clipped thereafter.

    Args:
        losses: entries whose names begin with ``loss`` are summed.
        parameters: of the networks.
        clip_norm: the largest norm of the gradient; ``None`` for no limit.
        compile: whether it is compiled.

    Returns:
        The function.

    Raises:
        ExperimentError: when it is called, where losses or networks cannot be compiled as one graph.
    """
    trained = [x for x in parameters if x.requires_grad]

    def own(minibatch: TensorDictBase) -> Gradient:
        found = losses(minibatch)
        terms = [term for name, term in found.items() if name.startswith("loss")]
        gradient = torch.autograd.grad(sum(terms[1:], terms[0]), trained, allow_unused=True)
        # laid out as the parameters are, as backward() would leave it
        return [x if x is None else x.contiguous() for x in gradient], found.detach()

    def mean(gradient: Sequence[Tensor | None], report: TensorDictBase) -> Gradient:
        used = [x for x in gradient if x is not None]
        average_gradients(used)
        return gradient, report.set("grad_norm", clip_gradient(used, clip_norm))

    def whole(minibatch: TensorDictBase) -> Gradient:
        return mean(*own(minibatch))

    alone = count_ranks() == 1
    compiled = CompiledOnMinibatches(whole if alone else own, trained)

    def quick(minibatch: TensorDictBase) -> Gradient:
        try:
            gradient, report = compiled(minibatch)
        except Unsupported as error:
            raise ExperimentError(
                "trainer.compile=true cannot compile these networks or this loss "
                f"({first_line(error)}): take share_params=true, or trainer.compile=false."
            ) from error
        report = report.clone()  # kept past the next minibatch
        return (gradient, report) if alone else mean(gradient, report)

    def differentiate(minibatch: TensorDictBase) -> TensorDictBase:
        gradient, report = quick(minibatch) if compile else whole(minibatch)
        for parameter, its_own in zip(trained, gradient, strict=True):
            parameter.grad = its_own
        return report

    return differentiate


def clip_gradient(gradient: list[Tensor], limit: float | None) -> Tensor:
    """The norm of the gradient, which is at most ``limit`` afterwards; ``None`` for no limit."""
    # one call for all tensors, or, compiled, one loop that inductor writes
    together = False if torch.compiler.is_compiling() else None
    norm = nn.utils.get_total_norm(gradient, foreach=together)
    if limit is not None:
        torch._foreach_mul_(gradient, (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm


def require_finite_losses(
    losses: TensorDictBase,
    minibatch: TensorDictBase,
    networks: Mapping[str, nn.Module],
    folder: Path,
) -> None:
    """Stop where a loss is not a finite number, before a parameter is touched.

    Args:
        losses: of the minibatch.
        minibatch: saved in the folder as ``nan_batch.pt``, for ``torch.load(path, weights_only=True)``.
        networks: whose parameters are looked at for the cause.
        folder: of the run.

    Raises:
        ExperimentError: with the cause: the batch, the parameters, or else the loss.
    """
    terms = {name: term for name, term in losses.items() if name.startswith("loss")}
    if sum(terms.values()).isfinite():
        return
    broken = [name for name, term in terms.items() if not term.isfinite().all()]
    name = "nan_batch.pt" if is_first() else f"nan_batch_{rank()}.pt"
    entries, path = minibatch.detach().flatten_keys(".").to_dict(), folder / name
    try:
        torch.save(entries, path)
        where = f"is in {path}"
    except (OSError, RuntimeError) as error:  # of a full disk torch says the one or the other
        where = f"could not be saved to {path} ({first_line(error)})"
    raise ExperimentError(
        f"{', '.join(broken)} is not finite: {_cause(entries, networks)} The minibatch {where}."
    )


def _cause(entries: Mapping[str, Tensor], networks: Mapping[str, nn.Module]) -> str:
    """Where numbers that are not finite are met first."""
    for name, network in networks.items():
        if not all(x.isfinite().all() for x in network.parameters()):
            return (
                f"parameters of the {name} are not. Lower optimizer.lr or trainer.clip_norm, and "
                "resume from the last checkpoint."
            )
    keys = [k for k, x in entries.items() if x.is_floating_point() and not x.isfinite().all()]
    if keys:
        return (
            f"so are {', '.join(map(repr, keys))} of the batch, from the environment or the critic."
        )
    return (
        "batch and parameters are finite, so the loss overflows: lower optimizer.lr, whose last steps may have been too "
        "large, the coefficients of the loss, or the scale of the reward."
    )
