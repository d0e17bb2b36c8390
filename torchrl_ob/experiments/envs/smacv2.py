"""StarCraft II: battles of the StarCraft Multi-Agent Challenge, of the first and the second version."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from tensordict import TensorDictBase
from torchrl.data import Categorical, Composite
from torchrl.envs import ActionMask, Compose, EnvBase, UnaryTransform
from torchrl.envs.libs.smacv2 import SMACv2Env

from torchrl_ob.experiments.envs.simulators import (
    BatchOptions,
    batch_team,
    require_name,
    require_team_reward,
    told,
)
from torchrl_ob.experiments.errors import ExperimentError

__all__ = ["make_smacv2"]


def make_smacv2(map_name: str, **options: Unpack[BatchOptions]) -> EnvBase:
    """Battles of StarCraft II, each in a game of its own.

    A battle that is won or lost ends an episode (``terminated``); after ``max_steps`` it is cut
    (``truncated``), in place of the map's own limit, which ends it. The reward is the team's, at the
    root; ``("info", "battle_won")`` says whether the step won. ``("agents", "mask")`` says which units
    have a choice.

    A game takes its seed when it starts, and the units and positions that the maps of the second
    version draw do not follow from it: episodes are not the same from one evaluation to the next.

    Args:
        map_name: such as ``"3m"``, or ``"10gen_terran"``, which needs a ``capability_config``.
        **options: the sizes of the batch, by default each game in a process of its own, and ``scenario_kwargs``, arguments of
            smacv2's ``StarCraft2Env`` such as ``{"difficulty": "7"}``.

    Returns:
        The environment, of batch size ``[num_envs]``.

    Raises:
        ExperimentError: for a map or an argument that is not known, without smacv2, and without the
            game.
    """
    require_team_reward(options, "StarCraft II")
    package = "git+https://github.com/oxwhirl/smacv2, and the game as it says there"
    given = {"scenario_kwargs": options.get("scenario_kwargs")}
    with told("smacv2", package, "map", map_name, given):
        from smacv2.env.starcraft2.maps.smac_maps import get_smac_map_registry

        require_name("smacv2", "map", map_name, get_smac_map_registry())
        game = Path(os.environ.get("SC2PATH") or "~/StarCraftII").expanduser()
        if not (game / "Maps").is_dir():
            raise ExperimentError(
                f"there is no StarCraft II with Maps in {game}: install the game and the maps of SMAC, as "
                "github.com/oxwhirl/smacv2 says, and set SC2PATH to its folder."
            )
        make_env = partial(Battle, map_name, options["max_steps"])
        options.setdefault("parallel", True)
        env = batch_team(make_env, **options)
    mask, active = ("agents", "action_mask"), ("agents", "mask")
    return env.append_transform(
        Compose(
            UnaryTransform([mask], [active], fn=have_a_choice),
            UnaryTransform([mask], [mask], fn=give_an_action),
            ActionMask(("agents", "action"), mask),
        )
    )


def have_a_choice(available: torch.Tensor) -> torch.Tensor:
    """Which agents have more than one action, ``[*B, n]`` of ``[*B, n, A]``: others have a policy without a gradient.

    Example:
        >>> import torch
        >>> from torchrl_ob.experiments.envs.smacv2 import have_a_choice
        >>> have_a_choice(torch.tensor([[True, True], [True, False], [False, False]]))
        tensor([ True, False, False])
    """
    return available.sum(-1) > 1


def give_an_action(available: torch.Tensor) -> torch.Tensor:
    """Every action for agents that have none at all, so that their distribution exists.

    Example:
        >>> import torch
        >>> from torchrl_ob.experiments.envs.smacv2 import give_an_action
        >>> give_an_action(torch.tensor([[True, False], [False, False]]))
        tensor([[ True, False],
                [ True,  True]])
    """
    return available | ~available.any(-1, keepdim=True)


class Battle(SMACv2Env):
    """A game of TorchRL's ``SMACv2Env`` that can be seeded, and whose limit is no end.

    The game starts at the first reset. A seed that it does not have starts another one then.

    Args:
        map_name: of the map.
        max_steps: length of an episode.
        **options: of smacv2's ``StarCraft2Env``.
    """

    def __init__(self, map_name: str, max_steps: int, **options: Any) -> None:
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
