"""Training, from top to bottom: what happens to a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tensordict import TensorDict, TensorDictBase
from tqdm import tqdm

from torchrl_ob.diagnostics.live import variance_metrics
from torchrl_ob.experiments.build import Experiment
from torchrl_ob.experiments.envs.teams import BATTLE_WON, agent_rewards, episode_key
from torchrl_ob.experiments.update import clip_gradient, minibatches, require_finite_losses

__all__ = ["estimate", "improve", "measure", "train"]


def train(parts: Experiment, stopped: Callable[[], bool] = lambda: False) -> None:
    """Train until the last frame, or until the end of the batch in which the run is stopped.

    Args:
        parts: of the run, from :func:`~torchrl_ob.experiments.build.build`.
        stopped: whether to stop; asked after each batch.

    Raises:
        ExperimentError: where a loss is not finite, and where nothing can be written.
    """
    config, progress, evaluation = parts.config, parts.progress, parts.evaluation
    bar = tqdm(
        total=config.total_frames,
        initial=progress.frames,
        unit=" frames",
        unit_scale=True,
        disable=not config.progress_bar,
    )
    if progress.frames == 0:
        parts.log.log_metrics(evaluation.metrics(), step=0)
    for batch in parts.collector:
        progress.frames += batch.numel()
        estimate(parts, batch)
        metrics = measure(parts, batch)
        parts.log.log_metrics(metrics, step=progress.frames)
        parts.log.log_metrics(improve(parts, batch), step=progress.frames)
        parts.copy_transforms()
        if progress.frames % evaluation.interval == 0:
            parts.log.log_metrics(evaluation.metrics(), step=progress.frames)
        if "train/episode_reward" in metrics:
            bar.set_postfix(reward=f"{metrics['train/episode_reward']:.2f}", refresh=False)
        bar.update(batch.numel())
        ended = stopped() or progress.frames >= config.total_frames
        if ended or progress.frames % config.checkpoint.interval == 0:
            parts.save()
        if ended:
            break
    bar.close()


def estimate(parts: Experiment, batch: TensorDictBase) -> None:
    """Add to a batch the advantages and value targets of every group, once, while time is a dimension."""
    for learner in parts.learners:
        learner.estimate(batch)


def measure(parts: Experiment, batch: TensorDictBase) -> dict[str, Any]:
    """Mean rewards of a batch, and, where it is due, the variance of its gradients."""
    metrics = reward_metrics(batch, parts.evaluation.reward_keys)
    interval = parts.config.variance_interval
    if interval and parts.progress.batches % interval == 0:
        for learner in parts.learners:
            if learner.of_joint_action:
                prefix = f"{learner.group}/" if len(parts.learners) > 1 else ""
                found = variance_metrics(learner.advantage, batch)
                metrics |= {prefix + name: value for name, value in found.items()}
    parts.progress.batches += 1
    return metrics


def improve(parts: Experiment, batch: TensorDictBase) -> dict[str, Any]:
    """Update the networks on a batch: epochs of minibatches, the learning rate, and critics that are fitted apart.

    Args:
        parts: of the run.
        batch: with its advantages.

    Returns:
        What the loss reported, and the gradient's norm: means over all minibatches.
    """
    options = parts.config.trainer
    reports: list[TensorDictBase] = []
    for _ in range(options.num_epochs):
        for minibatch in minibatches(batch, parts.keys, options.minibatch_size):
            loss, report = parts.objective(minibatch)
            require_finite_losses(report, minibatch, parts.networks, parts.folder)
            loss.backward()
            report["grad_norm_0"] = clip_gradient(parts.parameters, options.clip_norm)
            parts.optimizer.step()
            parts.optimizer.zero_grad()
            for learner in parts.learners:
                learner.follow()
            reports.append(report)
    parts.progress.optim_steps += len(reports) + options.num_epochs  # as TorchRL's trainer counts
    means: Any = TensorDict.stack(reports).mean(0)
    metrics = {name: value for name, value in means.items() if value.ndim == 0}
    metrics["optim_steps"] = parts.progress.optim_steps
    if parts.scheduler is not None:
        parts.scheduler.step()
    parts.send_weights()
    for learner in parts.learners:
        if learner.fit is not None:
            metrics |= learner.fit(batch)
    return metrics


def reward_metrics(batch: TensorDictBase, reward_keys: dict[str, Any]) -> dict[str, float]:
    """Mean reward of the steps of a batch and of the episodes that end in it, and battles won.

    Args:
        batch: trajectories ``[*B, T]``.
        reward_keys: where the rewards of each group of agents are. Of several groups the means over all
            agents are returned, and those of each under its name, such as ``train/reward_adversary``.

    Returns:
        Means over agents; no episode, no number.
    """
    following, metrics = batch["next"], {}
    ends = following["done"].squeeze(-1)
    named = {"": list(dict.fromkeys(reward_keys.values()))}
    if len(reward_keys) > 1:
        named |= {f"_{group}": [key] for group, key in reward_keys.items()}
    for name, keys in named.items():
        metrics[f"train/reward{name}"] = agent_rewards(following, keys).mean().item()
        returns = agent_rewards(following, map(episode_key, keys))[ends].mean(1)
        if len(returns):
            metrics[f"train/episode_reward{name}"] = returns.mean().item()
    won = following.get(BATTLE_WON, None)
    if won is not None and ends.any():
        metrics["train/win_rate"] = won.flatten()[ends.flatten()].float().mean().item()
    return metrics
