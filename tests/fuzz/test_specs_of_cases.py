"""Policies and critics from any action spec act within it, or refuse it by name."""

import itertools
from dataclasses import dataclass
from math import inf

import torch
from hypothesis import strategies as st
from torchrl.data import (
    Binary,
    Bounded,
    Categorical,
    Composite,
    MultiCategorical,
    MultiOneHot,
    OneHot,
    Unbounded,
)
from torchrl.envs import EnvBase, ExplorationType, set_exploration_type

from fuzz.harness import fuzz, require_refusal
from fuzz.strategies import flags, seeds
from torchrl_ob import JointQCritic, ObAdvantage
from torchrl_ob.policies import policy_from_env

KINDS = (
    "bounded",
    "bounded_of_each",
    "bounded_integers",
    "unbounded",
    "unbounded_integers",
    "categorical",
    "categorical_of_factors",
    "one_hot",
    "multi_categorical",
    "multi_one_hot",
    "binary",
    "stacked",
)
ENDS = st.sampled_from([-1.0, 0.0, 0.2, 1.0, 5.0, -0.2, 1e3, inf, -inf])


@dataclass(frozen=True)
class Spec:
    kind: str = "bounded"
    agents: int = 2
    sizes: tuple[int, ...] = (2,)
    ends: tuple[float, ...] = (-1.0, 1.0)
    masked: bool = False
    share_params: bool = True
    double: bool = False
    envs: tuple[int, ...] = ()
    seed: int = 0


@st.composite
def spec_cases(draw):
    agents = draw(st.integers(1, 3))
    sizes = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    ends = draw(st.lists(ENDS, min_size=2 * agents, max_size=2 * agents))
    pairs = [sorted(ends[2 * k : 2 * k + 2]) for k in range(agents)]
    return Spec(
        kind=draw(st.sampled_from(KINDS)),
        agents=agents,
        sizes=sizes,
        ends=tuple(x for low, high in pairs for x in (low, high if high > low else low + 1.0)),
        masked=draw(flags),
        share_params=draw(flags),
        double=draw(flags),
        envs=draw(st.sampled_from([(), (2,)])),
        seed=draw(seeds),
    )


class Still(EnvBase):
    """An environment of these specs in which nothing happens."""

    def __init__(self, case):
        super().__init__(batch_size=case.envs)
        n, batch = case.agents, case.envs
        self.case = case
        seen = {"observation": Unbounded(shape=(*batch, n, 3))}
        spec = self.make_action_spec()
        if case.masked:
            seen["action_mask"] = Binary(shape=(*batch, n, case.sizes[0]), dtype=torch.bool)
        self.observation_spec = Composite(agents=Composite(seen, shape=batch), shape=batch)
        self.action_spec = Composite(agents=Composite(action=spec, shape=batch), shape=batch)
        self.reward_spec = Unbounded(shape=(*batch, 1))

    def make_action_spec(self):
        case = self.case
        n, size, batch = case.agents, case.sizes[0], case.envs
        dtype = torch.float64 if case.double else torch.float32
        low = torch.tensor(case.ends[::2]).reshape(n, 1).expand(*batch, n, size).to(dtype)
        high = torch.tensor(case.ends[1::2]).reshape(n, 1).expand(*batch, n, size).to(dtype)
        if case.kind == "bounded":
            return Bounded(case.ends[0], case.ends[1], shape=(*batch, n, size), dtype=dtype)
        if case.kind == "bounded_of_each":
            return Bounded(low, high, shape=(*batch, n, size), dtype=dtype)
        if case.kind == "bounded_integers":
            return Bounded(0, size, shape=(*batch, n, size), dtype=torch.int64)
        if case.kind == "unbounded":
            return Unbounded(shape=(*batch, n, size), dtype=dtype)
        if case.kind == "unbounded_integers":
            return Unbounded(shape=(*batch, n, size), dtype=torch.int64)
        if case.kind == "categorical":
            return Categorical(size, shape=(*batch, n))
        if case.kind == "categorical_of_factors":
            return Categorical(size, shape=(*batch, n, len(case.sizes)))
        if case.kind == "one_hot":
            return OneHot(size, shape=(*batch, n, size))
        if case.kind == "multi_categorical":
            return MultiCategorical(list(case.sizes), shape=(*batch, n, len(case.sizes)))
        if case.kind == "multi_one_hot":
            return MultiOneHot(list(case.sizes), shape=(*batch, n, sum(case.sizes)))
        if case.kind == "binary":
            return Binary(shape=(*batch, n, size), dtype=torch.int8)
        return torch.stack([Categorical(size + k, shape=batch) for k in range(n)], len(batch))

    def _reset(self, td=None, **_):
        seen = self.observation_spec.rand()
        if self.case.masked:
            seen["agents", "action_mask"][..., -1] = True
        return seen

    def _step(self, td):
        following = self._reset()
        following["reward"] = torch.randn(*self.batch_size, 1)
        following["done"] = torch.zeros(*self.batch_size, 1, dtype=torch.bool)
        return following

    def _set_seed(self, seed):
        pass


def must_be_accepted(case):
    finite = abs(case.ends[0]) < inf and abs(case.ends[1]) < inf
    if case.kind in ("categorical", "one_hot"):
        return True
    plain = {"bounded": finite and not case.double, "unbounded": not case.double}
    return not case.masked and plain.get(case.kind, case.kind == "multi_categorical")


def check_spec(case):
    torch.manual_seed(case.seed)
    env = Still(case)
    sizes = {"depth": 1, "num_cells": 4}
    try:
        policy = policy_from_env(env, share_params=case.share_params, **sizes)
        critic = JointQCritic.from_env(env, hidden_dim=4)
    except (KeyError, TypeError, ValueError) as error:
        require_refusal(error)
        if must_be_accepted(case):
            raise
        return
    spec = env.full_action_spec_unbatched["agents", "action"]
    for mode in (ExplorationType.RANDOM, ExplorationType.DETERMINISTIC):
        with set_exploration_type(mode), torch.no_grad():
            td = env.rollout(3, policy, auto_reset=True)
        action = td["agents", "action"]
        for one in action.flatten(0, len(case.envs)):
            assert spec.is_in(one), (spec, one)
        if case.masked and case.kind in ("categorical", "one_hot"):
            index = action if case.kind == "categorical" else action.int().argmax(-1)
            assert td["agents", "action_mask"].gather(-1, index.unsqueeze(-1)).all()
    value = critic(td.clone())["agents", "state_action_value"]
    assert value.shape == (*td.batch_size, case.agents, 1)
    for place in itertools.product(*map(range, action.shape[td.ndim :])):
        if "one_hot" in case.kind:
            break  # a component alone is no action
        other = td.clone()
        drawn = torch.stack([spec.rand() for _ in range(td.numel())]).reshape(action.shape)
        other["agents", "action"][(..., *place)] = drawn[(..., *place)]
        moved = (other["agents", "action"] != action).reshape(*td.batch_size, -1).any(-1)
        after = critic(other)["agents", "state_action_value"]
        change = (after - value)[moved].abs().flatten(1).amax(1)
        assert (change > 0).all() or drawn.is_floating_point()
    if td.ndim == 1:
        td = td.unsqueeze(0)
        td.names = None
    advantage = ObAdvantage(actor_network=policy, value_network=critic, gamma=0.9, lmbda=0.9)
    assert advantage(td)["advantage"].isfinite().all()


test_spec = fuzz(spec_cases(), check_spec, short=80)
