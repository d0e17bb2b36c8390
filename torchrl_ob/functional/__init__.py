"""The mathematics of the optimal baseline, as pure tensor functions.

For one agent, ``b* = E[Q w] / E[w]`` with ``w(a) = ‖∇_ψ log π(a | ψ)‖²``, where ψ are the parameters that the network
outputs for the agent's distribution (Kuba et al., "Settling the Variance of Multi-Agent Policy Gradients", NeurIPS
2021, arXiv:2108.08612, section 4). Over a finite set of candidate actions, this is a weighted sum
``b* = Σ_k x_k Q_k``; the functions below compute ``w`` and ``x``.
"""

from torchrl_ob.functional.returns import control_variate, lambda_return
from torchrl_ob.functional.scores import (
    GaussianPsi,
    categorical_log_score_weights,
    categorical_optimal_weights,
    normal_score_weights,
    optimal_weights,
    weighted_baseline,
)

__all__ = [
    "GaussianPsi",
    "categorical_log_score_weights",
    "categorical_optimal_weights",
    "control_variate",
    "lambda_return",
    "normal_score_weights",
    "optimal_weights",
    "weighted_baseline",
]
