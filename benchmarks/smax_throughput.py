"""Frames per second of SMAX's map 3m: 256 environments in one call, one environment, and JaxMARL alone.

A frame is one step of one environment. ``JaxMARLEnv`` steps 256 environments in one compiled call, and
then one; episodes that end begin anew. The third line is JaxMARL without TorchRL: its ``step``, compiled,
of one environment, 256 times in a row. Actions are drawn beforehand, at random among the moves.
Compilation is not counted. All take turns, so that a busy machine slows all. ``SMOKE=1`` for
seconds; ``DEVICE=cuda`` where both JAX and PyTorch have one.
"""

import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from results import record
from tensordict import TensorDict

from torchrl_ob.envs.jaxmarl import JaxMARLEnv

SMOKE = os.environ.get("SMOKE") == "1"
DEVICE = os.environ.get("DEVICE", "cpu")
ENVS, STEPS, ROUNDS = (8, 10, 2) if SMOKE else (256, 256, 9)


def make(num_envs: int) -> JaxMARLEnv:
    """Three marines against three."""
    maps = JaxMARLEnv.lib.environments.smax.smax_env.MAP_NAME_TO_SCENARIO
    options = {"num_envs": num_envs, "device": DEVICE, "seed": 0}
    return JaxMARLEnv("HeuristicEnemySMAX", scenario=maps["3m"], **options)


def through_torchrl(num_envs: int) -> Callable[[], int]:
    """A function that takes ``STEPS`` steps and returns the number of frames."""
    env = make(num_envs)
    actions = torch.randint(5, (STEPS, num_envs, 3), device=DEVICE)
    now: TensorDict = env.reset()

    def steps() -> int:
        nonlocal now
        for action in actions:
            _, now = env.step_and_maybe_reset(now.set(("agents", "action"), action))
        now["agents", "observation"].sum().item()  # wait for the device
        return STEPS * num_envs

    return steps


def by_jaxmarl() -> Callable[[], int]:
    """The same of JaxMARL alone, one environment."""
    import jax

    env = make(1)._env
    step = jax.jit(env.step)
    drawn = jax.random.randint(jax.random.PRNGKey(0), (STEPS, 3), 0, 5)
    actions = [dict(zip(env.agents, action, strict=True)) for action in drawn]
    keys = list(jax.random.split(jax.random.PRNGKey(1), STEPS))
    state = env.reset(keys[0])[1]

    def steps() -> int:
        nonlocal state
        for key, action in zip(keys, actions, strict=True):
            _, state, _, _, _ = step(key, state, action)
        jax.block_until_ready(state)
        return STEPS

    return steps


if __name__ == "__main__":
    ways = {
        f"{ENVS} environments in one call": through_torchrl(ENVS),
        "one environment": through_torchrl(1),
        "JaxMARL alone, one environment": by_jaxmarl(),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):  # the first compiles
        for name, steps in ways.items():
            start = time.perf_counter()
            frames = steps()
            if turn:
                speeds[name].append(frames / (time.perf_counter() - start))
    versions = {name: version(name) for name in ("jax", "jaxmarl")}
    print(f"{DEVICE}, {os.cpu_count()} cores, torch {torch.__version__}, {versions}")
    print(f"{'':32} {'frames/s':>9} {'lowest':>9} {'highest':>9} {'us a call':>10}")
    middles = {name: statistics.median(found) for name, found in speeds.items()}
    for name, found in speeds.items():
        size = ENVS if name.startswith(str(ENVS)) else 1
        print(
            f"{name:32} {middles[name]:9.0f} {min(found):9.0f} {max(found):9.0f} "
            f"{1e6 * size / middles[name]:10.0f}"
        )
    batch, *single = middles.values()
    about = {"envs": ENVS, "rounds": ROUNDS, **versions}
    record("smax_frames_per_second", batch, **about)
    record("smax_batch_over_jaxmarl_single", batch / single[1], **about)
