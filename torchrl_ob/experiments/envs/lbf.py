"""Level-Based Foraging: players on a grid collect food that they are too weak to take alone."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, Unpack

from tensordict import TensorDictBase
from torchrl.envs import EnvBase
from torchrl.envs.libs.lbforaging import LBForagingWrapper

from torchrl_ob.experiments.envs.simulators import BatchOptions, batch_team, require_name, told

__all__ = ["make_lbf"]


def make_lbf(task: str, **options: Unpack[BatchOptions]) -> EnvBase:
    """Fields of Level-Based Foraging.

    The last food ends an episode (``terminated``); after ``max_steps`` it is cut (``truncated``). A
    player is rewarded for its share of what is collected, and the rewards of all players sum to 1 over
    an episode in which everything is: the mean over n agents that is logged is at most 1 / n.

    Args:
        task: of lbforaging, ``"Foraging-8x8-2p-3f-v3"``: the size of the field, players, food;
            ``-coop`` where all players are needed for each, ``-2s`` where they see two cells far.
        **options: the sizes of the batch, and ``scenario_kwargs`` such as ``{"max_player_level": 3}``.

    Returns:
        The environment, of batch size ``[num_envs]``.

    Raises:
        ExperimentError: for a task or an argument that is not known, and without lbforaging.

    Example:
        >>> from torchrl_ob.experiments.envs.lbf import make_lbf  # needs lbforaging
        >>> env = make_lbf("Foraging-5x5-2p-1f-v3", num_envs=3, max_steps=5, seed=0)
        >>> env.rollout(2)["next", "agents", "reward"].shape
        torch.Size([3, 2, 2, 1])
    """
    library, given = "Level-Based Foraging", {"scenario_kwargs": options.get("scenario_kwargs")}
    with told(library, "'torchrl-ob[lbf]'", "task", task, given):
        import gymnasium
        import lbforaging  # noqa: F401  # registers its tasks

        tasks = [name for name in gymnasium.registry if name.startswith("Foraging-")]
        require_name(library, "task", task, tasks)
        return batch_team(partial(_make_field, task, options["max_steps"]), **options)


def _make_field(task: str, max_steps: int, /, **arguments: Any) -> EnvBase:
    import gymnasium
    import lbforaging  # noqa: F401  # in the process where it steps

    # the field's own limit: gymnasium.make would set that of a wrapper, and leave the field's 50 steps
    spec = copy.deepcopy(gymnasium.spec(task))
    spec.kwargs |= {"max_episode_steps": max_steps, **arguments}
    return _Field(gymnasium.make(spec, disable_env_checker=True))


class _Field(LBForagingWrapper):
    """A field whose starts follow from its seed alone."""

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        for player in self._env.unwrapped.players:
            player.position = None  # no start is drawn where one was when the last episode ended
        return super()._reset(tensordict, **kwargs)
