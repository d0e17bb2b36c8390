"""What the environments of all simulators share: their options, one batch of many, and what is refused in one line."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypedDict

import torch
from torchrl.envs import EnvBase, ParallelEnv, SerialEnv

from torchrl_ob.experiments.envs.teams import team_env
from torchrl_ob.experiments.errors import ExperimentError, first_line, nearest

__all__ = ["BatchOptions", "batch_team", "require_name", "require_team_reward", "told"]


class Sizes(TypedDict):
    """Options that the command gives."""

    num_envs: int
    max_steps: int
    seed: int


class BatchOptions(Sizes, total=False):
    """Options of environments that step one at a time.

    In one process they step one after the other, which is the faster way where a step takes less than what it costs to
    hand it to another, about a millisecond: Level-Based Foraging and MuJoCo. To use more cores for such, take
    ``collector=multi_sync``, whose workers have a share each.

    Attributes:
        num_envs: number of environments.
        max_steps: length of an episode.
        seed: that theirs follow from.
        shared_reward: give every agent the mean of its group's rewards. Where the reward is the team's, nothing else is
            possible.
        continuous_actions: which actions are asked for; by default those that there are.
        parallel: step each in a process of its own.
        scenario_kwargs: arguments of the simulator's task.
        device: where the tensors are.
    """

    shared_reward: bool
    continuous_actions: bool | None
    parallel: bool
    scenario_kwargs: Mapping[str, Any] | None
    device: torch.device | str


def batch_team(
    make_env: Callable[..., EnvBase],
    *,
    num_envs: int,
    max_steps: int,
    seed: int,
    parallel: bool = False,
    scenario_kwargs: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
    **options: Any,
) -> EnvBase:
    """Environments that step one at a time as one batch, with a time limit and sums of rewards.

    Args:
        make_env: makes one of them, of ``scenario_kwargs``; called once here, and in the process where it steps.
        num_envs: and the other options are those of :class:`BatchOptions`.
        max_steps: length of an episode.
        seed: that those of the environments follow from.
        parallel: step each in a process of its own.
        scenario_kwargs: arguments of the task.
        device: where the batch is.
        **options: of :func:`~torchrl_ob.experiments.envs.teams.team_env`.

    Returns:
        The environments, of batch size ``[num_envs]``.

    Example:
        >>> from torchrl.envs import LBForagingEnv  # needs lbforaging
        >>> from torchrl_ob.experiments.envs.simulators import batch_team
        >>> make_env = lambda: LBForagingEnv("Foraging-5x5-2p-1f-v3")
        >>> env = batch_team(make_env, num_envs=3, max_steps=5, seed=0)
        >>> env.reset()["agents", "observation"].shape
        torch.Size([3, 2, 9])
    """
    make_env = partial(make_env, **(scenario_kwargs or {}))
    make_env().close()  # what is wrong is told here, not by a process among others
    env = (ParallelEnv if parallel else SerialEnv)(num_envs, make_env, device=device)
    atexit.register(_close, weakref.ref(env))  # Python waits for the processes of one that is open
    env.set_seed(seed)  # it starts them
    env.group_map = next(iter(env.group_map))  # TorchRL gives a list of theirs, which are the same
    env.het_specs = False  # one tensor holds them
    return team_env(env, max_steps=max_steps, **options)


def _close(env: weakref.ref[EnvBase]) -> None:
    if (still_there := env()) is not None:
        still_there.close(raise_if_closed=False)


@contextmanager
def told(
    library: str, package: str, kind: str, name: Any, given: Mapping[str, Any], remedy: str = ""
) -> Iterator[None]:
    """Tell in one line that a library is missing, or what it refuses.

    Args:
        library: in words.
        package: what to install for it.
        kind: what is asked for, such as ``"scenario"``.
        name: of that.
        given: with it, by name.
        remedy: beside the cause.

    Raises:
        ExperimentError: for any error within.
    """
    try:
        yield
    except ExperimentError:
        raise
    except ImportError as error:
        lacks = error.name or getattr(error.__cause__, "name", None)
        raise ExperimentError(f"{library} needs {lacks}: pip install {package}") from error
    except Exception as error:
        options = ", ".join(f"{key}={value!r}" for key, value in given.items() if value is not None)
        raise ExperimentError(
            f"{library} refuses {kind} {name!r}{options and ' with '}{options}: {first_line(error)}{remedy}"
        ) from error


def require_name(library: str, kind: str, name: str, names: Iterable[str]) -> None:
    """Refuse a name that a library does not know.

    Raises:
        ExperimentError: with the names nearest to it.
    """
    names = list(names)
    if name not in names:
        raise ExperimentError(f"{library} has no {kind} {name!r}: {nearest(name, names)}")


def require_team_reward(options: Any, library: str) -> None:
    """Refuse to give agents rewards of their own where an environment has none, and take the option out.

    Raises:
        ExperimentError: in one line.
    """
    if not options.pop("shared_reward", True):
        raise ExperimentError(
            f"{library} gives all agents the reward of the team: env.shared_reward is true, or left out."
        )
