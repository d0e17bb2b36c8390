"""The exact quantities of finite games obey the paper's lemmas."""

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchrl_ob.diagnostics import (
    coma_baseline,
    decentralized_value,
    gradient_moments,
    multi_agent_advantage,
    optimal_baseline,
    state_value,
    subset_value,
    variance_decomposition,
)

games = st.tuples(st.lists(st.integers(2, 4), min_size=1, max_size=4), st.integers(0, 1000))


def random_game(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(sizes, generator=generator, dtype=torch.float64) * 5
    probs = [
        torch.randn(size, generator=generator, dtype=torch.float64).softmax(-1) for size in sizes
    ]
    return q, probs


def joint(probs):
    weight = torch.ones((), dtype=torch.float64)
    for policy in probs:
        weight = weight.unsqueeze(-1) * policy
    return weight


@given(games)
def test_advantages_add_up_in_every_order(game):
    q, probs = random_game(*game)
    for order in permutations(range(q.ndim)):
        total = torch.zeros_like(q)
        for k, agent in enumerate(order):
            term = multi_agent_advantage(q, probs, [agent], given=order[:k])
            dims = list(order[: k + 1])
            kept = sorted(dims)
            term = term.permute([dims.index(d) for d in kept])
            total = total + term.reshape([q.shape[d] if d in kept else 1 for d in range(q.ndim)])
        torch.testing.assert_close(total, q - state_value(q, probs))


@given(games)
def test_variance_adds_up_in_every_order(game):
    q, probs = random_game(*game)
    weight = joint(probs)
    variance = (weight * (q - (weight * q).sum()).square()).sum()
    for order in permutations(range(q.ndim)):
        terms = variance_decomposition(q, probs, order)
        assert (terms >= 0).all()
        torch.testing.assert_close(terms.sum(), variance)


@given(games)
def test_subset_value_is_the_mean_over_the_others(game):
    q, probs = random_game(*game)
    torch.testing.assert_close(state_value(q, probs), (joint(probs) * q).sum())
    assert torch.equal(subset_value(q, probs, list(range(q.ndim))), q)
    turned = subset_value(q, probs, list(reversed(range(q.ndim))))
    assert torch.equal(turned, q.permute(*reversed(range(q.ndim))))
    if q.ndim > 1:  # the law of total expectation, one agent at a time
        pair = subset_value(q, probs, [1, 0])
        torch.testing.assert_close(probs[1] @ pair, subset_value(q, probs, [0]))


@given(games)
def test_estimators_share_their_mean_and_order_their_variances(game):
    q, probs = random_game(*game)
    for agent in range(q.ndim):
        signals = {
            "centralized": q,
            "v": q - state_value(q, probs),
            "coma": q - coma_baseline(q, probs, agent),
            "ob": q - optimal_baseline(q, probs, agent),
            "decentralized": decentralized_value(q, probs, agent),
        }
        moments = {name: gradient_moments(x, probs, agent) for name, x in signals.items()}
        for name in moments:
            torch.testing.assert_close(moments[name].mean, moments["ob"].mean)
        for name in ("centralized", "v", "coma"):
            assert moments["ob"].variance <= moments[name].variance * (1 + 1e-12)
        # averaging the others out can only help: Var(g_D) <= Var(g_C)
        assert moments["decentralized"].variance <= moments["centralized"].variance * (1 + 1e-12)


@given(games, st.floats(-10, 10))
def test_excess_over_the_optimum_is_its_distance_squared(game, shift):
    q, probs = random_game(*game)
    agent = q.ndim - 1
    best = q - optimal_baseline(q, probs, agent)
    excess = (
        gradient_moments(best + shift, probs, agent).variance
        - gradient_moments(best, probs, agent).variance
    )
    own = probs[agent]
    expected_weight = 1 - own.square().sum()  # E[w] of a softmax policy
    torch.testing.assert_close(excess, shift**2 * expected_weight, rtol=1e-8, atol=1e-8)


@given(games, st.integers(1, 6))
def test_exact_baseline_is_the_best_in_the_parameters(game, num_params):
    q, probs = random_game(*game)
    agent = 0
    generator = torch.Generator().manual_seed(game[1])
    jacobian = torch.randn(len(probs[0]), num_params, generator=generator, dtype=torch.float64)
    exact = optimal_baseline(q, probs, agent, jacobian)
    best = gradient_moments(q - exact, probs, agent, jacobian).variance
    for other in (optimal_baseline(q, probs, agent), coma_baseline(q, probs, agent), exact + 0.1):
        variance = gradient_moments(q - other, probs, agent, jacobian).variance
        assert variance >= best * (1 - 1e-12) - 1e-20  # both may vanish
    # in the logits themselves the surrogate is exact
    identity = torch.eye(len(probs[0]), dtype=torch.float64)
    torch.testing.assert_close(
        optimal_baseline(q, probs, agent, identity), optimal_baseline(q, probs, agent)
    )


def test_coma_can_be_worse_than_no_baseline():
    # the theory orders OB before both, and says nothing between the two
    probs = [torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64)]
    q = torch.tensor([10.0, 0.0, 0.0], dtype=torch.float64)
    none = gradient_moments(q, probs, 0).variance
    coma = gradient_moments(q - coma_baseline(q, probs, 0), probs, 0).variance
    ob = gradient_moments(q - optimal_baseline(q, probs, 0), probs, 0).variance
    assert ob < none < coma


def test_toy_game_of_the_paper():
    probs = [torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64)]
    q = torch.tensor([2.0, 1.0, 100.0], dtype=torch.float64)
    signals = (q, q - coma_baseline(q, probs, 0), q - optimal_baseline(q, probs, 0))
    variances = [gradient_moments(x, probs, 0).variance.item() for x in signals]
    assert variances == pytest.approx([1321.0, 1020.2, 673.1], abs=0.05)


def test_misshapen_games_are_refused():
    q, probs = random_game([2, 3], 0)
    with pytest.raises(ValueError, match=r"table of shape \[2, 3\]"):
        state_value(q, probs[::-1])
    with pytest.raises(ValueError, match=r"different and in 0\.\.1"):
        subset_value(q, probs, [0, 0])
    with pytest.raises(ValueError, match=r"different and in 0\.\.1"):
        coma_baseline(q, probs, 2)
