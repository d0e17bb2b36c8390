"""The weights of the optimal baseline: squared scores ``w``, and ``x = p w / E[w]``.

The same ``x`` is evaluated in three forms: here in log space for one categorical action, because E[w] vanishes near a
deterministic policy; here from explicit probabilities and squared scores (:func:`optimal_weights`), all that is known
of samples and in ``expectations/autodiff.py``; in ``expectations/quadrature.py`` as a mixture of products, because the
components of an action are independent. ``expectations/truncated.py`` has the scores between bounds.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "GaussianPsi",
    "categorical_log_score_weights",
    "categorical_optimal_weights",
    "normal_score_weights",
    "optimal_weights",
    "weighted_baseline",
]

GaussianPsi = Literal["loc_scale", "loc_log_scale", "loc"]
"""What ψ is for a Gaussian: the parameters in which the variance of the gradient is minimized."""

_SMALLEST = math.log(5e-324)
"""Logarithm of the smallest positive double: an action that is less likely is ruled out."""


def available_log_probs(logits: Tensor) -> Tensor:
    """Log-probabilities of a softmax policy, ``-inf`` where an action is ruled out.

    An action is ruled out if its probability is below the smallest positive double, 5e-324, in any precision. As long
    as other actions are available, it is also ruled out by a mask of ``-inf``, or of any finite number from -1,000
    down. An action of probability 1e-35 is not ruled out.

    Args:
        logits: or log-probabilities, ``[..., A]``.

    Returns:
        ``[..., A]``, in single precision where the input is in half.

    Example:
        >>> import torch
        >>> from torchrl_ob.functional.scores import available_log_probs
        >>> available_log_probs(torch.tensor([0.0, -80.0, -1e10]))
        tensor([  0., -80., -inf])
    """
    log_probs = at_least_single(logits).log_softmax(-1)
    return log_probs.masked_fill(log_probs < _SMALLEST, -math.inf)


def categorical_log_score_weights(log_probs: Tensor) -> Tensor:
    r"""Logarithm of the squared score of a softmax policy with respect to its logits.

    .. math::
        w(a) = \|\nabla_\psi \log\pi(a)\|^2 = 1 + \|\pi\|^2 - 2\pi(a)
             = \Big(\sum_{j \ne a} \pi_j\Big)^2 + \sum_{j \ne a} \pi_j^2

    The second form has no cancellation. It is evaluated in log space, so that near-deterministic policies keep full
    precision and nothing is clamped. (arXiv:2108.08612, section 4.)

    Args:
        log_probs: log-probabilities or logits, ``[..., A]``. An action whose probability is below the smallest
            positive double, 5e-324, is ruled out, as by a mask of ``-inf`` or of -1e10.

    Returns:
        ``log w``, ``[..., A]``; ``-inf`` for the only available action of a set.

    Example:
        >>> import torch
        >>> from torchrl_ob.functional import categorical_log_score_weights
        >>> categorical_log_score_weights(torch.tensor([.8, .1, .1]).log()).exp()
        tensor([0.0600, 1.4600, 1.4600])
    """
    available = available_log_probs(log_probs)
    # For the likeliest action both sums run over the others explicitly. For any other action,
    # pi(a) <= 1/2 and pi(a)^2 <= sum_{j != a} pi_j^2, so that subtraction loses at most one bit.
    likeliest = available.argmax(-1, keepdim=True)
    others = available.scatter(-1, likeliest, -math.inf)
    log_w_likeliest = torch.logaddexp(
        2 * others.logsumexp(-1, keepdim=True), (2 * others).logsumexp(-1, keepdim=True)
    )
    probs = available.exp()
    rest = 1 - probs
    rest_squared = probs.square().sum(-1, keepdim=True) - probs.square()
    log_w = (rest.square() + rest_squared).log().scatter(-1, likeliest, log_w_likeliest)
    return log_w.to(log_probs.dtype)


def categorical_optimal_weights(log_probs: Tensor) -> Tensor:
    r"""Weights of the optimal baseline of a softmax policy, :math:`b^* = \sum_a x(a) Q(a)`.

    .. math::
        x(a) = \frac{\pi(a)\,w(a)}{\sum_{a'} \pi(a')\,w(a')}
             = \frac{\pi(a)\,(1 + \|\pi\|^2 - 2\pi(a))}{1 - \|\pi\|^2}

    Near a deterministic policy, ``x`` moves to the actions that are not preferred, in proportion to their
    probabilities, as long as these actions are not ruled out, see :func:`categorical_log_score_weights`. With a
    single available action, every baseline is optimal, and ``x`` is that action's indicator. (arXiv:2108.08612,
    section 4 and appendix.)

    Args:
        log_probs: log-probabilities or logits, ``[..., A]``.

    Returns:
        A probability vector, ``[..., A]``, zero at actions that are ruled out.

    Example:
        >>> import torch
        >>> from torchrl_ob.functional import categorical_optimal_weights
        >>> categorical_optimal_weights(torch.tensor([.8, .1, .1]).log())
        tensor([0.1412, 0.4294, 0.4294])
        >>> categorical_optimal_weights(torch.tensor([0.0, -1e10, -1e10]))  # others are masked
        tensor([1., 0., 0.])
    """
    available = available_log_probs(log_probs)
    log_x = available + categorical_log_score_weights(available)
    single_action = (log_x == -math.inf).all(-1, keepdim=True)
    x = torch.where(single_action, available.exp(), log_x.masked_fill(single_action, 0).softmax(-1))
    return x.to(log_probs.dtype)


def normal_score_weights(z: Tensor, scale: Tensor, psi: GaussianPsi = "loc_scale") -> Tensor:
    r"""Squared score of a diagonal Gaussian, one term for each action dimension.

    With :math:`z = (u - \mu)/\sigma`, where :math:`u` is the sample before any squashing,

    .. math::
        w_d = \frac{z_d^2 + (z_d^2 - 1)^2}{\sigma_d^2}, \qquad
        w_d = \frac{z_d^2}{\sigma_d^2} + (z_d^2 - 1)^2, \qquad
        w_d = \frac{z_d^2}{\sigma_d^2}

    for ψ = (loc, scale), (loc, log scale) and loc alone; :math:`w = \sum_d w_d`. A tanh or affine
    change of variable leaves the score unchanged. (arXiv:2108.08612, section 4 and appendix.)

    Args:
        z: standardized samples, ``[..., d]``.
        scale: standard deviations, broadcastable to ``z``.
        psi: the parameters ψ.

    Returns:
        ``w_d``, the broadcast shape of ``z`` and ``scale``. Sum over the last dimension for ``w``.

    Example:
        >>> import torch
        >>> from torchrl_ob.functional import normal_score_weights
        >>> normal_score_weights(torch.tensor([0., 1., 2.]), torch.tensor(0.5))
        tensor([ 4.,  4., 52.])
    """
    return squared_scores((z, z.square() - 1), gaussian_score_factors(scale, psi))


def gaussian_score_factors(scale: Tensor, psi: GaussianPsi) -> tuple[Tensor, Tensor]:
    """Factors that turn ``σ ∂_loc log π`` and ``∂_logscale log π`` into scores in the parameters ψ.

    Args:
        scale: standard deviations.
        psi: what ψ is; zero is the factor of what it leaves out.

    Raises:
        ValueError: for another ``psi``.
    """
    if psi == "loc_scale":
        return 1 / scale, 1 / scale
    if psi == "loc_log_scale":
        return 1 / scale, torch.ones_like(scale)
    if psi == "loc":
        return 1 / scale, torch.zeros_like(scale)
    raise ValueError(f"psi must be 'loc_scale', 'loc_log_scale' or 'loc', got {psi!r}.")


def squared_scores(scores: tuple[Tensor, Tensor], factors: tuple[Tensor, Tensor]) -> Tensor:
    """``w_d``, of the scores and factors of :func:`gaussian_score_factors`."""
    (first, second), (a, b) = scores, factors
    return (a * first).square_() + (b * second).square_()


def optimal_weights(probabilities: Tensor, score_weights: Tensor) -> Tensor:
    r"""Weights :math:`x_k = p_k w_k / \sum_j p_j w_j` of the optimal baseline over K candidates.

    Args:
        probabilities: probability (or cubature weight) of each candidate, ``[..., K]``.
        score_weights: squared score ``w`` of each candidate, ``[..., K]``, up to a common factor.

    Returns:
        ``x``, ``[..., K]``, summing to one; zero where the probability is zero. If every score vanishes, any baseline
        is optimal and ``x`` is ``probabilities``.

    Example:
        >>> import torch
        >>> from torchrl_ob.functional import optimal_weights
        >>> optimal_weights(torch.tensor([.5, .5]), torch.tensor([1., 3.]))
        tensor([0.2500, 0.7500])
    """
    p, w = at_least_single(probabilities), at_least_single(score_weights)
    w = torch.where(p == 0, 0, w)  # what cannot happen has no weight, whatever its score
    largest = w.amax(-1, keepdim=True)
    weighted = p * (w / torch.where(largest == 0, 1, largest))
    total = weighted.sum(-1, keepdim=True)
    x = torch.where(total == 0, p, weighted / torch.where(total == 0, 1, total))
    return x.to(probabilities.dtype)


def at_least_single(x: Tensor) -> Tensor:
    """The tensor, in single precision where it is in half."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def weighted_baseline(values: Tensor, weights: Tensor) -> Tensor:
    """Baseline ``b = Σ_k weights_k Q_k``: COMA's with the probabilities, OB's with ``x``.

    Args:
        values: Q of each candidate own action, with the others' actions held, ``[..., K]``.
        weights: weight of each candidate, ``[..., K]``.

    Returns:
        ``b``, ``[...]``.

    Example:
        >>> import torch
        >>> from torchrl_ob.functional import categorical_optimal_weights, weighted_baseline
        >>> pi, q = torch.tensor([.8, .1, .1]), torch.tensor([2., 1., 100.])
        >>> weighted_baseline(q, pi), weighted_baseline(q, categorical_optimal_weights(pi.log()))
        (tensor(11.7000), tensor(43.6529))
    """
    return (values * weights).sum(-1)
