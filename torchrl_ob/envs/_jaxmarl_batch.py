"""JaxMARL environments that step together: one compiled call for all of them and all their agents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Batch(NamedTuple):
    """Functions of B environments, each a compiled call.

    A simulation is a dictionary with the random ``key`` of each environment, its ``state``, and what
    is ``shown`` of it, named and shaped as in TorchRL's multi-agent layout.
    """

    start: Callable[[Any], Any]
    """Keys ``[B, 2]`` to the simulation of new episodes."""
    step: Callable[[Any, Any], tuple[Any, Any]]
    """Simulation and joint actions ``[B, n, *action]`` to the next one and the rewards ``[B, n, 1]``."""
    select: Callable[[Any, Any, Any], Any]
    """Of two simulations the first where a mask ``[B]`` is true, and else the second."""


def compile_batch(env: Any, read_action: Callable[[Any], Any]) -> Batch:
    """Compile a JaxMARL environment for any number of copies of it.

    An environment draws its random numbers from its own key: its episodes are the same whatever
    happens in the others.

    Args:
        env: the environment. Its ``step_env`` is called, which begins no new episode by itself.
        read_action: what comes in for one environment to its agents' actions, ``[n, *action]``.
    """
    import jax
    from jax import numpy as jnp

    agents, battle = list(env.agents), _battle(env)
    masked = _has_action_mask(env)

    def stack(by_agent: Any, dtype: Any) -> Any:
        return jnp.stack([by_agent[agent] for agent in agents]).astype(dtype)

    def show(observations: Any, state: Any, alive: Any, done: Any) -> dict[str, Any]:
        group = {"observation": stack(observations, jnp.float32), "mask": alive}
        if masked:
            group["action_mask"] = stack(env.get_avail_actions(state), bool)
        truncated = done & _time_is_up(env, state)
        shown: dict[str, Any] = {"agents": group}
        if "world_state" in observations:
            shown["state"] = observations["world_state"].astype(jnp.float32)
        if battle is not None:
            decided, won = battle(state)
            truncated &= ~decided
            shown["info"] = {"battle_won": won[None]}
        ends = {"done": done, "terminated": done & ~truncated, "truncated": truncated}
        return shown | {name: end[None] for name, end in ends.items()}

    def simulation(key: Any, state: Any, shown: Any) -> dict[str, Any]:
        # of types that do not depend on how they came about, or all would be compiled again
        whole = {"key": key, "state": state, "shown": shown}
        return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), whole)

    def start(key: Any) -> dict[str, Any]:
        key, own = jax.random.split(key)
        observations, state = env.reset(own)
        alive = jnp.ones(len(agents), bool)
        return simulation(key, state, show(observations, state, alive, jnp.array(False)))

    def step(before: Any, action: Any) -> tuple[dict[str, Any], Any]:
        key, own = jax.random.split(before["key"])
        actions = dict(zip(agents, read_action(action), strict=True))
        observations, state, rewards, dones, _ = env.step_env(own, before["state"], actions)
        shown = show(observations, state, ~stack(dones, bool), dones["__all__"])
        return simulation(key, state, shown), stack(rewards, jnp.float32)[:, None]

    def select(mask: Any, first: Any, second: Any) -> Any:
        return jax.tree.map(lambda x, y: jnp.where(mask, x, y), first, second)

    return Batch(*(jax.jit(jax.vmap(function)) for function in (start, step, select)))


def make_keys(seed: int, num_envs: int, device: Any) -> Any:
    """A random key for each environment, ``[num_envs, 2]``; the k-th depends on seed and k alone."""
    import jax
    from jax import numpy as jnp

    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.PRNGKey(seed), jnp.arange(num_envs))
    return jax.device_put(keys, device)


def _has_action_mask(env: Any) -> bool:
    """Whether an environment says which of its discrete actions are available."""
    import jax

    if not hasattr(env.action_space(env.agents[0]), "n"):
        return False
    try:
        state = jax.eval_shape(env.reset, jax.random.PRNGKey(0))[1]
        jax.eval_shape(env.get_avail_actions, state)
    except NotImplementedError:
        return False
    return True


def _time_is_up(env: Any, state: Any) -> Any:
    """Whether an episode has reached the limit of its environment, where that has one."""
    step, limit = getattr(_own(state), "step", None), getattr(env, "max_steps", None)
    return False if step is None or limit is None else step >= limit


# what is known of SMAX alone


def _battle(env: Any) -> Callable[[Any], tuple[Any, Any]] | None:
    """Whether a state of SMAX is decided, and whether the allies have won; nothing of others."""
    from jax import numpy as jnp
    from jaxmarl.environments.smax.heuristic_enemy_smax_env import EnemySMAX
    from jaxmarl.environments.smax.smax_env import SMAX

    if not isinstance(env, SMAX | EnemySMAX):
        return None

    def outcome(state: Any) -> tuple[Any, Any]:
        alive = _own(state).unit_alive
        allies, enemies = jnp.any(alive[: env.num_allies]), jnp.any(alive[env.num_allies :])
        return ~(allies & enemies), allies & ~enemies

    return outcome


def _own(state: Any) -> Any:
    """The state within that of an environment that acts for the enemies itself."""
    return getattr(state, "state", state)
