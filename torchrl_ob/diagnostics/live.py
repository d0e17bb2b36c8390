"""The variance of the gradient during training, as numbers to log."""

from __future__ import annotations

from typing import Any

from tensordict import TensorDictBase
from torchrl.trainers import Trainer, TrainerHookBase

from torchrl_ob._checks.arguments import check_whole_number
from torchrl_ob.advantages.base import JointAdvantage
from torchrl_ob.diagnostics.measured.critic_quality import judge_critic
from torchrl_ob.diagnostics.measured.signals import measurement
from torchrl_ob.diagnostics.measured.variance import compare_baselines

__all__ = ["VarianceLogger", "variance_metrics"]


def variance_metrics(
    advantage: JointAdvantage, batch: TensorDictBase, *, num_draws: int = 4
) -> dict[str, float]:
    """Numbers to log beside the reward, computed from one batch before the update.

    Args:
        advantage: any advantage of the joint action; its actor, critic, keys and options are used.
        batch: trajectories that the current policy collected, ``[*B, T]``. The batch, the parameters' gradients and
            torch's generators are not changed, so training is not affected.
        num_draws: joint actions of the policy that the state value averages over.

    Returns:
        ``variance/{none,v,coma,ob}/agent_{i}``, the variance of each agent's gradient in ψ;
        ``variance/{none,v,coma}_over_ob``, of the team; and ``critic/q_spread`` and
        ``critic/explained_variance``, means over agents. See
        :func:`~torchrl_ob.diagnostics.gradient_variance` and
        :func:`~torchrl_ob.diagnostics.critic_quality`.

    Example: see :mod:`torchrl_ob.diagnostics`.
    """
    with measurement(advantage, batch, num_draws) as (batch, signals, blocks):
        measured = compare_baselines(advantage, batch, signals, blocks)
        quality, _ = judge_critic(signals, blocks)
    metrics = {
        f"variance/{name}/agent_{agent}": value
        for name, variance in measured.variance.items()
        for agent, value in enumerate(variance.value.tolist())
    }
    for name, ratio in measured.ratio.items():
        if name != "ob":
            metrics[f"variance/{name}_over_ob"] = ratio.value.item()
    metrics["critic/q_spread"] = quality.q_spread.value.mean().item()
    metrics["critic/explained_variance"] = quality.explained_variance.value.mean().item()
    return metrics


class VarianceLogger(TrainerHookBase):
    """Logs :func:`variance_metrics` every ``interval`` batches of a TorchRL trainer.

    Args:
        advantage: the trainer's advantage, or another of the same actor and critic.
        interval: number of batches from one measurement to the next; the first batch is measured.
        num_draws: joint actions of the policy that the state value averages over.
        prefix: prefix of the metrics' names, such as ``"adversary/"`` if each group of agents has its own.

    ``VarianceLogger(advantage).register(trainer)`` adds it to a trainer with a logger.

    Example: see :mod:`torchrl_ob.diagnostics`.
    """

    def __init__(
        self, advantage: JointAdvantage, *, interval: int = 10, num_draws: int = 4, prefix: str = ""
    ) -> None:
        check_whole_number("interval", interval)
        self.advantage, self.interval, self.num_draws = advantage, interval, num_draws
        self.prefix, self.num_batches = prefix, 0

    def __call__(self, batch: TensorDictBase) -> dict[str, float] | None:
        """Measure, where it is this batch's turn."""
        due = self.num_batches % self.interval == 0
        self.num_batches += 1
        if not due:
            return None
        metrics = variance_metrics(self.advantage, batch, num_draws=self.num_draws)
        return {self.prefix + name: value for name, value in metrics.items()}

    def state_dict(self) -> dict[str, Any]:
        """How many batches have been seen."""
        return {"num_batches": self.num_batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting from there."""
        self.num_batches = state_dict["num_batches"]

    def register(self, trainer: Trainer, name: str = "variance_logger") -> None:
        """Add the hook to a trainer, after collection and before the update."""
        trainer.register_op("pre_steps_log", self)
        trainer.register_module(self.prefix.replace("/", "_") + name, self)
