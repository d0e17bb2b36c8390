"""From a policy's distribution to candidate own actions, their probabilities and OB weights.

The expectation over agent i's own action, ``E_{a^i}[f(a^i)] ≈ Σ_k p_k f(a_k)``, is exact for
discrete actions and a cubature for continuous ones. The optimal baseline is then
``Σ_k x_k Q(s, a^-i, a_k)``.
"""

from __future__ import annotations

from torch import distributions as D
from torchrl.modules import Delta, TanhDelta

from torchrl_ob.expectations.categorical import categorical_candidates
from torchrl_ob.expectations.components import component_candidates
from torchrl_ob.expectations.gaussian import gaussian_components
from torchrl_ob.expectations.lines import ExpectationRule
from torchrl_ob.expectations.quadrature import Candidates, Measure
from torchrl_ob.expectations.truncated import truncated_components
from torchrl_ob.functional import GaussianPsi

__all__ = ["Candidates", "action_candidates"]


def action_candidates(
    dist: D.Distribution,
    *,
    rule: ExpectationRule = "gauss",
    num_points: int | None = None,
    psi: GaussianPsi = "loc_scale",
    measure: Measure | None = None,
) -> Candidates | None:
    """Candidate own actions of a distribution whose score is known in closed form.

    ψ, in whose components the score is taken, is

    * the logits of a categorical, whatever it was built from: logits, ``probs``, or the scores of an ``Ordinal``;
    * loc and scale of a Gaussian, as ``psi`` says: of the one before squashing or truncation, and after ``tanh_loc``.

    A subclass with a ``log_prob`` of its own is none of these.

    Args:
        dist: the agents' policies, of batch shape ``[*B, n]``: categorical, one-hot categorical,
            their masked versions, ``Independent`` of these or
            ``FactoredCategorical`` (multi-categorical), Gaussian,
            Gaussian under elementwise transforms (:class:`~torchrl.modules.TanhNormal`), or
            :class:`~torchrl.modules.TruncatedNormal`.
        rule: how the expectation over a continuous action is taken. Discrete actions are always
            enumerated, which is exact.
        num_points: size of the rule: nodes in each dimension (``"gauss"``: 2 or 3, by default
            3 in one or two dimensions, 2 beyond), or samples in all (``"monte_carlo"``: 1,000, as in the
            paper's code).
        psi: the parameters of a Gaussian in which the variance of the gradient is minimised.
        measure: which weights will be used, ``"probabilities"`` or ``"optimal_weights"``. The nodes of
            the Gauss rule are chosen for one of them, and the others are less accurate; by default
            there are the nodes of both, twice as many.

    Returns:
        The candidates, or ``None`` where the distribution is of another kind: see
        :func:`~torchrl_ob.expectations.autodiff.score_candidates`.

    Raises:
        TypeError: for a deterministic policy.
        ValueError: for a multi-categorical with too many joint choices, or an invalid option.

    Example:
        >>> import torch
        >>> from torchrl_ob.expectations.candidates import action_candidates
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
    if (discrete := categorical_candidates(dist)) is not None:
        return discrete
    components = truncated_components(dist) or gaussian_components(dist)
    if components is None:
        return None
    return component_candidates(
        components, rule=rule, num_points=num_points, psi=psi, measure=measure
    )
