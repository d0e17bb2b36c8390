"""Where the variance of multi-agent policy gradients goes: exactly, measured, and live."""

from torchrl_ob.diagnostics.bootstrap import Estimate
from torchrl_ob.diagnostics.branching import (
    Branches,
    TrueBaselines,
    branch,
    branch_returns,
    true_baselines,
    visited_states,
)
from torchrl_ob.diagnostics.critic_quality import CriticQuality, critic_quality
from torchrl_ob.diagnostics.games import (
    coma_baseline,
    decentralised_value,
    excess_bound,
    gradient_moments,
    multi_agent_advantage,
    optimal_baseline,
    state_value,
    subset_value,
    variance_decomposition,
)
from torchrl_ob.diagnostics.gradient_variance import (
    GradientVariance,
    gradient_variance,
    parameter_gradient_variance,
)
from torchrl_ob.diagnostics.headroom import Headroom, headroom
from torchrl_ob.diagnostics.live import VarianceLogger, variance_metrics
from torchrl_ob.diagnostics.nested_variance import (
    CriticFit,
    NestedVariance,
    critic_fit,
    nested_variance,
    true_headroom,
)
from torchrl_ob.diagnostics.plots import plot_live, plot_ratios, plot_terms, plot_variance
from torchrl_ob.diagnostics.terms import (
    ExcessVariance,
    VarianceTerms,
    excess_variance,
    variance_terms,
)
from torchrl_ob.diagnostics.vmas_clone import clone_vmas

__all__ = [
    "Branches",
    "CriticFit",
    "CriticQuality",
    "Estimate",
    "ExcessVariance",
    "GradientVariance",
    "Headroom",
    "NestedVariance",
    "TrueBaselines",
    "VarianceLogger",
    "VarianceTerms",
    "branch",
    "branch_returns",
    "clone_vmas",
    "coma_baseline",
    "critic_fit",
    "critic_quality",
    "decentralised_value",
    "excess_bound",
    "excess_variance",
    "gradient_moments",
    "gradient_variance",
    "headroom",
    "multi_agent_advantage",
    "nested_variance",
    "optimal_baseline",
    "parameter_gradient_variance",
    "plot_live",
    "plot_ratios",
    "plot_terms",
    "plot_variance",
    "state_value",
    "subset_value",
    "true_baselines",
    "true_headroom",
    "variance_decomposition",
    "variance_metrics",
    "variance_terms",
    "visited_states",
]
