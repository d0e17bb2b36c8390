"""JaxMARL's environments, SMAX among them, simulated together as one batch on CPU or GPU."""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Composite, Unbounded
from torchrl.envs import EnvBase
from torchrl.envs.common import _EnvWrapper
from torchrl.envs.utils import _classproperty

from torchrl_ob.envs._dlpack import jax_device, to_jax, to_torch
from torchrl_ob.envs._jaxmarl_batch import compile_batch, make_keys
from torchrl_ob.envs._jaxmarl_specs import action_spec, example_spec, require_equal_spaces

__all__ = ["JaxMARLEnv", "JaxMARLWrapper"]


class JaxMARLWrapper(_EnvWrapper):
    """A JaxMARL environment (Rutherford et al., arXiv:2311.10090), many copies stepping together.

    All environments and agents step in one call that JAX compiles, at the first step. Tensors are
    exchanged in place (DLPack), on the device of the environment; the state of the simulation stays
    with JAX. Each environment draws from its own random key, so its episodes depend on the seed and
    its number alone.

    The agents are one team of equal spaces, discrete or bounded, in the group ``"agents"``:
    ``observation`` ``[B, n, o]``, ``action`` ``[B, n]`` (or ``[B, n, d]``), ``reward`` ``[B, n, 1]``,
    ``mask`` ``[B, n]``, false for an agent that is dead or done, and ``action_mask`` ``[B, n, A]``
    where the environment says which actions are available. At the root are ``state`` ``[B, s]``
    where there is a ``world_state``, ``done``, ``terminated`` and ``truncated`` ``[B, 1]``, and of SMAX
    ``("info", "battle_won")`` ``[B, 1]``: all enemies are dead and an ally is not.

    An episode that ends at the environment's ``max_steps`` is truncated, and not terminated; one of
    SMAX is terminated there too where the battle is decided at that very step. SMAX and MPE look at
    the clock before they count the step, so their limit comes after ``max_steps + 1`` steps.

    Args:
        env: a JaxMARL environment.

    Keyword Args:
        num_envs: number of copies, the batch size.
        categorical_actions: discrete actions as integers, or else one-hot.
        seed: of the episodes. By default it is drawn from torch's generator.
        device: where the simulation runs: ``"cpu"``, or ``"cuda"`` where JAX is installed with it.

    Raises:
        ImportError: where JaxMARL is not installed.
        ValueError: for agents that differ in their spaces.
        RuntimeError: where JAX has no such device.

    Example:
        >>> from torchrl_ob.envs.jaxmarl import JaxMARLWrapper  # needs jaxmarl
        >>> env = JaxMARLWrapper(JaxMARLWrapper.lib.make("MPE_simple_spread_v3"), num_envs=4, seed=0)
        >>> env.rollout(5)["next", "agents", "reward"].shape
        torch.Size([4, 5, 3, 1])
    """

    git_url = "https://github.com/FLAIROX/JaxMARL"
    libname = "jaxmarl"

    @_classproperty
    def available_envs(cls) -> list[str]:
        """Names of JaxMARL's environments; none where it is not installed."""
        return list(cls.lib.registered_envs) if importlib.util.find_spec("jaxmarl") else []

    @_classproperty
    def lib(cls) -> Any:
        """The package jaxmarl."""
        try:
            with _streams_kept():
                import jaxmarl
        except ModuleNotFoundError as error:
            raise ImportError(
                f"JaxMARL is not installed ({error}): pip install 'torchrl-ob[smax]'."
            ) from error
        return jaxmarl

    def __init__(
        self,
        env: Any = None,
        *,
        num_envs: int = 1,
        categorical_actions: bool = True,
        seed: int | None = None,
        device: torch.device | str = "cpu",
        **kwargs: Any,
    ) -> None:
        if env is not None:
            kwargs["env"] = env
        self.categorical_actions = categorical_actions
        self._first_seed = seed
        super().__init__(device=device, batch_size=torch.Size([num_envs]), **kwargs)

    @property
    def num_envs(self) -> int:
        """Number of copies of the environment."""
        return self.batch_size.numel()

    def _check_kwargs(self, kwargs: dict[str, Any]) -> None:
        lib = self.lib
        if not isinstance(kwargs.get("env"), lib.environments.MultiAgentEnv):
            raise TypeError(f"env must be a JaxMARL environment, got {kwargs.get('env')!r}.")

    def _build_env(self, *, env: Any) -> Any:
        require_equal_spaces(env)
        self._action_space = env.action_space(env.agents[0])
        if not hasattr(self._action_space, "n") and not hasattr(self._action_space, "low"):
            raise ValueError(
                f"the actions of {env.name} are {type(self._action_space).__name__}, and may be Discrete or Box."
            )
        self._jax_device = jax_device(self.device)
        self._batch = compile_batch(env, self._read_action)
        return env

    def _init_env(self) -> None:
        self._simulation: dict[str, Any] = {}
        self.set_seed(self._first_seed)

    def _make_specs(self, env: Any) -> None:
        import jax

        self.group_map = {"agents": list(env.agents)}
        keys = make_keys(0, self.num_envs, self._jax_device)
        example = jax.eval_shape(self._batch.start, keys)["shown"]
        ends = {name: example.pop(name) for name in ("done", "terminated", "truncated")}
        agents = torch.Size([len(env.agents)])
        observations, done = (example_spec(part, self.device) for part in (example, ends))
        observations["agents"].shape = agents
        action = action_spec(self._action_space, agents, self.categorical_actions, self.device)
        reward = Unbounded((*agents, 1), device=self.device)
        for name, spec in (("action", action), ("reward", reward)):
            group = Composite({name: spec}, shape=agents, device=self.device)
            team = Composite({"agents": group}, device=self.device)
            setattr(self, f"full_{name}_spec_unbatched", team)
        self.full_observation_spec_unbatched = observations
        self.full_done_spec_unbatched = done

    def _read_action(self, action: Any) -> Any:
        """Of one environment, what JAX is given, to what JaxMARL reads: ``[n]`` or ``[n, d]``."""
        if not hasattr(self._action_space, "n"):
            return action
        action = action[..., 0]  # the lower of two halves
        return action if self.categorical_actions else action.argmax(-1)

    def _set_seed(self, seed: int | None) -> None:
        if seed is None:
            seed = int(torch.randint(2**31, ()))
        self._simulation["key"] = make_keys(seed, self.num_envs, self._jax_device)

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        simulation = self._batch.start(self._simulation["key"])
        mask = None if tensordict is None else tensordict.get("_reset", None)
        if mask is not None and "state" in self._simulation:
            simulation = self._batch.select(to_jax(mask.squeeze(-1)), simulation, self._simulation)
        return self._show(simulation)

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        action = tensordict.get(self.action_key)
        if not action.is_floating_point():
            action = action.unsqueeze(-1).view(torch.int32)  # JAX has integers of 32 bits
        simulation, reward = self._batch.step(self._simulation, to_jax(action))
        following = self._show(simulation)
        following["agents", "reward"] = to_torch(reward)
        return following

    def _show(self, simulation: dict[str, Any]) -> TensorDict:
        """Take a simulation as the present one, and show it.

        Who writes into what is shown changes nothing in the simulation: its state is other memory.
        """
        import jax

        self._simulation = simulation
        shown = jax.tree.map(to_torch, simulation["shown"])
        shown = TensorDict(shown, self.batch_size, device=self.device)
        shown["agents"].batch_size = (*self.batch_size, len(self.group_map["agents"]))
        mask = shown.get(("agents", "action_mask"), None)
        if mask is not None:
            self.full_action_spec[self.action_key].update_mask(mask)
        return shown

    def simulator_state(self) -> dict[str, Tensor]:
        """The whole simulation, random keys included, in tensors of their own.

        Returns:
            Tensors by the names of what they are in the simulation.
        """
        import jax

        leaves = jax.tree_util.tree_leaves_with_path(self._simulation)
        return {jax.tree_util.keystr(path): _signed(to_torch(x)).clone() for path, x in leaves}

    def load_simulator_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a simulation that was saved, of an environment built with the same arguments.

        Args:
            state: from :meth:`simulator_state`.

        Raises:
            ValueError: where the state is that of another environment, by the name of the difference.
        """
        import jax

        def read(path: Any, place: Any) -> Any:
            name = jax.tree_util.keystr(path)
            saved = unread.pop(name, None)
            if saved is None or saved.shape != place.shape:
                found = "nothing" if saved is None else list(saved.shape)
                raise ValueError(f"{name} must be {list(place.shape)}, and the state has {found}.")
            array = to_jax(saved.to(self.device, copy=True))
            array = array.view(place.dtype) if place.dtype == "uint32" else array
            return jax.device_put(array, self._jax_device)

        unread = dict(state)
        example = jax.eval_shape(self._batch.start, self._simulation["key"])
        simulation = jax.tree_util.tree_map_with_path(read, example)
        if unread:
            raise ValueError(f"the environment has no {', '.join(unread)}.")
        self._show(simulation)

    def to(self, device: torch.device | str) -> EnvBase:
        """Move the environment and its simulation to another device."""
        import jax

        self._jax_device = jax_device(torch.device(device))
        self._simulation = jax.device_put(self._simulation, self._jax_device)
        return super().to(device)

    def __repr__(self) -> str:
        agents = len(self.group_map["agents"])
        return (
            f"{type(self).__name__}({self._env.name}, num_envs={self.num_envs}, "
            f"n_agents={agents}, device={self.device})"
        )


class JaxMARLEnv(JaxMARLWrapper):
    """A JaxMARL environment built by its name: see :class:`JaxMARLWrapper`.

    Args:
        env_name: one of :attr:`available_envs`.

    Keyword Args:
        num_envs: number of copies, the batch size.
        categorical_actions: discrete actions as integers, or else one-hot.
        seed: of the episodes.
        device: where the simulation runs.
        **kwargs: of the environment.

    Example:
        >>> from torchrl_ob.envs.jaxmarl import JaxMARLEnv  # needs jaxmarl
        >>> env = JaxMARLEnv("HeuristicEnemySMAX", num_envs=2, num_allies=2, num_enemies=3)
        >>> env.reset()["state"].shape
        torch.Size([2, 60])
    """

    def __init__(self, env_name: str, **kwargs: Any) -> None:
        super().__init__(env_name=env_name, **kwargs)

    def _check_kwargs(self, kwargs: dict[str, Any]) -> None:
        names = self.lib.registered_envs
        if kwargs.get("env_name") not in names:
            raise ValueError(
                f"JaxMARL has no environment {kwargs.get('env_name')!r}, only {', '.join(names)}."
            )

    def _build_env(self, **kwargs: Any) -> Any:
        return super()._build_env(env=self.lib.make(kwargs.pop("env_name"), **kwargs))


@contextmanager
def _streams_kept() -> Iterator[None]:
    """JaxMARL prints as it is imported, and puts the streams back that the process began with."""
    streams: Any = sys
    kept = {name: getattr(sys, name) for name in ("stdout", "__stdout__", "stderr", "__stderr__")}
    streams.stdout = streams.__stdout__ = io.StringIO()
    streams.__stderr__ = sys.stderr
    try:
        yield
    finally:
        for name, stream in kept.items():
            setattr(sys, name, stream)


def _signed(tensor: Tensor) -> Tensor:
    """Random keys as integers that every function of torch takes."""
    return tensor.view(torch.int32) if tensor.dtype == torch.uint32 else tensor
