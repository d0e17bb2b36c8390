"""Two rules for continuous actions that take many points: references for the one that the library uses."""

import math

import torch

from torchrl_ob.expectations.components import node_candidates
from torchrl_ob.expectations.gaussian import gaussian_components
from torchrl_ob.expectations.rules import gauss_hermite
from torchrl_ob.expectations.truncated import Truncation, truncated_components
from torchrl_ob.functional.scores import at_least_single, gaussian_score_factors, squared_scores


def grid_rule(dim, num_points=5):
    """Product of Gauss-Hermite rules: nodes ``[num_points ** dim, dim]`` and weights."""
    nodes, weights = (
        torch.cartesian_prod(*[x] * dim).reshape(-1, dim) for x in gauss_hermite(num_points)
    )
    return nodes, weights.prod(-1)


def sobol_rule(dim, num_points=64):
    """Antithetic pairs of scrambled Sobol points ``[num_points, dim]``, all of one weight."""
    engine = torch.quasirandom.SobolEngine(dim, scramble=True, seed=0)
    uniform = engine.draw(num_points // 2, dtype=torch.float64)
    eps = torch.finfo(torch.float64).eps
    half = math.sqrt(2) * torch.erfinv((2 * uniform - 1).clamp(-1 + eps, 1 - eps))
    return torch.cat([half, -half]), torch.full((num_points,), 1 / num_points, dtype=torch.float64)


RULES = {"grid": grid_rule, "sobol": sobol_rule}


def dense_candidates(dist, rule="grid", psi="loc_scale", **size):
    """Candidates of a Gaussian, squashed or truncated, at the nodes of one of these rules."""
    components = truncated_components(dist) or gaussian_components(dist)
    scale = components.scale
    nodes, weights = RULES[rule](scale.shape[-1], **size)
    nodes = nodes.to(scale).reshape(-1, *[1] * (scale.ndim - 1), scale.shape[-1])
    return node_candidates(components, nodes.expand(-1, *scale.shape), weights.to(scale), psi)


def truncated_normal_score_weights(z, lower, upper, scale, psi="loc_scale"):
    """Squared score of a truncated Gaussian at standardized samples ``[..., d]``, one term for each dimension."""
    z, scale, lower, upper = (at_least_single(x) for x in (z, scale, lower, upper))
    lower, upper = torch.broadcast_tensors(lower, upper)
    mode = torch.minimum(torch.maximum(lower.new_zeros(()), lower), upper)
    truncation = Truncation(mode, lower - mode, upper - mode)
    return squared_scores(truncation.scores(z - mode), gaussian_score_factors(scale, psi))
