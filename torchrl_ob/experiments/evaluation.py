"""Evaluation on environments of its own, without a trace in the random numbers of training."""

from __future__ import annotations

import torch
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.envs import EnvBase, ExplorationType, set_exploration_type

from torchrl_ob._rng import isolated_rng
from torchrl_ob.diagnostics.intervals import Estimate, resample
from torchrl_ob.experiments.envs.teams import (
    BATTLE_WON,
    agent_rewards,
    episode_key,
    find_group_names,
    find_reward_key,
)

__all__ = ["Evaluation", "describe", "describe_metric", "mean_with_interval"]

EXPLORATION = {"deterministic": ExplorationType.DETERMINISTIC, "stochastic": ExplorationType.RANDOM}
NAMES = {
    "reward": "mean episode reward",
    "episode_length": "mean episode length",
    "win_rate": "battles won",
}


class Evaluation:
    """Rewards and wins of one episode in each of some environments, at an interval of frames.

    The starts are the same each time and for every run of the same ``seed``, so that runs compare
    on the same episodes. The random numbers of torch, numpy, python and VMAS are left as they were.

    Args:
        env: the environments.
        policy: the actor.
        max_steps: length of an episode.
        interval: frames from one evaluation to the next.
        seed: of the starts and of the stochastic policy.
    """

    def __init__(
        self,
        env: EnvBase,
        policy: nn.Module,
        *,
        max_steps: int,
        interval: int,
        seed: int,
    ) -> None:
        self.policy, self.max_steps = policy, max_steps
        self.interval, self.seed = interval, seed
        self.env, self.groups = env, find_group_names(env)
        self.reward_keys = {group: find_reward_key(env, group) for group in self.groups}

    def episodes(self, exploration: str) -> dict[str, Tensor]:
        """The first episode of each environment, ``[envs]``: its rewards' sum, its length, and whether it was won.

        Args:
            exploration: ``"deterministic"`` or ``"stochastic"``.

        Returns:
            ``"reward"``, the mean over agents of the sums, ``"episode_length"`` in steps, ``"win_rate"`` where there are
            battles, and of several groups ``"reward_{group}"``.
        """
        with (
            torch.no_grad(),
            isolated_rng(self.seed, self.env),
            set_exploration_type(EXPLORATION[exploration]),
        ):
            self.env.set_seed(self.seed)
            batch = self.env.rollout(self.max_steps, self.policy, break_when_any_done=False)
        following = batch["next"]
        done = following["done"].squeeze(-1)  # [envs, T]
        first = done & (done.cumsum(-1) == 1)

        def rewards(*keys: NestedKey) -> Tensor:
            sums = agent_rewards(following, map(episode_key, keys)).mean(-1)
            return (sums * first).sum(-1)

        found = {"reward": rewards(*dict.fromkeys(self.reward_keys.values()))}
        if len(self.groups) > 1:
            found |= {f"reward_{group}": rewards(key) for group, key in self.reward_keys.items()}
        found["episode_length"] = done.float().argmax(-1).add(1).to(found["reward"].dtype)
        won = following.get(BATTLE_WON, None)
        if won is not None:
            found["win_rate"] = (won.reshape(first.shape) & first).any(-1).to(found["reward"].dtype)
        return found

    def estimates(self) -> dict[str, Estimate]:
        """Means over the episodes of either exploration, with their intervals."""
        return {
            f"{exploration}_{name}": mean_with_interval(values)
            for exploration in EXPLORATION
            for name, values in self.episodes(exploration).items()
        }

    def metrics(self) -> dict[str, Tensor]:
        """The means, by the names under which they are logged."""
        return {
            f"eval/{exploration}_{name}": values.mean()
            for exploration in EXPLORATION
            for name, values in self.episodes(exploration).items()
        }


def describe(estimates: dict[str, Estimate]) -> str:
    """The means of an evaluation in words, a line each."""
    lines = []
    for key, (value, low, high) in estimates.items():
        exploration, name = key.split("_", 1)
        lines.append(f"{describe_metric(name)}, {exploration}: {value:.3f} [{low:.3f}, {high:.3f}]")
    return "\n".join(lines)


def describe_metric(metric: str) -> str:
    """What a metric of an evaluation is called.

    Example:
        >>> from torchrl_ob.experiments.evaluation import describe_metric
        >>> describe_metric("reward_adversary")
        'mean episode reward of adversary'
    """
    return NAMES.get(metric) or f"{NAMES['reward']} of {metric.removeprefix('reward_')}"


def mean_with_interval(returns: Tensor) -> Estimate:
    """Mean of the episodes with its interval.

    Example:
        >>> import torch
        >>> from torchrl_ob.experiments.evaluation import mean_with_interval
        >>> mean_with_interval(torch.tensor([1.0, 2.0, 3.0, 4.0])).value
        tensor(2.5000)
    """
    return resample(lambda count: count @ returns / count.sum(-1), len(returns), like=returns)
