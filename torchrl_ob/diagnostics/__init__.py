"""Where the variance of multi-agent policy gradients goes."""

from torchrl_ob.diagnostics.games import (
    coma_baseline,
    decentralised_value,
    gradient_moments,
    multi_agent_advantage,
    optimal_baseline,
    state_value,
    subset_value,
    variance_decomposition,
)

__all__ = [
    "coma_baseline",
    "decentralised_value",
    "gradient_moments",
    "multi_agent_advantage",
    "optimal_baseline",
    "state_value",
    "subset_value",
    "variance_decomposition",
]
