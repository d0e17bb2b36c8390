r"""Ground truth by branching: many continuations of many joint actions from one state.

From a state s, M1 joint actions of the policy are followed by M2 continuations each. The mean return of a joint
action estimates :math:`Q(s, a)` without a critic. A nested analysis of variance shows how much of the variance of a
return is due to the joint action, which a baseline can affect, and how much to what follows, which it cannot (Searle,
Casella and McCulloch, "Variance Components", 1992, section 3.5).

Nothing here touches a parameter's gradient, the environment handed in or the random state of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from tensordict import TensorDictBase, unravel_key
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs import EnvBase

from torchrl_ob._checks.batch import sibling
from torchrl_ob.diagnostics.branching.clone import clone_vmas
from torchrl_ob.diagnostics.branching.copies import (
    Clone,
    Policy,
    aside,
    copies,
    require_same_steps,
    steps,
)

__all__ = ["Branches", "branch", "branch_returns", "visited_states"]


class Branches(NamedTuple):
    """Joint actions ``[S, M1, n, *event]`` and their returns ``[len(horizons), S, M1, M2, n]``."""

    actions: Tensor
    returns: Tensor


def visited_states(
    env: EnvBase,
    policy: Policy,
    *,
    num_states: int,
    max_steps: int = 50,
    clone: Clone = clone_vmas,
    seed: int = 0,
) -> tuple[EnvBase, TensorDictBase]:
    """States that the policy visits, each after a random number of steps from a reset.

    Args:
        env: the environment; a copy of it is stepped, not the environment itself.
        policy: the agents' policies; its actions are sampled.
        num_states: how many states, S.
        max_steps: the numbers of steps are uniform from 0 to this. An episode that ends earlier starts again.
        clone: copies states; by default those of VMAS.
        seed: of all random numbers drawn.

    Returns:
        An environment of batch size ``[S]`` in those states, and its tensordict.

    Example: see :func:`branch`.
    """
    with aside(env, seed):
        env = clone(env, torch.zeros(num_states, dtype=torch.long))
        states, age = env.reset(), torch.randint(max_steps + 1, (num_states,))
        resets = list(zip(env.reset_keys, env.done_keys_groups, strict=True))
        for left in range(max_steps, -1, -1):
            if left < max_steps and (age == left).any():
                for reset_key, (done_key, *_) in resets:
                    done = states.get(done_key)
                    due = (age == left).to(done.device).reshape(-1, *[1] * (done.ndim - 1))
                    states.set(reset_key, due.expand_as(done))
                states = env.reset(states).exclude(*env.reset_keys)
            if left:
                states = env.step_and_maybe_reset(policy(states))[1]
    return env, states


def branch(
    env: EnvBase,
    states: TensorDictBase,
    policy: Policy,
    *,
    num_actions: int,
    action_key: NestedKey | None = None,
    seed: int = 0,
    **options: Any,
) -> Branches:
    """Returns of joint actions that the policy itself takes in the states.

    Args:
        env: the environment, of batch size ``[S]``.
        states: the tensordict that it is in, ``[S]``.
        policy: the agents' policies; its actions are sampled.
        num_actions: joint actions in each state, M1.
        action_key: key of the joint action; needed with several groups of agents.
        seed: of all random numbers drawn.
        **options: of :func:`branch_returns`.

    Example:
        >>> from torchrl.envs.libs.vmas import VmasEnv
        >>> from torchrl_ob.diagnostics.branching.branches import branch, visited_states
        >>> env = VmasEnv("navigation", num_envs=2, n_agents=3, seed=0)
        >>> policy = lambda td: td.set(("agents", "action"), 2 * torch.rand(*td.batch_size, 3, 2) - 1)
        >>> at, states = visited_states(env, policy, num_states=4, max_steps=5)
        >>> branches = branch(
        ...     at, states, policy, num_actions=8, num_continuations=2, horizons=[1, 5], gamma=0.99
        ... )
        >>> branches.returns.shape
        torch.Size([2, 4, 8, 2, 3])
    """
    key = _action_key(env, action_key)
    with aside(env, seed):
        wide = states.unsqueeze(1).expand(len(states), num_actions).flatten()
        actions = policy(wide.clone()).get(key).unflatten(0, (len(states), num_actions))
    options |= {"action_key": key, "seed": seed + 1}
    return Branches(actions, branch_returns(env, states, policy, actions, **options))


def branch_returns(
    env: EnvBase,
    states: TensorDictBase,
    policy: Policy,
    actions: Tensor,
    *,
    horizons: Sequence[int],
    gamma: float,
    num_continuations: int,
    action_key: NestedKey | None = None,
    reward_key: NestedKey | None = None,
    clone: Clone = clone_vmas,
    max_branches: int = 2**13,
    seed: int = 0,
) -> Tensor:
    r"""Returns of joint actions, each followed by continuations of the policy.

    .. math::
        R_h = \sum_{t=0}^{h-1} \gamma^t r_t, \quad a_0 \text{ given}, \quad a_{t>0} \sim \pi

    No reward counts after ``terminated``, which is also what VMAS reports at its own ``max_steps``; a time limit
    (``truncated``) stops nothing. The copies are checked first: stepped with the
    same actions, they give the same results as a deep copy of the environment itself. (If the copies are in another
    batch than the states, this holds in nineteen of twenty states: VMAS skips collisions of two agents that collide
    nowhere in a batch, and some scenarios count collisions in this way.) Randomness that begins after the compared
    steps is not detected, and counts as noise of the future.

    Args:
        env: the environment, of batch size ``[S]``. It is left as it is.
        states: the tensordict that it is in, ``[S]``: of ``reset``, or of ``step_mdp`` after a step.
        policy: the agents' policies; its actions are sampled.
        actions: joint actions, ``[S, M1, n, *event]``.
        horizons: numbers of steps h. One run gives all of them.
        gamma: discount.
        num_continuations: continuations of each joint action, M2.
        action_key: key of the joint action; needed with several groups of agents. The other groups follow the policy
            from the start.
        reward_key: key of the reward, ``[S, n, 1]``, or of a team's, ``[S, 1]``; by default the one
            next to the action, or else that of the environment.
        clone: copies states; by default those of VMAS.
        max_branches: how many branches are stepped together.
        seed: of all random numbers drawn.

    Returns:
        ``[len(horizons), S, M1, M2, n]``, in double precision.

    Raises:
        KeyError: for a key that the environment lacks.
        ValueError: for a wrong shape; and for an environment whose dynamics are random, or whose
            state is not copied whole, by the scenario's name.

    Example: see :func:`branch`.
    """
    key, batch = _action_key(env, action_key), tuple(env.batch_size)
    reward_key, terminated_key = _reward_keys(env, key, reward_key)
    event = tuple(env.full_action_spec[key].shape[1:])
    expected = [*batch, "M1", *event]
    fits = actions.ndim == len(expected) and actions.shape[:1] + actions.shape[2:] == batch + event
    if len(batch) != 1 or states.batch_size != batch or not fits:
        raise ValueError(
            f"the environment has batch size {list(batch)}, the states {list(states.batch_size)} and "
            f"the actions {key!r} shape {list(actions.shape)}; expected [S], [S] and {expected}."
        )
    if not horizons or min(horizons) < 1 or min(num_continuations, max_branches) < 1:
        raise ValueError("horizons, num_continuations and max_branches must be 1 or more.")
    num_actions, num_agents = actions.shape[1:3]
    joint = torch.arange(len(states) * num_actions).repeat_interleave(num_continuations)
    chunks = joint.split(max_branches)

    def run(chunk: Tensor) -> Tensor:
        at, first = chunk // num_actions, actions.flatten(0, 1)[chunk]
        total = torch.zeros(len(chunk), num_agents, dtype=torch.double, device=actions.device)
        alive, sums = torch.ones_like(total, dtype=torch.bool), {}

        def act(tensordict: TensorDictBase, t: int) -> TensorDictBase:
            tensordict = policy(tensordict)
            return tensordict if t else tensordict.set(key, first)

        made = copies(clone, env, at)
        for t, following in enumerate(steps(made, states[at], act, max(horizons))):
            reward = _per_agent(following, reward_key, total)
            total = total + torch.where(alive, gamma**t * reward, 0)
            alive = alive & ~_per_agent(following, terminated_key, total)
            sums[t + 1] = total
        return torch.stack([sums[horizon] for horizon in horizons])

    with aside(env, seed):
        indices = [chunk // num_actions for chunk in chunks]
        require_same_steps(clone, env, states, policy, key, actions, indices)
        returns = torch.cat([run(chunk) for chunk in chunks], dim=1)
    return returns.unflatten(1, (len(states), num_actions, num_continuations))


def _action_key(env: EnvBase, key: NestedKey | None) -> NestedKey:
    single = env.action_keys[0] if len(env.action_keys) == 1 else None
    return _pick("action_key", env.action_keys, key or single)


def _reward_keys(
    env: EnvBase, action_key: NestedKey, key: NestedKey | None
) -> tuple[NestedKey, NestedKey]:
    """Where the reward is, and whether an episode has terminated."""
    keys = [sibling(action_key, "reward"), env.reward_keys[0]] if key is None else [key]
    reward_key = _pick("reward_key", env.reward_keys, *keys)
    return reward_key, _pick("", env.done_keys, sibling(reward_key, "terminated"), "terminated")


def _pick(name: str, known: Sequence[NestedKey], *choices: NestedKey | None) -> NestedKey:
    """The first of the choices that is known."""
    keys = [unravel_key(key) for key in known]
    for choice in choices:
        if choice is not None and unravel_key(choice) in keys:
            return unravel_key(choice)
    raise KeyError(f"{name} must be one of the environment's {keys}, got {choices[0]!r}.")


def _per_agent(following: TensorDictBase, key: NestedKey, like: Tensor) -> Tensor:
    """A signal ``[B, n]`` of every agent; that of a team, ``[B, 1]``, is expanded."""
    signal, (batch, num_agents) = following.get(key), like.shape
    if signal.shape not in ((batch, num_agents, 1), (batch, 1)):
        raise ValueError(
            f"{key!r} has shape {list(signal.shape)}; expected {[batch, num_agents, 1]} or, of a team, {[batch, 1]}."
        )
    return signal.flatten(1).expand(batch, num_agents)
