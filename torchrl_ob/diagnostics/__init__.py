"""Where the variance of multi-agent policy gradients comes from: exactly, measured, by branching, and live.

- *Exact*, for games that can be enumerated: ``games``.
- *Measured*, on a batch of rollouts with a policy and a critic: :func:`gradient_variance`,
  :func:`parameter_gradient_variance`, :func:`variance_terms`, :func:`excess_variance`,
  :func:`headroom`, :func:`critic_quality`, :func:`noise_scale`.
- *The truth*, by branching states of the environment: :func:`visited_states`, :func:`branch`,
  :func:`true_headroom`, :func:`critic_fit`, :func:`true_baselines`.
- *Live*: :func:`variance_metrics`, :class:`VarianceLogger`. Pictures: ``plot_*``.

Nothing here changes parameters, their gradients, the batch, or the random numbers of training.

Example:
    >>> import torch
    >>> from torchrl.envs import ExplorationType, VmasEnv, set_exploration_type  # needs vmas
    >>> from torchrl_ob import JointQCritic, ObAdvantage
    >>> from torchrl_ob import diagnostics
    >>> from torchrl_ob.policies import policy_from_env
    >>> _ = torch.manual_seed(0)
    >>> env = VmasEnv("navigation", num_envs=8, n_agents=3, seed=0)
    >>> policy, critic = policy_from_env(env), JointQCritic.from_env(env)
    >>> advantage = ObAdvantage(actor_network=policy, value_network=critic, gamma=0.99, lmbda=0.9)
    >>> advantage.set_keys(reward=env.reward_key)
    >>> with set_exploration_type(ExplorationType.RANDOM), torch.no_grad():
    ...     batch = env.rollout(20, policy)
    >>> measured = diagnostics.gradient_variance(advantage, batch)
    >>> measured.variance["ob"].value.shape  # of every agent; .low and .high are its interval
    torch.Size([3])
    >>> list(measured.ratio)  # print(measured) shows a table
    ['none', 'v', 'coma', 'ob']
    >>> exact = diagnostics.parameter_gradient_variance(advantage, batch[:2])
    >>> list(exact.ratio)
    ['none', 'v', 'coma', 'ob', 'ob_exact']
    >>> terms = diagnostics.variance_terms(advantage, batch)
    >>> terms.own["coma"].value.shape
    torch.Size([3])
    >>> diagnostics.excess_variance(advantage, batch).bound.value.shape
    torch.Size([3])
    >>> print(diagnostics.headroom(advantage, batch))  # doctest: +ELLIPSIS
    agent 0: by the critic's account, baselines can remove at most ...
    >>> list(diagnostics.noise_scale(advantage, batch).frames)
    ['none', 'v', 'coma', 'ob']
    >>> diagnostics.critic_quality(advantage, batch).slope.value.shape
    torch.Size([3])
    >>> metrics = diagnostics.variance_metrics(advantage, batch)
    >>> len(metrics)  # 4 baselines of 3 agents, 3 ratios, 2 numbers of the critic
    17
    >>> hook = diagnostics.VarianceLogger(advantage, interval=10)  # hook.register(trainer)
    >>> hook(batch) is not None, hook(batch) is not None  # the first batch, not the second
    (True, False)
    >>> diagnostics.plot_variance(measured).get_axes()[0].get_xlabel()  # needs matplotlib
    'agent'
"""

from torchrl_ob.diagnostics.branching.branches import *
from torchrl_ob.diagnostics.branching.clone import *
from torchrl_ob.diagnostics.branching.truth import *
from torchrl_ob.diagnostics.exact.estimators import *
from torchrl_ob.diagnostics.exact.values import *
from torchrl_ob.diagnostics.intervals import *
from torchrl_ob.diagnostics.live import *
from torchrl_ob.diagnostics.measured.critic_quality import *
from torchrl_ob.diagnostics.measured.headroom import *
from torchrl_ob.diagnostics.measured.noise_scale import *
from torchrl_ob.diagnostics.measured.variance import *
from torchrl_ob.diagnostics.measured.variance_terms import *
from torchrl_ob.diagnostics.plots import *

__all__ = [
    "Branches",
    "CriticFit",
    "CriticQuality",
    "Estimate",
    "ExcessVariance",
    "GradientVariance",
    "Headroom",
    "NestedVariance",
    "NoiseScale",
    "TrueBaselines",
    "VarianceLogger",
    "VarianceTerms",
    "branch",
    "branch_returns",
    "clone_vmas",
    "coma_baseline",
    "critic_fit",
    "critic_quality",
    "decentralized_value",
    "excess_bound",
    "excess_variance",
    "gradient_moments",
    "gradient_variance",
    "headroom",
    "multi_agent_advantage",
    "nested_variance",
    "noise_scale",
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
