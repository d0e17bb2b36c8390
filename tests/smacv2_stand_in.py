"""What TorchRL and torchrl_ob use of smacv2, without the game: two teams that shoot at each other.

As smacv2 does, a reset starts a game as long as no battle has ended, a seed is taken when the game
starts, an action that is not available is an assertion, and ``episode_limit`` is told in the info where
episodes are to be continued.
"""

import sys
from types import ModuleType

import numpy as np

MAPS = {
    "3m": {"n_agents": 3, "n_enemies": 3, "limit": 60},
    "2s3z": {"n_agents": 5, "n_enemies": 5, "limit": 120},
    "10gen_terran": {"n_agents": 5, "n_enemies": 5, "limit": 200},
}
NO_OP, STOP, MOVES = 0, 1, 6  # no-op, stop and four moves; then an action for each enemy


class StarCraft2Env:
    running = 0  # games of all environments
    started_with = ()  # their seeds

    def __init__(self, map_name="3m", seed=None, continuing_episode=False, capability_config=None):
        self.n_agents, self.n_enemies, self.episode_limit = MAPS[map_name].values()
        self.n_actions = MOVES + self.n_enemies
        self.continuing_episode, self._seed = continuing_episode, seed
        self.battles_game = self._episode_count = 0
        self.is_launched = False

    def get_obs_size(self):
        return 3

    def get_state_size(self):
        return self.n_agents + self.n_enemies

    def reset(self, episode_config=None):
        if self._episode_count == 0:
            StarCraft2Env.running += 1
            StarCraft2Env.started_with += (self._seed,)
            self.is_launched, self.rng = True, np.random.default_rng(self._seed)
        self.steps = 0
        self.health = np.ones(self.n_agents)
        self.enemies = np.ones(self.n_enemies)
        return self.get_obs(), self.get_state()

    def get_obs(self):
        time = self.steps / self.episode_limit
        return [np.array([x, self.enemies.mean(), time]) * (x > 0) for x in self.health]

    def get_state(self):
        return np.concatenate([self.health, self.enemies])

    def get_avail_actions(self):
        alive, near = self.health > 0, self.steps > 0  # nobody is near at the start
        rows = np.zeros((self.n_agents, self.n_actions), dtype=int)
        rows[~alive, NO_OP] = 1
        rows[alive, STOP:MOVES] = 1
        rows[np.ix_(alive, np.arange(MOVES, self.n_actions))] = near * (self.enemies > 0)
        return rows.tolist()

    def step(self, actions):
        for agent, action in enumerate(actions):
            is_available = self.get_avail_actions()[agent][action]
            assert is_available, f"Agent {agent} cannot perform action {action}"
        targets = np.array([action - MOVES for action in actions if action >= MOVES], dtype=int)
        before = self.enemies.sum()
        for target in targets:
            self.enemies[target] = max(self.enemies[target] - 0.4, 0.0)
        reward = before - self.enemies.sum()
        alive = np.flatnonzero(self.health)
        if self.enemies.any():
            self.health[self.rng.choice(alive)] -= 0.5
        self.steps += 1
        info = {"battle_won": False, "dead_allies": int((self.health == 0).sum())}
        info["dead_enemies"] = int((self.enemies == 0).sum())
        done = not self.enemies.any() or not self.health.any()
        if done:
            info["battle_won"] = not self.enemies.any()
        elif self.steps >= self.episode_limit:
            done = True
            if self.continuing_episode:
                info["episode_limit"] = True
        self.battles_game += done
        self._episode_count += done
        return reward + 10 * info["battle_won"], done, info

    def close(self):
        if self.is_launched:
            StarCraft2Env.running -= 1
        self.is_launched = False


class StarCraftCapabilityEnvWrapper:
    """Draws units and positions; everything else is the environment's within."""

    def __init__(self, **kwargs):
        kwargs["capability_config"]["n_units"]  # written into, and must not be OmegaConf's
        assert type(kwargs["capability_config"]) is dict
        self.env = StarCraft2Env(**kwargs)

    def __getattr__(self, name):
        return getattr(self.env, name)

    def close(self):
        self.env.close()


def install(monkeypatch, tmp_path):
    """Put the stand-in where smacv2 would be, and a folder where the game would be."""
    names = ["smacv2", "smacv2.env", "smacv2.env.starcraft2", "smacv2.env.starcraft2.maps"]
    names.append("smacv2.env.starcraft2.maps.smac_maps")
    modules = {name: ModuleType(name) for name in names}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    modules["smacv2.env"].StarCraft2Env = StarCraft2Env
    modules["smacv2.env"].StarCraftCapabilityEnvWrapper = StarCraftCapabilityEnvWrapper
    modules[names[-1]].get_smac_map_registry = lambda: MAPS
    monkeypatch.setattr("torchrl.envs.libs.smacv2._has_smacv2", True)
    (tmp_path / "StarCraftII" / "Maps").mkdir(parents=True)
    monkeypatch.setenv("SC2PATH", str(tmp_path / "StarCraftII"))
    monkeypatch.setattr(StarCraft2Env, "running", 0)
    monkeypatch.setattr(StarCraft2Env, "started_with", ())
