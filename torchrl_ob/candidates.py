"""From a policy's distribution to candidate own actions, their probabilities and OB weights.

The expectation over agent i's own action, ``E_{a^i}[f(a^i)] ≈ Σ_k p_k f(a_k)``, is exact for
discrete actions and a cubature for continuous ones. The optimal baseline is then
``Σ_k x_k Q(s, a^-i, a_k)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, get_args

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torch import distributions as D
from torchrl.modules import (
    Delta,
    MaskedOneHotCategorical,
    OneHotCategorical,
    TanhDelta,
    TruncatedNormal,
)

from torchrl_ob.cubature import Cubature, ExpectationRule, gauss_hermite, grid_rule, sobol_rule
from torchrl_ob.factored import FactoredCategorical
from torchrl_ob.functional import (
    GaussianPsi,
    categorical_log_score_weights,
    categorical_optimal_weights,
    normal_score_weights,
    optimal_weights,
    truncated_normal_score_weights,
)
from torchrl_ob.gauss import Candidates, Measure, gauss_rule, mixture_of_products
from torchrl_ob.pairs import gaussian_of

__all__ = [
    "MAX_JOINT_CHOICES",
    "ONE_HOT",
    "Candidates",
    "action_candidates",
    "categorical_log_probs",
    "score_candidates",
]

ONE_HOT = (OneHotCategorical, MaskedOneHotCategorical, D.OneHotCategorical)
"""Distributions over one-hot vectors."""

LINE = 12
"""Nodes on which a continuous action's own distribution is known; no critic is asked there."""

MAX_JOINT_CHOICES = 4096
"""Multi-categorical actions with more joint choices than this are refused, not enumerated."""


def action_candidates(
    dist: D.Distribution,
    *,
    rule: ExpectationRule = "gauss",
    num_points: int | None = None,
    psi: GaussianPsi = "loc_scale",
    measure: Measure | None = None,
) -> Candidates | None:
    """Candidate own actions of a distribution whose score is known in closed form.

    Args:
        dist: the agents' policies, of batch shape ``[*B, n]``: categorical, one-hot categorical,
            their masked versions, ``Independent(Categorical, 1)`` or
            :class:`~torchrl_ob.factored.FactoredCategorical` (multi-categorical), Gaussian,
            Gaussian under elementwise transforms (:class:`~torchrl.modules.TanhNormal`), or
            :class:`~torchrl.modules.TruncatedNormal`.
        rule: how the expectation over a continuous action is taken. Discrete actions are always
            enumerated, which is exact.
        num_points: size of the rule: nodes in each dimension (``"gauss"``: 2 or 3, by default as
            :func:`~torchrl_ob.gauss.gauss_rule` says; ``"grid"``: 5), or points in all
            (``"sobol"``: 64; ``"monte_carlo"``: 1,000, as the paper's code).
        psi: the parameters of a Gaussian in which the variance of the gradient is minimised.
        measure: which weights will be used, ``"probabilities"`` or ``"optimal_weights"``. The nodes of
            the Gauss rule are chosen for one of them, and the others are less accurate; by default
            there are the nodes of both, twice as many.

    Returns:
        The candidates, or ``None`` where the distribution is of another kind: see
        :func:`score_candidates`.

    Raises:
        TypeError: for a deterministic policy.
        ValueError: for a multi-categorical with too many joint choices, or an invalid option.

    Example:
        >>> import torch
        >>> from torchrl_ob.candidates import action_candidates
        >>> dist = torch.distributions.Categorical(probs=torch.tensor([.8, .1, .1]))
        >>> action_candidates(dist).optimal_weights
        tensor([0.1412, 0.4294, 0.4294])
    """
    if isinstance(dist, Delta | TanhDelta):
        raise TypeError(
            f"{type(dist).__name__} is deterministic: its score does not exist, so there is "
            "neither a policy gradient nor a baseline for it. Use a stochastic policy, such as "
            "TanhNormal."
        )
    if getattr(dist, "_sparse_mask", False):
        raise ValueError(
            f"{type(dist).__name__} was given `indices` of the available actions, which "
            "differ from agent to agent. Give it a boolean `mask` over all actions instead."
        )
    if isinstance(dist, ONE_HOT):
        log_probs = categorical_log_probs(dist)
        one_hot = torch.eye(log_probs.shape[-1], dtype=torch.long, device=log_probs.device)
        return _enumerate_categorical(log_probs, one_hot)
    if isinstance(dist, D.Categorical):
        log_probs = categorical_log_probs(dist)
        return _enumerate_categorical(
            log_probs, torch.arange(log_probs.shape[-1], device=log_probs.device)
        )
    base = dist.base_dist if isinstance(dist, D.Independent) else dist
    if isinstance(base, D.Categorical) and len(base.batch_shape) == len(dist.batch_shape) + 1:
        return _enumerate_factors(categorical_log_probs(base).unbind(-2))
    if isinstance(dist, FactoredCategorical):
        factors = [categorical_log_probs(factor) for factor in dist.factors]
        return _enumerate_factors(factors, dist.encode)
    if isinstance(dist, TruncatedNormal):
        lower = (dist.low - dist.loc) / dist.scale
        upper = (dist.high - dist.loc) / dist.scale
        quantile, scale = _truncated_quantile(dist.loc, dist.scale, lower, upper), dist.scale

        def score(z: Tensor) -> Tensor:
            return truncated_normal_score_weights(z, lower, upper, scale, psi)

        return _within_bounds(
            dist, _factorised(dist.loc, rule, num_points, measure, quantile, score)
        )
    gaussian = gaussian_of(dist)
    if gaussian is not None:
        normal, transforms = gaussian
        loc, scale = normal.loc, normal.scale

        def to_action(z: Tensor) -> tuple[Tensor, Tensor]:
            action = loc + scale * z
            for transform in transforms:
                action = transform(action)
            return action, z

        def normal_score(z: Tensor) -> Tensor:
            return normal_score_weights(z, scale, psi)

        return _within_bounds(
            dist, _factorised(loc, rule, num_points, measure, to_action, normal_score)
        )
    return None


def score_candidates(
    dist: D.Distribution,
    params: TensorDictBase,
    build: Callable[[TensorDictBase], D.Distribution],
    param_keys: Iterable[object],
    *,
    num_points: int | None = None,
) -> Candidates:
    r"""Candidate own actions of any other distribution, by automatic differentiation.

    The weights :math:`\|\nabla_\psi \log\pi(a_k)\|^2` are the squared gradient with respect to all
    floating-point parameters of the distribution. The support is enumerated where the distribution
    can do so; otherwise the candidates are samples of it. Slow, but it takes a new distribution as
    it comes.

    Args:
        dist: the agents' policies, of batch shape ``[*B, n]``.
        params: the parameters of ``dist``, what the network hands to it.
        build: builds the distribution from a tensordict of parameters.
        param_keys: keys of the parameters in ``params``.
        num_points: number of samples, 1,000 by default.

    Returns:
        The candidates.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl_ob.candidates import score_candidates
        >>> params = TensorDict({"probs": torch.tensor([[.8], [.5]])}, batch_size=[2])
        >>> def build(params):
        ...     bernoulli = torch.distributions.Bernoulli(params["probs"])
        ...     return torch.distributions.Independent(bernoulli, 1)
        >>> score_candidates(build(params), params, build, ["probs"]).actions.shape
        torch.Size([2, 1000, 1])
    """
    if dist.has_enumerate_support:
        actions = dist.enumerate_support()
    else:
        actions = dist.sample(torch.Size([_size("monte_carlo", num_points)]))
    with torch.enable_grad():
        psi = params.select(*param_keys).detach().unsqueeze(0)
        psi = psi.expand(actions.shape[0], *params.batch_size).clone()
        leaves = [
            leaf.requires_grad_()
            for leaf in psi.values(include_nested=True, leaves_only=True)
            if leaf.is_floating_point()
        ]
        log_prob = build(psi).log_prob(actions)
        scores = torch.autograd.grad(log_prob.sum(), leaves, allow_unused=True)
    if dist.has_enumerate_support:
        probabilities = log_prob.detach().exp()
    else:
        probabilities = torch.full_like(log_prob, 1 / len(actions), requires_grad=False)
    weights = torch.zeros_like(probabilities)
    for score in scores:
        if score is not None:
            weights = weights + score.square().reshape(*weights.shape, -1).sum(-1)
    probabilities, weights = probabilities.movedim(0, -1), weights.movedim(0, -1)
    actions = actions.movedim(0, weights.ndim - 1)
    return Candidates(actions, probabilities, optimal_weights(probabilities, weights))


def categorical_log_probs(dist: Any) -> Tensor:
    """Normalised log-probabilities of a categorical; torch clamps them where ``probs`` were given."""
    if "probs" in dist.__dict__ and "logits" not in dist.__dict__:
        return dist.probs.log()
    if isinstance(dist, D.OneHotCategorical):
        return categorical_log_probs(dist._categorical)
    return dist.logits.log_softmax(-1)


def _enumerate_categorical(log_probs: Tensor, actions: Tensor) -> Candidates:
    return Candidates(
        actions.expand(*log_probs.shape[:-1], *actions.shape),
        log_probs.exp(),
        categorical_optimal_weights(log_probs),
    )


def _enumerate_factors(
    log_probs: Sequence[Tensor], encode: Callable[[Tensor], Tensor] | None = None
) -> Candidates:
    """All joint choices of D independent factors ``[*B, n, A_d]``; psi is all their logits."""
    *batch, _ = log_probs[0].shape
    choices = [factor.shape[-1] for factor in log_probs]
    if math.prod(choices) > MAX_JOINT_CHOICES:
        raise ValueError(
            f"a multi-categorical action of {len(choices)} factors with {choices} choices has "
            f"{math.prod(choices)} joint choices, more than the {MAX_JOINT_CHOICES} that are "
            "enumerated. Split the action over more agents, or use fewer choices."
        )
    lines = [torch.arange(count, device=log_probs[0].device) for count in choices]
    joint = torch.cartesian_prod(*lines).reshape(-1, len(choices))  # [K, D]
    if encode is not None:
        joint = encode(joint)
    # w = Σ_d w_d, so E[w f] / E[w] = Σ_d c_d Σ_a x_d(a_d) Π_{j != d} pi_j(a_j) f(a)
    # with c_d = E[w_d] / E[w] and x_d the optimal weights of factor d
    log_expected = torch.stack(
        [(x + categorical_log_score_weights(x)).logsumexp(-1) for x in log_probs], -1
    )
    deterministic = (log_expected == -math.inf).all(-1, keepdim=True)
    share = log_expected.masked_fill(deterministic, 0).softmax(-1)  # c_d, [*B, n, D]
    own = [factor.exp() for factor in log_probs]
    tilted = [categorical_optimal_weights(factor) for factor in log_probs]
    return Candidates(joint.expand(*batch, *joint.shape), *mixture_of_products(own, tilted, share))


def _like(x: Tensor, rule: Cubature) -> tuple[Tensor, Tensor]:
    """Nodes and weights of a rule, in the precision and on the device of a tensor, which is not waited for."""
    return rule.nodes.to(x, non_blocking=True), rule.weights.to(x, non_blocking=True)


def _factorised(
    loc: Tensor,
    rule: ExpectationRule,
    num_points: int | None,
    measure: Measure | None,
    to_action: Callable[[Tensor], tuple[Tensor, Tensor]],
    score: Callable[[Tensor], Tensor],
) -> Candidates:
    """Candidates of a distribution whose d components are independent given its parameters.

    ``to_action`` maps standard normal nodes ``[K, *B, n, d]`` to actions and standardised samples;
    ``score`` maps the latter to the squared score of each dimension, ``w = Σ_d w_d``.
    """
    if rule == "gauss":
        line, p = _like(loc, gauss_hermite(LINE))
        actions, z = to_action(line.reshape(-1, *[1] * loc.ndim).expand(-1, *loc.shape))
        squared_score = score(z)
        measures = get_args(Measure) if measure is None else (measure,)
        rules = [
            gauss_rule(actions, p, squared_score, measure=m, num_points=num_points)
            for m in measures
        ]
        return rules[0] if measure else _both(*rules)
    dim = loc.shape[-1]
    if rule == "monte_carlo":
        size = _size(rule, num_points)
        nodes = torch.randn((size, *loc.shape), dtype=loc.dtype, device=loc.device)
        weights = loc.new_full((size,), 1 / size)
    else:
        points, weights = _like(loc, _rule(rule, dim, num_points))
        nodes = points.reshape(-1, *[1] * (loc.ndim - 1), dim).expand(-1, *loc.shape)
    actions, z = to_action(nodes)
    squared_score = score(z).movedim(0, -2)  # [*B, n, K, d]
    probabilities = weights.expand(squared_score.shape[:-1])
    return Candidates(
        actions.movedim(0, -2),
        probabilities,
        optimal_weights(probabilities, squared_score.sum(-1)),
    )


def _within_bounds(dist: Any, candidates: Candidates) -> Candidates:
    """Candidates that rounding does not take out of the bounds of their distribution."""
    if not (hasattr(dist, "low") and hasattr(dist, "high")):
        return candidates
    actions = candidates.actions
    ends = (torch.as_tensor(end).to(actions, non_blocking=True) for end in (dist.low, dist.high))
    low, high = (end.unsqueeze(-2) if end.ndim > 1 else end for end in ends)  # [n, 1, d] or [d]
    return candidates._replace(actions=torch.minimum(torch.maximum(actions, low), high))


def _both(own: Candidates, optimal: Candidates) -> Candidates:
    """The nodes of both measures, those of the other having no weight."""
    return Candidates(
        torch.cat([own.actions, optimal.actions], -2),
        torch.cat([own.probabilities, torch.zeros_like(optimal.probabilities)], -1),
        torch.cat([torch.zeros_like(own.optimal_weights), optimal.optimal_weights], -1),
    )


def _size(rule: ExpectationRule, num_points: int | None) -> int:
    """Size of a rule, with the default of each."""
    if num_points is None:
        return {"grid": 5, "sobol": 64, "monte_carlo": 1000}[rule]
    if num_points < 1:
        raise ValueError(f"num_points must be 1 or more, got {num_points}.")
    return num_points


def _rule(rule: ExpectationRule, dim: int, num_points: int | None) -> Cubature:
    rules = {"grid": grid_rule, "sobol": sobol_rule}
    if rule not in rules:
        raise ValueError(f"rule must be 'gauss', 'grid', 'sobol' or 'monte_carlo', got {rule!r}.")
    return rules[rule](dim, _size(rule, num_points))


def _truncated_quantile(
    loc: Tensor, scale: Tensor, lower: Tensor, upper: Tensor
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Maps standard normal nodes to the truncated Gaussian of the same cumulative probability."""

    def ndtr(x: Tensor) -> Tensor:  # torch's own is zero far below
        return torch.special.erfc(-x * math.sqrt(0.5)) / 2

    low, high = lower.double(), upper.double()
    below, above = ndtr(low), ndtr(-high)  # what is cut off
    right_tail = low + high > 0
    inside = torch.where(right_tail, ndtr(-low) - above, ndtr(high) - below)
    nearest = torch.where(right_tail, low, high)  # where the tail is too thin for a number

    def quantile(nodes: Tensor) -> tuple[Tensor, Tensor]:
        # from the nearer tail, where probabilities keep their digits
        left, right = (
            cut + ndtr(x) * inside for cut, x in ((below, nodes.double()), (above, -nodes.double()))
        )
        z = torch.special.ndtri(torch.minimum(left, right))
        z = torch.where(left < right, z, -z)
        z = torch.where(inside > 0, z, nearest).to(nodes.dtype)
        z = torch.minimum(torch.maximum(z, lower), upper)
        return loc + scale * z, z

    return quantile
