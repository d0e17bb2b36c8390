"""Whatever the specs of an environment: actions in them, a critic that reads them and the exact baseline, or a refusal."""

import itertools
import math
import pickle

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spec_game import SpecGame
from torchrl.data import (
    Binary,
    Bounded,
    Categorical,
    Composite,
    MultiCategorical,
    MultiOneHot,
    NonTensor,
    OneHot,
    Unbounded,
)
from torchrl.data.tensor_specs import Stacked
from torchrl.envs import (
    Compose,
    DTypeCastTransform,
    ExplorationType,
    FlattenAction,
    TransformedEnv,
    VmasEnv,
    set_exploration_type,
)
from torchrl.modules import TanhNormal, TruncatedNormal
from vmas.scenarios.balance import Scenario

from torchrl_ob import FactoredCategorical, JointQCritic, ObAdvantage
from torchrl_ob._action_encodings import one_hot_factors
from torchrl_ob.expectations import action_candidates
from torchrl_ob.policies import policy_from_env

INF = math.inf
KEYS = {"reward": ("agents", "reward")}


@st.composite
def bounded(draw, n, d):
    ends = st.floats(-1e3, 1e3, width=32)
    low = torch.tensor([[draw(ends) for _ in range(d)] for _ in range(n)])
    width = st.floats(0.25, 1e3, width=32)
    return low, low + torch.tensor([[draw(width) for _ in range(d)] for _ in range(n)])


@st.composite
def action_specs(draw):
    """Specs of every kind that is accepted."""
    n, d = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    nvec = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    integers = draw(st.sampled_from([torch.int64, torch.int32, torch.int8]))
    bits = draw(st.sampled_from([torch.int64, torch.bool]))
    choices = draw(st.integers(1, 5))
    low, high = draw(bounded(n, d))
    alike = [Bounded(a, b) for a, b in zip(low, high, strict=True)]
    kinds = {
        "bounded": lambda: Bounded(low, high),
        "stacked bounds": lambda: Stacked(*alike, dim=0),
        "unbounded": lambda: Unbounded((n, d)),
        "unbounded box": lambda: Bounded(-INF, INF, (n, d)),
        "categorical": lambda: Categorical(choices, (n,)),
        "several of a kind": lambda: Categorical(choices, (n, d), dtype=integers),
        "factors": lambda: MultiCategorical(nvec, (n, len(nvec)), dtype=integers),
        "stacked factors": lambda: torch.stack([MultiCategorical(nvec)] * n),
        "one-hot": lambda: OneHot(choices, (n, choices), dtype=bits),
        "one-hot factors": lambda: MultiOneHot(nvec, (n, sum(nvec)), dtype=bits),
        "bits": lambda: Binary(d, (n, d)),
    }
    return kinds[draw(st.sampled_from(sorted(kinds)))]()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spec=action_specs(), share_params=st.booleans(), seed=st.integers(0, 99))
def test_actions_are_in_the_spec_and_the_baseline_is_that_of_the_slow_loop(
    spec, share_params, seed
):
    torch.manual_seed(seed)
    env = SpecGame(spec)
    policy = policy_from_env(env, num_cells=8, share_params=share_params)
    critic = JointQCritic.from_env(env, hidden_dim=8, share_params=share_params)
    for exploration in (ExplorationType.RANDOM, ExplorationType.DETERMINISTIC):
        with set_exploration_type(exploration), torch.no_grad():
            batch = env.rollout(2, policy)  # the environment refuses an action outside its spec
    action, n = batch["agents", "action"], batch["agents", "action"].shape[1]
    assert critic(batch.clone())["agents", "state_action_value"].shape == (2, n, 1)
    advantage = ObAdvantage(actor_network=policy, value_network=critic, gamma=0.9, lmbda=0.8)
    advantage.set_keys(**KEYS)
    candidates = advantage.team.candidates(batch)
    for k in range(candidates.actions.shape[2]):
        for t in range(2):
            spec.assert_is_in(candidates.actions[t, :, k])
    if action.dtype.is_floating_point:
        return
    values = advantage.team.q_candidates(batch, candidates.actions)
    found = (candidates.optimal_weights * values).sum(-1)
    torch.testing.assert_close(found, slow_baseline(policy, critic, batch), rtol=1e-3, atol=1e-5)


def slow_baseline(policy, critic, batch):
    """E[Q ||grad log pi||^2] / E[||grad log pi||^2] over every own action, one at a time."""
    action, logits = batch["agents", "action"], policy.get_dist_params(batch)["agents", "logits"]
    kind, options = policy[-1].distribution_class, policy[-1].distribution_kwargs
    steps, n = action.shape[:2]
    out = torch.empty(steps, n)
    for t, i in itertools.product(range(steps), range(n)):
        above, below = 0.0, 0.0
        own_logits = logits[t, i].detach().requires_grad_()
        own = list(all_actions(kind(logits=own_logits, **options), action[t, i]))
        for alternative in own:
            log_prob = kind(logits=own_logits, **options).log_prob(alternative)
            (score,) = torch.autograd.grad(log_prob, own_logits)
            joint = batch[t : t + 1].clone()
            joint["agents", "action"][0, i] = alternative
            q = critic(joint)["agents", "state_action_value"][0, i, 0].item()
            weight = log_prob.exp().item() * score.square().sum().item()
            above, below = above + weight * q, below + weight
        out[t, i] = above / below if len(own) > 1 else q
    return out


def all_actions(dist, like):
    if isinstance(dist, FactoredCategorical):
        for choices in itertools.product(*(range(count) for count in dist.nvec)):
            yield dist.encode(torch.tensor(choices))
    elif like.ndim:
        yield from torch.eye(like.shape[-1], dtype=like.dtype)
    else:
        yield from torch.arange(dist.logits.shape[-1])


UNEQUAL = torch.tensor([[3, 4], [3, 2]])
REFUSED = {
    "half open": (Bounded(0.0, INF, (2, 2)), ValueError, "two finite ones, or all none"),
    "mixed": (
        Bounded(torch.tensor([[-1.0, -INF]]), torch.tensor([[1.0, INF]])),
        ValueError,
        "two finite ones, or all none",
    ),
    "no width": (Bounded(1.0, 1.0, (2, 1)), ValueError, "equal or too far apart"),
    "too wide": (Bounded(-3e38, 3e38, (2, 1)), ValueError, "equal or too far apart"),
    "double": (Bounded(-1.0, 1.0, (2, 1), dtype=torch.float64), TypeError, "DoubleToFloat"),
    "integers": (
        Bounded(0, 3, (2, 1), dtype=torch.int64),
        TypeError,
        "BoundedDiscrete.* Categorical or MultiCategorical",
    ),
    "any integer": (
        Unbounded((2, 1), dtype=torch.int64),
        TypeError,
        "UnboundedDiscrete.* Categorical or MultiCategorical",
    ),
    "small integer": (Categorical(3, (2,), dtype=torch.int8), TypeError, "DTypeCastTransform"),
    "unequal choices": (MultiCategorical(UNEQUAL), ValueError, "MultiCategorical.*group_map"),
    "stacked": (
        Stacked(Categorical(3), Categorical(4), dim=0),
        ValueError,
        "Stacked.*group_map",
    ),
    "stacked sizes": (
        Stacked(Bounded(-1, 1, (2,)), Bounded(-1, 1, (3,)), dim=0),
        ValueError,
        "Stacked.*group_map",
    ),
    "some bounds": (
        Stacked(Bounded(-1, 1, (2,)), Bounded(-INF, INF, (2,)), dim=0),
        ValueError,
        "Stacked.*group_map",
    ),
    "empty": (Unbounded((2, 0)), ValueError, "UnboundedContinuous.* is empty"),
    "no agents": (Bounded(-1.0, 1.0, ()), ValueError, "BoundedContinuous.* dimension of agents"),
    "a number": (Bounded(-1.0, 1.0, (2,)), ValueError, "UnsqueezeTransform"),
    "a matrix": (Categorical(3, (2, 2, 2)), ValueError, "FlattenAction"),
    "bits of no agent": (Binary(2, (2,)), ValueError, "Binary.* dimension of agents"),
    "unknown choices": (Categorical(-1, (2,)), ValueError, "-1 choices"),
    "nested": (Composite(a=Unbounded((2, 1)), shape=(2,)), TypeError, "Composite.* entries"),
    "no tensor": (NonTensor((2, 1)), TypeError, "NonTensor.*ProbabilisticActor"),
}


class Specs:
    """As much of an environment as is read."""

    device, batch_size, action_keys = None, torch.Size([]), [("agents", "action")]

    def __init__(self, action, **more):
        observation = {"observation": Unbounded((2, 4)), **more}
        self.full_action_spec = Composite(agents=Composite(action=action))
        self.full_action_spec_unbatched = self.full_action_spec
        self.observation_spec_unbatched = Composite(agents=Composite(**observation))


@pytest.mark.parametrize("name", REFUSED)
def test_every_other_action_is_refused_by_its_spec_and_with_a_remedy(name):
    spec, error, message = REFUSED[name]
    env = Specs(spec)
    with pytest.raises(error, match=rf"^[^\n]*{message}[^\n]*$"):
        policy_from_env(env)
    # a critic takes floats of every precision and with any bounds, and integers of every width
    if name in ("half open", "mixed", "no width", "too wide", "double", "small integer"):
        assert JointQCritic.from_env(env).action_shape[0] == spec.shape[0]
        return
    with pytest.raises(error, match=rf"^[^\n]*{message}[^\n]*$"):
        JointQCritic.from_env(env)


def test_the_remedies_help():
    small = SpecGame(Categorical(3, (2,), dtype=torch.int8))
    cast = DTypeCastTransform(
        torch.int8, torch.int64, in_keys=[], in_keys_inv=[("agents", "action")]
    )
    matrix = SpecGame(Bounded(-1.0, 1.0, (2, 2, 2)))
    flatten = FlattenAction(-2, -1, in_keys_inv=[("agents", "action")])
    for env, transform in ((small, cast), (matrix, flatten)):
        env = TransformedEnv(env, Compose(transform))
        batch = env.rollout(3, policy_from_env(env, num_cells=8))
        JointQCritic.from_env(env, hidden_dim=8)(batch)


@pytest.mark.parametrize("u_range", [[1.0, 0.2], [0.1, 3.0]])
def test_every_agent_of_vmas_has_the_bounds_that_are_its_own(u_range):
    class Unequal(Scenario):
        def make_world(self, *arguments, **options):
            world = super().make_world(*arguments, **options)
            for agent, bound in zip(world.agents, u_range, strict=True):
                agent.action._u_range = bound
            return world

    env = VmasEnv(Unequal(), num_envs=3, n_agents=2)
    policy = policy_from_env(env, num_cells=8)
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        action = env.rollout(200, policy)["agents", "action"]
    reached = action.abs().amax((0, 1, 3))
    for found, bound in zip(reached, u_range, strict=True):
        assert 0.8 * bound < found.item() <= bound


def test_bounds_of_an_offset_that_rounding_would_leave():
    low, high = (
        torch.tensor([[100.0, -7e4], [0.0, 1e-3]]),
        torch.tensor([[100.001, -6.99e4], [3.0, 2e-3]]),
    )
    env = SpecGame(Bounded(low, high), batch_size=(500,))
    policy = policy_from_env(env, num_cells=8)
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        action = env.rollout(5, policy)["agents", "action"]
    reached = (action.amax((0, 1)) - action.amin((0, 1))) / (high - low)
    assert (reached > 0.8).all()
    shrunk = policy[-1].distribution_kwargs
    assert (shrunk["low"] > low).logical_or(low == 0).all()
    assert ((shrunk["high"] - shrunk["low"]) / (high - low) > 0.9).all()


@pytest.mark.parametrize("kind", [TanhNormal, TruncatedNormal])
@pytest.mark.parametrize("rule", ["gauss", "monte_carlo"])
def test_candidates_of_any_bounded_policy_are_within_its_bounds(kind, rule):
    torch.manual_seed(0)
    loc, scale = torch.randn(500, 2, 3) * 5, torch.rand(500, 2, 3) * 5 + 0.01
    low = torch.randn(2, 3) * 100
    high = low + torch.rand(2, 3) * 1e-3 + 1e-3  # narrow and far from zero
    if kind is TruncatedNormal:
        loc = low + loc
    dist = kind(loc, scale, low=low, high=high)
    actions = action_candidates(dist, rule=rule).actions
    assert (actions >= low.unsqueeze(-2)).all()
    assert (actions <= high.unsqueeze(-2)).all()
    assert actions.std(-2).gt(0).any()


PORTABLE = [
    Bounded(torch.tensor([[-1.0], [-0.2]]), torch.tensor([[1.0], [0.2]])),
    MultiCategorical([2, 3], (2, 2)),
    MultiOneHot([2, 3], (2, 5)),
]


@pytest.mark.parametrize("spec", PORTABLE, ids=lambda spec: type(spec).__name__)
def test_policies_are_pickled_loaded_and_compiled(spec):
    env = SpecGame(spec, batch_size=(4,))
    policy, other = (policy_from_env(env, num_cells=8) for _ in range(2))
    other.load_state_dict(policy.state_dict())
    state = env.reset()
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        action = policy(state.clone())["agents", "action"]
        for copy in (pickle.loads(pickle.dumps(policy)), other):
            assert copy(state.clone())["agents", "action"].equal(action)
    log_probs = torch.compile(log_prob_and_entropy, fullgraph=True, backend="eager")
    if isinstance(spec, Bounded):
        return  # compiled with the losses, in test_compile
    found = log_probs(policy, state, action)
    for a, b in zip(found, log_prob_and_entropy(policy, state, action), strict=True):
        torch.testing.assert_close(a, b)


def log_prob_and_entropy(policy, state, action):
    dist = policy.get_dist(state)
    return dist.log_prob(action), dist.entropy()


FACTORS = [MultiCategorical([2, 3], (2, 2)), MultiOneHot([2, 3], (2, 5)), Binary(2, (2, 2))]


@pytest.mark.parametrize("spec", FACTORS, ids=lambda spec: type(spec).__name__)
@pytest.mark.parametrize("where", ["beside", "nested"])
def test_a_choice_of_a_factor_that_is_not_available_is_never_drawn_nor_enters(spec, where):
    torch.manual_seed(0)
    size = 4 if isinstance(spec, Binary) else 5
    flags = Categorical(2, (2, size), dtype=torch.bool)
    if where == "beside":
        env = SpecGame(spec, action_mask=flags)
        key = ("agents", "action_mask")
    else:
        observation = Composite(vector=Unbounded((2, 4)), action_mask=flags, shape=(2,))
        env = SpecGame(spec, observation)
        key = ("agents", "observation", "action_mask")
    policy = policy_from_env(env, num_cells=8)
    critic = JointQCritic.from_env(env, hidden_dim=8)
    state = torch.stack([env.reset() for _ in range(100)])
    state[key] = mask = torch.rand(100, 2, size) > 0.4
    mask[..., 0] = mask[..., 2] = True
    with set_exploration_type(ExplorationType.RANDOM), torch.no_grad():
        batch = policy(state)
    dist = policy.get_dist(batch)
    action = batch["agents", "action"]
    one_hot = action if dist.one_hot else one_hot_factors(action, dist.nvec)
    assert not (one_hot.bool() & ~mask).any()
    assert (one_hot.bool() & mask)[..., 1].any()
    torch.testing.assert_close(dist.log_prob(action), batch["agents", "action_log_prob"])
    candidates = action_candidates(dist)
    actions = candidates.actions
    encoded = actions if dist.one_hot else one_hot_factors(actions, dist.nvec)
    impossible = (encoded.bool() & ~mask.unsqueeze(-2)).any(-1)
    assert impossible.any()
    assert (candidates.probabilities[impossible] == 0).all()
    assert (candidates.optimal_weights[impossible] == 0).all()
    torch.testing.assert_close(candidates.optimal_weights.sum(-1), torch.ones(100, 2))
    assert critic(batch)["agents", "state_action_value"].isfinite().all()


@pytest.mark.parametrize(
    ("spec", "mask", "message"),
    [
        (Categorical(3, (2,)), Categorical(2, (2, 4), dtype=torch.bool), r"\[2, 4\].*\[2, 3\]"),
        (Categorical(3, (2,)), Bounded(0, 1, (2, 3), dtype=torch.int8), "DTypeCastTransform"),
        (Bounded(-1, 1, (2, 3)), Categorical(2, (2, 3), dtype=torch.bool), "ExcludeTransform"),
        (Categorical(2, (2,), mask=torch.tensor([True, False])), None, "writes none"),
    ],
)
def test_masks_that_do_not_fit_are_told(spec, mask, message):
    more = {} if mask is None else {"action_mask": mask}
    with pytest.raises((ValueError, TypeError), match=rf"^[^\n]*mask[^\n]*{message}[^\n]*$"):
        policy_from_env(Specs(spec, **more))


def test_factors_are_independent_categoricals():
    logits = torch.randn(7, 6)
    dist = FactoredCategorical(logits, (3, 3))
    independent = torch.distributions.Independent(
        torch.distributions.Categorical(logits=logits.reshape(7, 2, 3)), 1
    )
    action = dist.sample((5,))
    torch.testing.assert_close(dist.log_prob(action), independent.log_prob(action))
    torch.testing.assert_close(dist.entropy(), independent.entropy())
    assert dist.mode.equal(independent.mode)
    for mine, theirs in zip(action_candidates(dist), action_candidates(independent), strict=True):
        torch.testing.assert_close(mine, theirs)
    with pytest.raises(ValueError, match=r"\(3, 4\).* 7.*\[7, 6\]"):
        FactoredCategorical(logits, (3, 4))
