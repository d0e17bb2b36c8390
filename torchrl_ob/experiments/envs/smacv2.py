"""StarCraft II: battles of the StarCraft Multi-Agent Challenge, of the first and the second version."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from torchrl.data import Categorical, Composite
from torchrl.envs import ActionMask, EnvBase
from torchrl.envs.libs.smacv2 import SMACv2Env

from torchrl_ob.experiments.envs.active_agents import ActiveAgents
from torchrl_ob.experiments.envs.batched_envs import batch_envs
from torchrl_ob.experiments.envs.teams import require_team_reward, team_env
from torchrl_ob.experiments.errors import ExperimentError, first_line, nearest

__all__ = ["make_smacv2"]


def make_smacv2(
    map_name: str,
    *,
    num_envs: int,
    max_steps: int,
    seed: int,
    parallel: bool = True,
    shared_reward: bool = True,
    continuous_actions: bool | None = None,
    scenario_kwargs: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> EnvBase:
    """Battles of StarCraft II, each in a game of its own.

    A battle that is won or lost ends an episode (``terminated``); after ``max_steps`` it is cut
    (``truncated``), in place of the map's own limit, which ends it. The reward is the team's, at the
    root; ``("info", "battle_won")`` says whether the step won. ``("agents", "mask")`` says which units
    have a choice.

    A game takes its seed when it starts, and the units and positions that the maps of the second
    version draw do not follow from it: episodes are not the same from one evaluation to the next.

    Args:
        map_name: such as ``"3m"``, or ``"10gen_terran"``, which needs a ``capability_config``.
        num_envs: number of games.
        max_steps: length of an episode.
        seed: that those of the games follow from.
        parallel: step each in a process of its own.
        shared_reward: the reward is the team's: nothing else is possible.
        continuous_actions: they are not.
        scenario_kwargs: arguments of smacv2's ``StarCraft2Env``, such as ``{"difficulty": "7"}``.
        device: where the tensors are.

    Returns:
        The environment, of batch size ``[num_envs]``.

    Raises:
        ExperimentError: for a map or an argument that is not known, without smacv2, and without the
            game.
    """
    require_team_reward(shared_reward, "StarCraft II")
    try:
        from smacv2.env.starcraft2.maps.smac_maps import get_smac_map_registry
    except ModuleNotFoundError as error:
        raise ExperimentError(
            f"StarCraft II needs the package smacv2, and {error.name} is missing: pip install "
            "git+https://github.com/oxwhirl/smacv2, and the game as it says there"
        ) from error
    maps = get_smac_map_registry()
    if map_name not in maps:
        raise ExperimentError(f"smacv2 has no map {map_name!r}: {nearest(map_name, maps)}")
    game = Path(os.environ.get("SC2PATH") or "~/StarCraftII").expanduser()
    if not (game / "Maps").is_dir():
        raise ExperimentError(
            f"there is no StarCraft II with Maps in {game}: install the game and the maps of SMAC, as "
            "github.com/oxwhirl/smacv2 says, and set SC2PATH to its folder."
        )
    options = dict(scenario_kwargs or {})
    make_env = partial(Battle, map_name, max_steps=max_steps, **options)
    try:
        env = batch_envs(make_env, num_envs, seed=seed, parallel=parallel, device=device)
    except Exception as error:
        raise ExperimentError(
            f"smacv2 refuses map {map_name!r} with scenario_kwargs={options}: {first_line(error)}"
        ) from error
    env = team_env(env, max_steps=max_steps, continuous_actions=continuous_actions)
    env.append_transform(ActiveAgents())
    return env.append_transform(ActionMask(("agents", "action"), ("agents", "action_mask")))


class Battle(SMACv2Env):
    """A game of TorchRL's ``SMACv2Env`` that can be seeded, and whose limit is no end.

    The game starts at the first reset. A seed that it does not have starts another one then.

    Args:
        map_name: of the map.
        max_steps: length of an episode.
        **options: of smacv2's ``StarCraft2Env``.
    """

    def __init__(self, map_name: str, *, max_steps: int, **options: Any) -> None:
        self.arguments = {"map_name": map_name, **options, "continuing_episode": True}
        self.max_steps, self.is_running = max_steps, False
        self.game_seed: int | None = None
        super().__init__(**self.arguments)

    def _build_env(self, **options: Any) -> Any:
        game = super()._build_env(**options)
        # of the game within the wrapper that draws units and positions, where there is one
        getattr(game, "env", game).episode_limit = self.max_steps
        return game

    def _init_env(self) -> None:
        """Start no game yet: its seed may come."""

    def _make_specs(self, env: Any) -> None:
        super()._make_specs(env)
        ends = ("done", "terminated", "truncated")
        self.full_done_spec = Composite(
            {end: Categorical(2, (1,), dtype=torch.bool, device=self.device) for end in ends}
        )

    def _set_seed(self, seed: int | None) -> None:
        if seed == self.game_seed:
            return
        self.game_seed = seed
        self._stop()
        self._env = self._build_env(**self.arguments, seed=seed)

    def _reset(self, tensordict: TensorDictBase | None = None, **options: Any) -> TensorDictBase:
        if self.is_running and self._env.battles_game == 0:
            self._stop()  # smacv2 starts a game until a battle has ended, and leaves the last one running
        self.is_running = True
        return super()._reset(tensordict, **options)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        result = super()._step(tensordict)
        limit = result["info", "episode_limit"].reshape(1)
        result["truncated"], result["terminated"] = limit, result["done"] & ~limit
        return result

    def _to_tensor(self, value: Any) -> torch.Tensor:
        # through one array; torch is slow at a list of them, and warns
        return torch.as_tensor(np.asarray(value), dtype=torch.float32, device=self.device)

    def _stop(self) -> None:
        if self.is_running:
            self._env.close()
        self.is_running = False

    def close(self, *, raise_if_closed: bool = True) -> None:
        """Stop the game."""
        self._stop()
