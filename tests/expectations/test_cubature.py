import math

import pytest
import torch
from dense_rules import grid_rule, sobol_rule

from torchrl_ob.expectations.rules import gauss_hermite


def normal_moment(degree):
    return 0.0 if degree % 2 else float(math.prod(range(1, degree, 2)))


@pytest.mark.parametrize("num_points", range(1, 10))
def test_gauss_hermite_is_exact_up_to_its_degree(num_points):
    nodes, weights = gauss_hermite(num_points)
    for degree in range(2 * num_points):
        moment = (weights * nodes**degree).sum().item()
        scale = normal_moment(degree + degree % 2)
        assert moment == pytest.approx(normal_moment(degree), rel=1e-9, abs=1e-9 * scale)
    beyond = (weights * nodes ** (2 * num_points)).sum().item()
    assert beyond != pytest.approx(normal_moment(2 * num_points), rel=1e-3)


def test_grid_rule_is_exact_for_products():
    nodes, weights = grid_rule(2, 4)
    for i in range(8):
        for j in range(8):
            moment = (weights * nodes[:, 0] ** i * nodes[:, 1] ** j).sum().item()
            assert moment == pytest.approx(normal_moment(i) * normal_moment(j), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("rule", [grid_rule, sobol_rule])
def test_rules_are_symmetric_and_normalised(rule):
    nodes, weights = rule(3)
    assert weights.sum().item() == pytest.approx(1)
    order = [tuple(x) for x in nodes.tolist()]
    for node, weight in zip(nodes, weights, strict=True):
        mirrored = order.index(tuple((-node + 0.0).tolist()))
        assert weights[mirrored] == weight


def test_sobol_points_converge_and_leave_the_random_state_alone():
    state = torch.random.get_rng_state()
    errors = []
    for num_points in (2**6, 2**12):
        nodes, weights = sobol_rule(2, num_points)
        errors.append(abs((weights * (nodes.square().sum(-1))).sum().item() - 2))
    assert errors[1] < errors[0] / 8
    assert torch.equal(torch.random.get_rng_state(), state)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="must be a positive integer"):
        gauss_hermite(0)
