"""Which functions give the candidates and the scores of a distribution, by its class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from torch import Tensor
from torch import distributions as D

from torchrl_ob.expectations.quadrature import Candidates, Measure
from torchrl_ob.expectations.rules import ExpectationRule
from torchrl_ob.functional import GaussianPsi

__all__ = ["Options", "action_candidates", "closed_form_scores", "register_candidates"]


class Options(NamedTuple):
    """Options of the expectation over an agent's own action: see :func:`action_candidates`."""

    rule: ExpectationRule = "gauss"
    num_points: int | None = None
    psi: GaussianPsi = "loc_scale"
    measure: Measure | None = None


GiveCandidates = TypeVar("GiveCandidates", bound=Callable[..., Candidates | None])
GiveScores = Callable[[D.Distribution, Tensor, GaussianPsi | None], Tensor | None]

_KNOWN: dict[type, tuple[Callable[..., Candidates | None], GiveScores | None]] = {}


def register_candidates(
    *distributions: type, scores: GiveScores | None = None
) -> Callable[[GiveCandidates], GiveCandidates]:
    r"""Decorator that registers a function which computes the candidates of a distribution's actions.

    Advantages, diagnostics and actors then handle the distribution like those of the package. Without registration,
    they use automatic differentiation of ``log_prob``, which is slow. A subclass of a registered class uses the
    registration if it inherits that class's ``log_prob``, and ``Independent(base, 1)`` uses that of its base.

    Args:
        *distributions: classes of :class:`torch.distributions.Distribution`.
        scores: a function ``scores(dist, actions, psi)`` from actions ``[*B, n, K, *event]`` to
            :math:`\nabla_\psi \log\pi`, ``[*B, n, K, P]``, or None if it has no closed form; by default automatic
            differentiation.

    The function receives the distribution, of batch shape ``[*B, n]``, and :class:`Options`, such as the only
    ``measure`` whose weights are needed. It returns :class:`~torchrl_ob.Candidates`, or None if it has none.

    Example:
        >>> import torch
        >>> from torchrl_ob import Candidates, register_candidates
        >>> from torchrl_ob.expectations import action_candidates
        >>> class Coin(torch.distributions.Bernoulli):
        ...     "Heads or tails, by their logit."
        >>> @register_candidates(Coin)
        ... def coin_candidates(dist, options):
        ...     heads = dist.probs
        ...     p = torch.stack([1 - heads, heads], -1)
        ...     actions = torch.tensor([0.0, 1.0]).expand_as(p)
        ...     return Candidates(actions, p, p.flip(-1))  # w(a) = (a - heads)², so x(a) = 1 - p(a)
        >>> action_candidates(Coin(torch.tensor([0.75]))).optimal_weights
        tensor([[0.7500, 0.2500]])
    """

    def register(candidates: GiveCandidates) -> GiveCandidates:
        _KNOWN.update(dict.fromkeys(distributions, (candidates, scores)))
        return candidates

    return register


def action_candidates(
    dist: D.Distribution,
    *,
    rule: ExpectationRule = "gauss",
    num_points: int | None = None,
    psi: GaussianPsi = "loc_scale",
    measure: Measure | None = None,
) -> Candidates | None:
    """Candidate own actions of a distribution that the package or :func:`register_candidates` registered.

    The score is taken in the components of ψ, which are

    * the logits of a categorical, even if it was built from ``probs`` or the scores of an ``Ordinal``;
    * loc and scale of a Gaussian, as ``psi`` says: before squashing or truncation, and after ``tanh_loc``.

    A subclass with a ``log_prob`` of its own is none of these.

    Args:
        dist: the agents' policies, of batch shape ``[*B, n]``: categorical, one-hot categorical, their masked
            versions, ``Independent`` of these or ``FactoredCategorical`` (multi-categorical), Gaussian, Gaussian
            under elementwise transforms (:class:`~torchrl.modules.TanhNormal`),
            :class:`~torchrl.modules.TruncatedNormal`, or a custom distribution.
        rule: rule of the expectation over a continuous action. Discrete actions are always enumerated, which is
            exact.
        num_points: size of the rule: nodes in each dimension (``"gauss"``: 2 or 3, in all combinations; by default 3
            in one or two dimensions, 2 in three or four, and ``2d + 1`` points on the axes in more), or samples in
            all (``"monte_carlo"``: 1,000, as in the paper's code).
        psi: the parameters of a Gaussian in which the variance of the gradient is minimized.
        measure: the weights that will be used, ``"probabilities"`` or ``"optimal_weights"``. The nodes of the Gauss
            rule are chosen for one of them, and the other weights are less accurate; by default there are the nodes
            of both, twice as many.

    Returns:
        The candidates, or ``None`` where the distribution is of another kind: see
        :func:`~torchrl_ob.expectations.autodiff.score_candidates`.

    Raises:
        TypeError: for a deterministic policy.
        ValueError: for a multi-categorical with too many joint choices, or an invalid option.

    Example:
        >>> import torch
        >>> from torchrl_ob.expectations import action_candidates
        >>> dist = torch.distributions.Categorical(probs=torch.tensor([.8, .1, .1]))
        >>> action_candidates(dist).optimal_weights
        tensor([0.1412, 0.4294, 0.4294])
    """
    known = _find(dist)
    return None if known is None else known[0](dist, Options(rule, num_points, psi, measure))


def closed_form_scores(
    dist: D.Distribution, actions: Tensor, psi: GaussianPsi | None
) -> Tensor | None:
    """Scores of actions ``[*B, n, K, *event]``, ``[*B, n, K, P]``; None where there is no closed form.

    Args:
        dist: the agents' policies, of batch shape ``[*B, n]``.
        actions: of every agent.
        psi: what ψ is for a Gaussian; None for the parameters that it was built from, and for no Gaussian.
    """
    known = _find(dist)
    return None if known is None or known[1] is None else known[1](dist, actions, psi)


def _find(dist: Any) -> tuple[Callable[..., Candidates | None], GiveScores | None] | None:
    """What is registered for the first class whose ``log_prob`` a distribution inherits, or else for its base."""
    kind: Any
    for kind in type(dist).__mro__:
        if kind in _KNOWN and type(dist).log_prob is kind.log_prob:
            return _KNOWN[kind]
    return _find(dist.base_dist) if type(dist).log_prob is D.Independent.log_prob else None
