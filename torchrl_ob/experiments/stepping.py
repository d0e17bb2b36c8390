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

from torchrl_ob.experiments.errors import ExperimentError, first_line

__all__ = ["Stepper", "update_keys"]


def update_keys(loss: LossModule) -> list[NestedKey]:
    """What a loss reads of a batch whose advantage is known: nothing of the next steps.

    Args:
        loss: TorchRL's loss module, with its keys set.
    """
    keys = [unravel_key(key) for key in loss.in_keys]
    keys += [loss.tensor_keys.advantage, loss.tensor_keys.value_target]
    return [key for key in keys if key[0] != "next"]


class Stepper(OptimizationStepper):
    """Loss, gradient, clipping and the optimiser's step, with nothing read back to the host.

    The update of TorchRL's own stepper. Compiled, loss and gradient are the same to rounding, and where
    TorchRL samples the entropy the random numbers are others. It takes tens of seconds at the first
    minibatch, and again for one of another size. What is logged are means over all minibatches of a
    batch, where TorchRL's are those of the last epoch, added up at every step.

    Args:
        loss: TorchRL's loss module.
        optimizer: of its parameters.
        clip_norm: largest norm of the gradient.
        compile: whether loss and gradient are compiled.
    """

    def __init__(
        self,
        loss: LossModule,
        optimizer: torch.optim.Optimizer,
        *,
        clip_norm: float,
        compile: bool = False,
    ) -> None:
        self.loss, self.optimizer, self.clip_norm = loss, optimizer, clip_norm
        self.parameters = [x for group in optimizer.param_groups for x in group["params"]]
        self.total = self._compiled_total if compile else self._total
        # at the first call, if any; inductor's own tanh takes six times as long as torch's on a CPU
        options: dict[str, Any] = {"cpp.use_decompose_tanh": True}
        self.compiled = torch.compile(self._total, fullgraph=True, options=options)
        self.sizes: set[int] = set()  # of minibatches that it was compiled for
        self.reports: list[TensorDictBase] = []  # of the minibatches since the last log

    def _total(self, minibatch: TensorDictBase) -> tuple[Tensor, TensorDictBase]:
        losses = self.loss(minibatch)
        terms = [term for name, term in losses.items() if name.startswith("loss")]
        return sum(terms[1:], terms[0]), losses.detach()

    def _compiled_total(self, minibatch: TensorDictBase) -> tuple[Tensor, TensorDictBase]:
        # what is compiled depends on nothing but the size of the minibatch
        known = len(minibatch) in self.sizes
        try:
            with torch.compiler.set_stance(skip_guard_eval_unsafe=known):
                result = self.compiled(minibatch)
        except Unsupported as error:
            raise ExperimentError(
                "trainer.compile=true cannot compile these networks or this loss "
                f"({first_line(error)}): take share_params=true, or trainer.compile=false."
            ) from error
        self.sizes.add(len(minibatch))
        return result

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
        losses["grad_norm_0"] = nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.reports.append(losses)
        return TensorDict()

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
