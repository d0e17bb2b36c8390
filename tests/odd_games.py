"""Small games of PettingZoo, one for each kind of observation and action: a module's task for the command."""

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

VECTOR = spaces.Box(-1, 1, (3,), np.float32)
OBSERVATIONS = {
    "float32": VECTOR,
    "float64": spaces.Box(-1, 1, (3,), np.float64),
    "integers": spaces.Box(-5, 5, (3,), np.int64),
    "bytes": spaces.Box(0, 255, (3,), np.uint8),
    "matrix": spaces.Box(-1, 1, (2, 3), np.float32),
    "choice": spaces.Discrete(4),
    "choices": spaces.MultiDiscrete([2, 5]),
    "bits": spaces.MultiBinary(3),
    "dict": spaces.Dict({"near": VECTOR, "far": spaces.Box(-1, 1, (2, 2), np.float64)}),
    "one entry": spaces.Dict({"near": VECTOR}),
    "deep": spaces.Dict({"eyes": spaces.Dict({"left": VECTOR, "right": VECTOR})}),
    "image": spaces.Box(0, 255, (8, 8, 3), np.uint8),
}
ACTIONS = {
    "discrete": spaces.Discrete(3),
    "continuous": spaces.Box(np.float32([-1, 0]), np.float32([1, 0.2]), dtype=np.float32),
    "double": spaces.Box(-1, 1, (2,), np.float64),
    "factors": spaces.MultiDiscrete([3, 2]),
    "bits": spaces.MultiBinary(2),
    "half open": spaces.Box(0, np.inf, (2,), np.float32),
}


class OddGame(ParallelEnv):
    """Two agents see random observations and are paid for their action, which must be in its space.

    Args:
        observation: a name of ``OBSERVATIONS``.
        action: a name of ``ACTIONS``.
        masked: where the available actions are told, ``"observation"`` or ``"info"``; the first choice of
            every factor is then never available.
    """

    metadata = {"name": "odd", "render_modes": []}  # noqa: RUF012

    def __init__(self, observation="float32", action="discrete", masked=None, render_mode=None):
        self.possible_agents, self.render_mode = ["agent_0", "agent_1"], render_mode
        self.masked, space = masked, OBSERVATIONS[observation]
        self.choices, self.told_space = ACTIONS[action], space
        if masked == "observation":
            size = int(self.choices.n)
            mask = spaces.Box(0, 1, (size,), np.int8)
            space = spaces.Dict({"observation": space, "action_mask": mask})
        self.space = space

    def observation_space(self, agent):
        return self.space

    def action_space(self, agent):
        return self.choices

    def mask(self):
        available = np.ones(int(self.choices.n), np.int8)
        available[0] = 0
        return available

    def observe(self):
        seen = {agent: self.told_space.sample() for agent in self.agents}
        if self.masked == "observation":
            seen = {
                agent: {"observation": x, "action_mask": self.mask()} for agent, x in seen.items()
            }
        info = {"action_mask": self.mask()} if self.masked == "info" else {}
        return seen, {agent: dict(info) for agent in self.agents}

    def reset(self, seed=None, options=None):
        self.agents, self.time = list(self.possible_agents), 0
        if seed is not None:
            self.told_space.seed(seed)
        return self.observe()

    def step(self, actions):
        self.time += 1
        for action in actions.values():
            assert self.choices.contains(np.asarray(action, self.choices.dtype)), action
            if self.masked:
                assert action != 0
        rewards = {agent: float(np.sum(action)) for agent, action in actions.items()}
        seen, told = self.observe()
        ended = dict.fromkeys(self.agents, self.time >= 5)
        out = seen, rewards, ended, dict.fromkeys(self.agents, False), told
        self.agents = [] if self.time >= 5 else self.agents
        return out


def parallel_env(**options):
    return OddGame(**options)
