"""Training, from top to bottom: what happens to a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tensordict import TensorDict, TensorDictBase
from tqdm import tqdm

from torchrl_ob.diagnostics.live import variance_metrics
from torchrl_ob.experiments.build import Experiment
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.metrics import (
    as_numbers,
    critic_metrics,
    make_stopwatch,
    name_report,
    reward_metrics,
)
from torchrl_ob.experiments.ranks import (
    any_rank,
    count_ranks,
    is_first,
    mean_over_ranks,
)
from torchrl_ob.experiments.ray_collector import LostWorkersError
from torchrl_ob.experiments.train_log import note
from torchrl_ob.experiments.update import minibatches, require_finite_losses

__all__ = ["estimate", "improve", "measure", "train"]

SHOWN = {
    "reward": "train/episode_reward",
    "evaluation": "eval/deterministic_reward",
    "won": "eval/deterministic_win_rate",
}
"""What the progress bar shows: the latest of these metrics."""


def train(parts: Experiment, stopped: Callable[[], bool] = lambda: False) -> None:
    """Train until the last frame, or until the end of the batch in which the run is stopped.

    Args:
        parts: of the run, from :func:`~torchrl_ob.experiments.build.build`.
        stopped: whether to stop; asked after each batch. Where one rank is to stop, all do.

    Raises:
        ExperimentError: where a loss is not finite, and where nothing can be written.
    """
    config, progress, evaluation = parts.config, parts.progress, parts.evaluation
    bar = tqdm(
        total=config.total_frames,
        initial=progress.frames,
        unit=" frames",
        unit_scale=True,
        disable=not (config.progress_bar and is_first()),
    )
    lap = make_stopwatch()

    def log(numbers: dict[str, Any], timer: str) -> dict[str, Any]:
        numbers[f"timer/{timer}"] = lap()
        if parts.log is not None:
            parts.log.log_metrics(numbers, step=progress.frames)
        shown.update({k: f"{numbers[x]:.2f}" for k, x in SHOWN.items() if x in numbers})
        bar.set_postfix(shown, refresh=False)
        return numbers

    def log_batch(metrics: dict[str, Any], timer: str) -> None:
        # waits for the device, so that the seconds are true
        log(mean_over_ranks(as_numbers(metrics)), timer)

    def evaluate() -> None:
        if not is_first():
            return
        numbers = log(as_numbers(evaluation.metrics()), "evaluation")
        words = ", ".join(f"{name} {x:.3f}" for name, x in numbers.items() if "eval/" in name)
        note(f"frame {progress.frames}: {words}")

    shown: dict[str, str] = {}
    if progress.frames == 0:
        evaluate()
    for batch in batches(parts):
        progress.frames += batch.numel() * count_ranks()
        log_batch(reward_metrics(batch, evaluation.reward_keys), "collection")
        estimate(parts, batch)
        log_batch(measure(parts, batch) | improve(parts, batch), "update")
        parts.copy_transforms()
        if progress.frames % evaluation.interval == 0:
            evaluate()
        bar.update(batch.numel() * count_ranks())
        ended = any_rank(stopped()) or progress.frames >= config.total_frames
        if ended or progress.frames % config.checkpoint.interval == 0:
            parts.save()
        if ended:
            break
        lap()
    bar.close()


def batches(parts: Experiment) -> Iterator[TensorDictBase]:
    """What is collected; where workers are lost, what was learned so far is saved.

    Raises:
        ExperimentError: where workers are lost.
    """
    try:
        yield from parts.collector
    except LostWorkersError as error:
        parts.save()
        raise ExperimentError(
            f"{error}. Saved at frame {parts.progress.frames}; go on with resume=auto."
        ) from error


def estimate(parts: Experiment, batch: TensorDictBase) -> None:
    """Add to a batch the advantages and value targets of every group, once, while time is a dimension."""
    for learner in parts.learners:
        learner.estimate(batch)


def measure(parts: Experiment, batch: TensorDictBase) -> dict[str, Any]:
    """What the critics explain of a batch and, where it is due, the variance of its gradients."""
    metrics: dict[str, Any] = critic_metrics(
        parts.learners, batch, parts.own.trainer.minibatch_size
    )
    interval = parts.config.variance_interval
    if interval and parts.progress.batches % interval == 0:
        for learner in parts.learners:
            if learner.of_joint_action:
                prefix = f"{learner.group}/" if len(parts.learners) > 1 else ""
                found = variance_metrics(learner.advantage, batch)
                del found["critic/explained_variance"]  # of the same targets, drawn anew
                metrics |= {prefix + name: value for name, value in found.items()}
    parts.progress.batches += 1
    return metrics


def improve(parts: Experiment, batch: TensorDictBase) -> dict[str, Any]:
    """Update the networks on a batch: epochs of minibatches, then the learning rate.

    Args:
        parts: of the run.
        batch: with its advantages.

    Returns:
        What the losses report, and the gradient's norm: means over all minibatches; updates so far and their learning rate.
    """
    options = parts.own.trainer
    reports: list[TensorDictBase] = []
    for _ in range(options.num_epochs):
        cuts = options.minibatch_size, options.sequence_length
        for minibatch in minibatches(batch, parts.keys, *cuts):
            for learner in parts.learners:
                learner.join(minibatch)
            report = parts.differentiate(minibatch)
            require_finite_losses(report, minibatch, parts.networks, parts.folder)
            parts.optimizer.step()
            parts.optimizer.zero_grad()
            for learner in parts.learners:
                learner.follow()
            reports.append(report)
    parts.progress.optim_steps += len(reports)
    metrics = name_report(TensorDict.stack(reports).mean(0))
    metrics["train/optim_steps"] = parts.progress.optim_steps
    metrics["train/learning_rate"] = parts.optimizer.param_groups[0]["lr"]
    if parts.scheduler is not None:
        parts.scheduler.step()
    parts.send_weights()
    return metrics
