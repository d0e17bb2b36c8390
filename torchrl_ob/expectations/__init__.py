"""Expectations over an agent's own action, ``E_{a^i}[f(a^i)] ≈ Σ_k p_k f(a_k)``: candidates ``a_k`` and their weights.

They are exact for discrete actions and a quadrature for continuous ones. The optimal baseline is then
``Σ_k x_k Q(s, a^-i, a_k)``. One file serves one family of distributions, and registers it.
"""

from torchrl_ob.expectations import categorical, gaussian, truncated  # noqa: F401  they register
from torchrl_ob.expectations.quadrature import Candidates
from torchrl_ob.expectations.registry import Options, action_candidates, register_candidates

__all__ = ["Candidates", "Options", "action_candidates", "register_candidates"]
