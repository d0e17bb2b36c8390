"""An environment as a config says, with the transforms of its own that it lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from tensordict import unravel_key
from torchrl.envs import EnvBase

from torchrl_ob.experiments.config.instantiate import call, make
from torchrl_ob.experiments.config.modules import load_object
from torchrl_ob.experiments.config.options import read_options
from torchrl_ob.experiments.envs.teams import share_rewards
from torchrl_ob.experiments.errors import ExperimentError

__all__ = ["make_env"]


def make_env(config: DictConfig, **options: Any) -> EnvBase:
    """The environment of the group ``env``.

    Args:
        config: with a ``_target_``, its options, ``shared_reward``, where its target does not take it, and ``transforms``: a list of TorchRL transforms, each a ``_target_`` with its
            options, appended in this order. They come after the sums of rewards, so that a scaled reward is what is learned
            from, and reports keep the units of the environment.
        **options: given by the command, such as ``num_envs`` and ``seed``.

    Returns:
        The environment.

    Raises:
        ExperimentError: where it or a transform cannot be made, and where a transform reads what the environment lacks.

    Example:
        >>> from omegaconf import OmegaConf
        >>> from torchrl_ob.experiments.envs.transforms import make_env  # needs vmas
        >>> scaling = {"_target_": "torchrl.envs.transforms.RewardScaling", "loc": 0.0, "scale": 0.1}
        >>> config = {"_target_": "torchrl_ob.experiments.envs.vmas.make_vmas", "scenario": "balance", "max_steps": 5}
        >>> config["transforms"] = [scaling | {"in_keys": [["agents", "reward"]]}]
        >>> env = make_env(OmegaConf.create(config), num_envs=2, seed=0)
        >>> type(env.transform[-1]).__name__
        'RewardScaling'
    """
    plain: Any = OmegaConf.to_container(config, resolve=True)
    transforms = plain.pop("transforms", None) or []
    taken = read_options(load_object(plain["_target_"], "env._target_"))
    shared = None
    if "shared_reward" not in taken.types and not taken.open:
        shared = plain.pop("shared_reward", None)
    env = make(OmegaConf.create(plain), **options)
    if shared:
        env = share_rewards(env)
    for k, transform in enumerate(transforms):
        env = _append(env, transform, f"env.transforms[{k}]")
    return env


def _append(env: EnvBase, transform: Mapping[str, Any], key: str) -> EnvBase:
    keys = {
        name: [tuple(x) if isinstance(x, list) else x for x in value]  # YAML has no tuples
        for name, value in transform.items()
        if name.endswith("_keys") and isinstance(value, list)
    }
    rest = {name: value for name, value in transform.items() if name not in keys}
    built = call(OmegaConf.create({**rest, "_partial_": True, "_convert_": "all"}), **keys)
    specs = (env.observation_spec, env.full_reward_spec, env.full_action_spec, env.full_done_spec)
    known = {unravel_key(x) for spec in specs for x in spec.keys(True, True)}
    missing = [x for x in built.in_keys or () if unravel_key(x) not in known]
    if missing:
        raise ExperimentError(
            f"{key} reads {missing}, and the environment has {sorted(known, key=str)}: set its in_keys, such as "
            "[[agents, reward]]."
        )
    return env.append_transform(built)
