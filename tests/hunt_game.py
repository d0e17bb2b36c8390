"""A small game of PettingZoo: hounds choose a side, a hare runs; each is rewarded by what the others do."""

import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import ParallelEnv


class Hunt(ParallelEnv):
    """Two hounds (discrete, left or right of two sides) and a hare (continuous), for some steps.

    A side is drawn each step and seen by hounds and hare. The hare is rewarded for running to the other
    side, less where hounds wait for it; a hound for standing where the hare runs.
    """

    metadata = {"name": "hunt", "render_modes": []}  # noqa: RUF012

    def __init__(self, steps=10, leave=False, render_mode=None):
        self.possible_agents = ["hound_0", "hound_1", "hare_0"]
        self.steps, self.leave, self.render_mode = steps, leave, render_mode

    def observation_space(self, agent):
        return Box(-2, 2, (4,) if agent.startswith("hound") else (2,), np.float32)

    def action_space(self, agent):
        return Discrete(3) if agent.startswith("hound") else Box(-1, 1, (1,), np.float32)

    def _observe(self):
        self.side = float(self.random.choice([-1, 1]))
        seen = {}
        for index, agent in enumerate(self.agents):
            x = [self.side, 1.0, float(index), self.time / self.steps]
            seen[agent] = np.array(x[: 4 if agent.startswith("hound") else 2], np.float32)
        return seen

    def reset(self, seed=None, options=None):
        if seed is not None or not hasattr(self, "random"):
            self.random = np.random.default_rng(seed)
        self.agents, self.time = list(self.possible_agents), 0
        return self._observe(), {agent: {} for agent in self.agents}

    def step(self, actions):
        self.time += 1
        present = [x for x in self.agents if x.startswith("hound")]
        hounds = {x: int(actions[x]) - 1 for x in present}  # left, neither, right
        run = float(np.asarray(actions["hare_0"]).reshape(-1)[0])
        rewards = {x: place * run for x, place in hounds.items()}
        rewards["hare_0"] = -self.side * run - 0.25 * sum(rewards.values())
        ended = self.time >= self.steps
        gone = dict.fromkeys(self.agents, ended)
        if self.leave and self.time >= self.steps // 2:
            gone["hound_1"] = "hound_1" in self.agents or ended
        told = {agent: {"run": run} for agent in self.agents}  # at a step, and not at the reset
        seen = self._observe()
        left = [agent for agent in self.agents if not gone[agent]]
        out = (
            seen,
            {agent: rewards.get(agent, 0.0) for agent in self.agents},
            {agent: gone[agent] for agent in self.agents},
            dict.fromkeys(self.agents, False),
            told,
        )
        self.agents = left
        return out


def parallel_env(**options):
    return Hunt(**options)
