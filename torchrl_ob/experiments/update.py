"""One update of the networks, as one compiled graph where that is asked for."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase, unravel_key
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torch._dynamo.exc import Unsupported
from torchrl.objectives import LossModule
from torchrl.trainers import OptimizationStepper, Trainer

from torchrl_ob._compile import CompiledOnMinibatches
from torchrl_ob.experiments.errors import ExperimentError, first_line

__all__ = ["Stepper", "keep_agents_apart", "mean_over_active", "update_keys"]


def update_keys(loss: LossModule) -> list[NestedKey]:
    """What a loss reads of a batch whose advantage is known: nothing of the next steps.

    Args:
        loss: TorchRL's loss module, with its keys set.
    """
    keys = [unravel_key(key) for key in loss.in_keys]
    keys += [loss.tensor_keys.advantage, loss.tensor_keys.value_target]
    return [key for key in keys if key[0] != "next"]


def mean_over_active(losses: TensorDictBase, active: Tensor) -> TensorDictBase:
    """Losses of each agent as means: of the policy over agents that take part, of the critic over all.

    Args:
        losses: what a loss module of ``reduction="none"`` returns, ``[N, n]`` each; ``loss_critic``
            and ``loss_value`` are the critic's.
        active: which agents take part, ``[N, n]``.

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
    for name, term in losses.items():
        if name in ("loss_critic", "loss_value"):
            means[name] = term.mean()
        elif name.startswith("loss"):
            if term.shape != active.shape:
                raise ExperimentError(
                    f"{name} has shape {list(term.shape)} and the mask of agents {list(active.shape)}: "
                    "the loss must keep the agents apart."
                )
            means[name] = torch.where(active, term, 0).sum() / active.sum().clamp(min=1)
    return means


def keep_agents_apart(loss: LossModule) -> None:
    """Have a loss reduce nothing, for :func:`mean_over_active`."""
    # not by the loss's own mask: it would leave the critic without the dead agents' returns
    loss.reduction, loss.loss_mask_key = "none", None


class Stepper(OptimizationStepper):
    """Loss, gradient, clipping and the optimiser's step, with nothing read back to the host.

    The update of TorchRL's own stepper. Compiled, loss and gradient are the same to rounding, and where
    TorchRL samples the entropy the random numbers are others. It takes tens of seconds at the first
    minibatch, and again for one of another size. What is logged are means over all minibatches of a
    batch, where TorchRL's are those of the last epoch, added up at every step.

    Args:
        loss: TorchRL's loss module, or :class:`~torchrl_ob.experiments.group_losses.GroupLosses`.
        optimizer: of its parameters.
        clip_norm: largest norm of the gradient; ``None`` for no limit.
        active_key: where it is said which agents take part, ``[*B, n]``; the others enter neither the
            objective nor the entropy, but are valued by the critic, whose returns go on.
        compile: whether loss and gradient are compiled.
    """

    def __init__(
        self,
        loss: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        clip_norm: float | None,
        active_key: NestedKey | None = None,
        compile: bool = False,
    ) -> None:
        self.loss, self.optimizer, self.clip_norm = loss, optimizer, clip_norm
        self.active_key = active_key
        if active_key is not None:
            keep_agents_apart(loss)
        self.parameters = [x for group in optimizer.param_groups for x in group["params"]]
        self.total = self._compiled_total if compile else self._total
        self.compiled = CompiledOnMinibatches(self._total, self.parameters)
        self.reports: list[TensorDictBase] = []  # of the minibatches since the last log

    def _total(self, minibatch: TensorDictBase) -> tuple[Tensor, TensorDictBase]:
        losses = self.loss(minibatch)
        if self.active_key is not None:
            losses = mean_over_active(losses, minibatch.get(self.active_key))
        terms = [term for name, term in losses.items() if name.startswith("loss")]
        return sum(terms[1:], terms[0]), losses.detach()

    def _compiled_total(self, minibatch: TensorDictBase) -> tuple[Tensor, TensorDictBase]:
        try:
            total, losses = self.compiled(minibatch)
            return total, losses.clone()  # the report is kept past the next minibatch
        except Unsupported as error:
            raise ExperimentError(
                "trainer.compile=true cannot compile these networks or this loss "
                f"({first_line(error)}): take share_params=true, or trainer.compile=false."
            ) from error

    def step(self, trainer: Trainer, sub_batch: TensorDictBase) -> TensorDictBase:
        """One update.

        Args:
            trainer: whose hooks look at the losses before a parameter is touched.
            sub_batch: the minibatch.

        Returns:
            Nothing that TorchRL would add up: see :meth:`means`.

        Raises:
            ExperimentError: where loss or networks cannot be compiled as one graph.
        """
        total, losses = self.total(sub_batch)
        losses = trainer._process_loss_hook(sub_batch, losses)
        total.backward()
        losses["grad_norm_0"] = self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.reports.append(losses)
        return TensorDict()

    def _clip(self) -> Tensor:
        """The norm of the gradient, which is at most ``clip_norm`` afterwards."""
        if self.clip_norm is None:
            return nn.utils.get_total_norm([x.grad for x in self.parameters if x.grad is not None])
        return nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)

    def means(self, *_: Any) -> dict[str, Tensor]:
        """What the loss module reported of the batch, and the gradient's norm: means over its minibatches."""
        reports, self.reports = self.reports, []
        if not reports:
            return {}
        means: Any = TensorDict.stack(reports).mean(0)
        return means.to_dict()

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The optimiser's."""
        self.optimizer.load_state_dict(state_dict)
