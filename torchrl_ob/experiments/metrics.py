"""The numbers of a batch, by the names under which they are logged: ``train/``, ``loss/``, ``critic/``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.modules import set_recurrent_mode

from torchrl_ob.experiments.envs.teams import BATTLE_WON, agent_rewards, episode_key
from torchrl_ob.experiments.learners import Learner
from torchrl_ob.experiments.recurrence import has_memory

__all__ = ["as_numbers", "critic_metrics", "make_stopwatch", "name_report", "reward_metrics"]


def reward_metrics(batch: TensorDictBase, reward_keys: Mapping[str, Any]) -> dict[str, Tensor]:
    """Mean reward of the steps of a batch and of the episodes that end in it, their length, and battles won.

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
    ended = {}
    for name, keys in named.items():
        metrics[f"train/reward{name}"] = agent_rewards(following, keys).mean()
        sums = agent_rewards(following, map(episode_key, keys))
        ended[f"train/episode_reward{name}"] = sums[ends].mean(1)
    for name, key in (("episode_length", "step_count"), ("win_rate", BATTLE_WON)):
        values = following.get(key, None)
        if values is not None:
            ended[f"train/{name}"] = values.reshape(ends.shape)[ends].float()
    return metrics | {name: values.mean() for name, values in ended.items() if len(values)}


@torch.no_grad()
def critic_metrics(
    learners: Sequence[Learner], batch: TensorDictBase, chunk_size: int
) -> dict[str, Tensor]:
    r"""The share of the variance of its targets that each critic explains, before it is updated on them.

    .. math::
        1 - \operatorname{Var}(G - Q) / \operatorname{Var}(G)

    over the steps of the batch, as a mean over agents; not a number where the targets do not vary. With it what a
    split of the reward reports.

    Args:
        learners: of each group.
        batch: with its value targets.
        chunk_size: how many steps the critic takes at once.
    """
    found: dict[str, Tensor] = {}
    for learner in learners:
        critic: Any = learner.critic
        keys = learner.loss.tensor_keys
        target = batch.get(keys.value_target).flatten(0, batch.ndim - 1)
        steps = batch.select(*critic.in_keys)
        if remembers := has_memory(critic):  # whole trajectories, in about so many steps
            chunks = steps.split(max(1, chunk_size // steps.shape[-1]))
        else:
            chunks = steps.reshape(-1).split(chunk_size)
        with set_recurrent_mode(remembers):
            values = [critic(x).get(critic.out_keys[0]).flatten(0, -3) for x in chunks]
        total = target.var(0, correction=0)
        rest = (target - torch.cat(values)).var(0, correction=0)
        explained = torch.where(total > 0, 1 - rest / total, torch.nan).mean()
        end = f"_{learner.group}" if len(learners) > 1 else ""
        report = {} if learner.streams is None else learner.streams.report
        report = {"critic/explained_variance": explained, **report}
        found |= {name + end: value for name, value in report.items()}
    return found


def name_report(report: TensorDictBase) -> dict[str, Any]:
    """What the losses report, by the names of the log.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl_ob.experiments.metrics import name_report
        >>> name_report(TensorDict({"loss_critic": torch.tensor(2.0), "entropy": torch.tensor(1.0)}))
        {'loss/critic': tensor(2.), 'train/entropy': tensor(1.)}
    """
    return {
        f"loss/{name.removeprefix('loss_')}" if name.startswith("loss") else f"train/{name}": value
        for name, value in report.items()
        if value.ndim == 0
    }


def as_numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as numbers of Python; those that are tensors come from their device together, in one wait."""
    tensors = {name: value for name, value in metrics.items() if isinstance(value, Tensor)}
    fetched: Any = TensorDict(tensors).to("cpu")
    return {
        name: fetched[name].item() if name in tensors else value for name, value in metrics.items()
    }


def make_stopwatch() -> Callable[[], float]:
    """A function that returns the seconds since it was made or last called."""
    last = time.perf_counter()

    def lap() -> float:
        nonlocal last
        before, last = last, time.perf_counter()
        return last - before

    return lap
