"""Candidates of a continuous action whose components are independent given its parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, get_args

import torch
from torch import Tensor
from torch import distributions as D

from torchrl_ob._checks.arguments import check_choice
from torchrl_ob.expectations.quadrature import Candidates, Measure, gauss_rule
from torchrl_ob.expectations.registry import Options, register_candidates
from torchrl_ob.expectations.rules import ExpectationRule, sample_size
from torchrl_ob.functional import GaussianPsi, optimal_weights
from torchrl_ob.functional.scores import gaussian_score_factors, squared_scores

__all__ = ["Components", "node_candidates", "register_components"]


class Components(NamedTuple):
    """A distribution of d independent components, each a Gaussian in some way.

    Its samples are told in units of its own, z. Every function takes and gives ``[K, *B, n, d]``.

    Attributes:
        scale: of the Gaussian, ``[*B, n, d]``, in single precision at least.
        line: z that stand for the distribution of each component, and their probabilities.
        quantile: z of the same cumulative probability as standard normal nodes.
        action: the action of z.
        inverse: z of the action.
        scores: ``σ ∂_loc log π`` and ``∂_logscale log π`` at z.
        bounds: of the action, each broadcastable to ``[*B, n, d]``; None where it has none.
        dtype: of the policy's parameters.
    """

    scale: Tensor
    line: Callable[[], tuple[Tensor, Tensor]]
    quantile: Callable[[Tensor], Tensor]
    action: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    scores: Callable[[Tensor], tuple[Tensor, Tensor]]
    bounds: tuple[Tensor, Tensor] | None
    dtype: torch.dtype


Read = Callable[[D.Distribution], Components | None]


def register_components(*distributions: type) -> Callable[[Read], Read]:
    """Decorator of a function that gives the components of a distribution, or None of another: registers its candidates."""

    def register(read: Read) -> Read:
        def give_candidates(dist: D.Distribution, options: Options) -> Candidates | None:
            components = read(dist)
            return None if components is None else _candidates(components, options)

        def give_scores(
            dist: D.Distribution, actions: Tensor, psi: GaussianPsi | None
        ) -> Tensor | None:
            components = read(dist)
            return None if components is None or psi is None else _scores(components, actions, psi)

        register_candidates(*distributions, scores=give_scores)(give_candidates)
        return read

    return register


def _candidates(components: Components, options: Options) -> Candidates:
    rule, num_points, psi, measure = options
    check_choice("rule", rule, ExpectationRule)
    if rule == "gauss":
        z, p = components.line()
        squared_score, line = _squared_score(components, z, psi), components.action(z)
        rules = [
            gauss_rule(line, p, squared_score, measure=m, num_points=num_points)
            for m in (get_args(Measure) if measure is None else (measure,))
        ]
        return _within_bounds(rules[0] if measure else _both(*rules), components)
    size, scale = sample_size(num_points), components.scale
    nodes = torch.randn((size, *scale.shape), dtype=scale.dtype, device=scale.device)
    return node_candidates(components, nodes, scale.new_full((size,), 1 / size), psi)


def _scores(components: Components, actions: Tensor, psi: GaussianPsi) -> Tensor:
    """Scores of actions ``[*B, n, K, d]``, ``[*B, n, K, P]``."""
    pairs = zip(
        gaussian_score_factors(components.scale, psi),
        components.scores(components.inverse(actions.movedim(-2, 0))),
        strict=True,
    )
    parts = [factor * score for factor, score in pairs]
    return torch.cat(parts[:1] if psi == "loc" else parts, -1).movedim(0, -2)


def node_candidates(
    components: Components, nodes: Tensor, weights: Tensor, psi: GaussianPsi
) -> Candidates:
    """Candidates at standard normal nodes ``[K, *B, n, d]``, whose expectation has the weights ``[K]``."""
    z = components.quantile(nodes)
    squared_score = _squared_score(components, z, psi).sum(-1).movedim(0, -1)  # [*B, n, K]
    probabilities = weights.expand_as(squared_score)
    candidates = Candidates(
        components.action(z).movedim(0, -2),
        probabilities,
        optimal_weights(probabilities, squared_score),
    )
    return _within_bounds(candidates, components)


def _squared_score(components: Components, z: Tensor, psi: GaussianPsi) -> Tensor:
    """``w_d``, up to a factor common to an agent's components that keeps it in the numbers' range."""
    scores = components.scores(z)
    factors = gaussian_score_factors(components.scale, psi)
    ends = slice(None, None, max(1, len(z) - 1))
    sizes = [(a * x[ends]).abs() for a, x in zip(factors, scores, strict=True)]
    unit = torch.stack(sizes).amax((0, 1, -1)).unsqueeze(-1)
    unit = torch.where(unit > 0, unit, 1)
    first, second = factors
    return squared_scores(scores, (first / unit, second / unit))


def _within_bounds(candidates: Candidates, components: Components) -> Candidates:
    """In the precision of the policy's parameters, and with no action outside its bounds by rounding."""
    actions, probabilities, weights = candidates
    if components.dtype in (torch.float16, torch.bfloat16):
        actions, probabilities, weights = (x.to(components.dtype) for x in candidates)
    if components.bounds is not None:
        low, high = (
            x.to(actions.dtype).expand_as(components.scale).unsqueeze(-2) for x in components.bounds
        )
        actions = torch.minimum(torch.maximum(actions, low), high)
    return Candidates(actions, probabilities, weights)


def _both(own: Candidates, optimal: Candidates) -> Candidates:
    """The nodes of both measures, those of the other having no weight."""
    return Candidates(
        torch.cat([own.actions, optimal.actions], -2),
        torch.cat([own.probabilities, torch.zeros_like(optimal.probabilities)], -1),
        torch.cat([torch.zeros_like(own.optimal_weights), optimal.optimal_weights], -1),
    )
