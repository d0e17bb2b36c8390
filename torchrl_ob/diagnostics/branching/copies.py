"""Copies of an environment's states, stepped aside from training, and the check that they step as it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cloudpickle
import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

from torchrl_ob._rng import isolated_rng
from torchrl_ob.diagnostics.branching.clone import find_scenario_name

__all__ = ["Clone", "Policy", "aside", "copies", "deep_copy", "require_same_steps", "steps"]

Clone = Callable[[EnvBase, Tensor], EnvBase]
"""``clone(env, index)``: a new environment whose k-th copy is in the state of env's ``index[k]``-th."""
Policy = Callable[[TensorDictBase], TensorDictBase]
"""Reads a tensordict ``[B]`` and writes the joint action into it."""
Act = Callable[[TensorDictBase, int], TensorDictBase]
"""A policy that knows the time."""

COMPARED_STEPS = 5, 2
"""Steps compared with the environment itself: of a copy of its whole batch, whose rounding is the
same, and of the branches, whose rounding is not, and may grow fast in a stiff simulation."""

ALLOWED = 1 / 20
"""Share of the states whose branches may step otherwise: VMAS passes over a pair of agents where it collides in
none of the environments of a batch, so that what happens in one can depend on its company."""


@contextmanager
def aside(env: EnvBase, seed: int) -> Iterator[None]:
    """Aside from training: no gradients, own random numbers; the policy's actions are sampled."""
    with isolated_rng(seed, env), torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        yield


def copies(clone: Clone, env: EnvBase, index: Tensor) -> EnvBase:
    """``clone(env, index)``, its batch size checked."""
    made = clone(env, index)
    if made.batch_size != index.shape:
        raise ValueError(
            f"clone(env, index) gave batch size {list(made.batch_size)} for an index of shape {list(index.shape)}."
        )
    return made


def steps(
    env: EnvBase, states: TensorDictBase, act: Act, num_steps: int
) -> Iterator[TensorDictBase]:
    """What follows each step from ``states``, which are left as they are."""
    tensordict = states.exclude("next").clone()
    for t in range(num_steps):
        tensordict = env.step(act(tensordict, t))
        yield tensordict.get("next")
        tensordict = env.step_mdp(tensordict)


def deep_copy(env: EnvBase) -> EnvBase:
    """A deep copy whose functions, too, hold on to its own objects.

    ``copy.deepcopy`` takes functions as they are, and a script that acts for an agent may be one that
    reads the scenario from its closure: it would read that of the original.
    """
    return cloudpickle.loads(cloudpickle.dumps(env))


def require_same_steps(
    clone: Clone,
    env: EnvBase,
    states: TensorDictBase,
    policy: Policy,
    key: NestedKey,
    actions: Tensor,
    chunks: list[Tensor],
) -> None:
    """Refuse an environment whose copies, stepped with the same actions, differ from itself.

    A deep copy of the environment steps exactly as it would. A second one that differs shows random dynamics;
    a clone that differs, that a part of the state is missing in it.

    Args:
        clone: copies states.
        env: the environment, of batch size ``[S]``; it is not stepped.
        states: the tensordict that it is in.
        policy: acts for the groups of agents whose actions are not given.
        key: where the joint action goes.
        actions: joint actions, ``[S, M1, n, *event]``; the first ones are taken one after the other.
        chunks: the indices of the copies that will be made.

    Raises:
        ValueError: by the scenario's name.
    """
    own_steps, branch_steps = COMPARED_STEPS
    taken, everywhere = [], torch.arange(len(states))

    def record(tensordict: TensorDictBase, t: int) -> TensorDictBase:
        tensordict = policy(tensordict).set(key, actions[:, t % actions.shape[1]])
        # with the next states of a policy that remembers, which are none of the environment's
        taken.append(tensordict.select(*env.action_keys, "next", strict=False).clone())
        return tensordict

    def repeat(index: Tensor) -> Act:
        return lambda tensordict, t: tensordict.update(taken[t][index])

    truth = [td.clone() for td in steps(deep_copy(env), states, record, own_steps)]
    random = "Its dynamics are random: switch that off by the scenario's arguments, such as n_red_agents=0."
    missed = "A copy lacks part of its state: hand over a clone(env, index) that copies all of it."
    for reason, index, num_steps, allowed in (
        (random, everywhere, own_steps, 0.0),
        (missed, everywhere, own_steps, 0.0),
        *((missed, chunk, branch_steps, ALLOWED) for chunk in chunks),
    ):
        made = deep_copy(env) if reason is random else copies(clone, env, index)
        repeated = steps(made, states[index], repeat(index), num_steps)
        for t, found in enumerate(repeated):
            for name, entry in found.items(True, True):
                other = _differing(entry, truth[t].get(name)[index])
                if len(index[other.to(index.device)].unique()) > allowed * len(index.unique()):
                    raise ValueError(
                        f"the scenario {find_scenario_name(env)!r} cannot be branched: with the same actions, "
                        f"step {t + 1} from the same state gave another {name!r}. {reason}"
                    )


def _differing(found: Tensor, expected: Tensor) -> Tensor:
    """Which of the first dimension differ, but for rounding."""
    if found.shape != expected.shape:
        return torch.ones(len(expected), dtype=torch.bool, device=expected.device)
    if expected.is_floating_point():
        same = found.isclose(expected, rtol=1e-3, atol=1e-4, equal_nan=True)
    else:
        same = found == expected
    return ~same.reshape(len(same), -1).all(1)
