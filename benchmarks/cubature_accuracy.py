"""How close each rule comes to the exact optimal baseline, for the calls of the critic it makes.

The error is the root mean square of ``b* - exact`` over states, divided by the standard deviation of
Q across own actions; exact is a dense quadrature. The critics are tanh networks with TorchRL's
initial weights times a gain, so from nearly linear in the action to strongly curved; the policies
are squashed Gaussians. ``python benchmarks/cubature_accuracy.py``; ``SMOKE=1`` for seconds.
"""

import os

import torch
from torch import Tensor
from torchrl.modules import MLP, TanhNormal

from torchrl_ob.candidates import Candidates, action_candidates
from torchrl_ob.functional import weighted_baseline

SMOKE = os.environ.get("SMOKE") == "1"
STATES = {1: 500, 2: 500, 3: 100, 6: 20}
DENSE = {1: 80, 2: 40, 3: 20, 6: 5}  # nodes in each dimension of the exact baseline
OBSERVATION = 18
RULES = {
    "Gauss (default)": {},
    "grid, 3 nodes": {"rule": "grid", "num_points": 3},
    "grid, 5 nodes": {"rule": "grid", "num_points": 5},
    "Sobol, 64 points": {"rule": "sobol"},
    "samples, 1,000": {"rule": "monte_carlo"},
}


@torch.no_grad()
def errors(dim: int, gain: float) -> dict[str, float]:
    """Error of every rule for actions of one dimension ``dim``."""
    torch.manual_seed(0)
    states = 20 if SMOKE else STATES[dim]
    net = MLP(OBSERVATION + dim, 1, depth=2, num_cells=256, activation_class=torch.nn.Tanh).double()
    for p in net.parameters():
        if p.ndim == 2:
            p.mul_(gain)
    observation = torch.randn(states, 1, OBSERVATION, dtype=torch.float64)
    loc = torch.randn(states, dim, dtype=torch.float64) / 2
    scale = torch.rand(states, dim, dtype=torch.float64) * 0.7 + 0.3
    dist = TanhNormal(loc, scale)

    def q(candidates: Candidates) -> Tensor:
        chunks = []
        for actions in candidates.actions.split(2_000, dim=1):
            inputs = [observation.expand(-1, actions.shape[1], -1), actions]
            chunks.append(net(torch.cat(inputs, -1)).squeeze(-1))
        return torch.cat(chunks, 1)

    dense = action_candidates(dist, rule="grid", num_points=10 if SMOKE and dim < 6 else DENSE[dim])
    values = q(dense)
    exact = weighted_baseline(values, dense.optimal_weights)
    mean = weighted_baseline(values, dense.probabilities).unsqueeze(-1)
    spread = weighted_baseline((values - mean).square(), dense.probabilities).sqrt()
    out = {}
    for name, options in RULES.items():
        if name.startswith("grid") and dim > 3:
            continue  # as many points as the exact one
        candidates = action_candidates(dist, **options)
        b = weighted_baseline(q(candidates), candidates.optimal_weights)
        out[name] = ((b - exact) / spread).square().mean().sqrt().item()
    return out


if __name__ == "__main__":
    print("RMSE of b* over the standard deviation of Q across own actions")
    print(f"{'d':>2} {'points':>7} {'gain':>5}  " + "  ".join(f"{name:>16}" for name in RULES))
    for dim in (1, 2) if SMOKE else STATES:
        for gain in (1.0, 2.0, 4.0):
            row = errors(dim, gain)
            cells = "  ".join(f"{row[n]:16.2%}" if n in row else f"{'-':>16}" for n in RULES)
            print(f"{dim:2} {2 * dim + 1:7} {gain:5.1f}  {cells}")
