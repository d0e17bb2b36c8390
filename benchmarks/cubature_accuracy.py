"""How close each rule comes to the exact optimal baseline, for the calls of the critic it makes.

The error is the root mean square of ``b* - exact`` over states, divided by the standard deviation of
Q across own actions; exact is a dense quadrature. The critics are tanh networks with TorchRL's
initial weights times a gain, so from nearly linear in the action to strongly curved, and those of VMAS
navigation (d = 2) before and after twelve batches of training; the policies are squashed Gaussians.
``python benchmarks/cubature_accuracy.py`` takes two minutes; ``SMOKE=1`` for seconds.
"""

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from results import record
from torch import Tensor
from torch.distributions import Distribution
from torchrl.envs import ExplorationType, set_exploration_type
from torchrl.modules import MLP, TanhNormal

from torchrl_ob.expectations import action_candidates
from torchrl_ob.expectations.components import node_candidates
from torchrl_ob.expectations.gaussian import gaussian_components
from torchrl_ob.expectations.rules import gauss_hermite
from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.config.overrides import compose_config
from torchrl_ob.experiments.loop import estimate, improve
from torchrl_ob.functional import weighted_baseline
from torchrl_ob.train import config_folder

SMOKE = os.environ.get("SMOKE") == "1"
STATES = {1: 500, 2: 500, 3: 100, 6: 20}
DENSE = {1: 80, 2: 40, 3: 20, 6: 7}  # nodes in each dimension of the exact baseline
OBSERVATION = 18
RULES = {
    "Gauss (default)": {},
    "Gauss, 2 nodes": {"num_points": 2},
    "samples, 1,000": {"rule": "monte_carlo"},
}


def compare(
    dist: Distribution, dense: int, q: Callable[[Tensor], Tensor], rules: dict[str, dict[str, Any]]
) -> dict[str, tuple[int, float]]:
    """Number of points and error of every rule, against a grid of ``dense`` nodes in each dimension."""
    components = gaussian_components(dist)
    line = [torch.cartesian_prod(*[x] * components.scale.shape[-1]) for x in gauss_hermite(dense)]
    nodes, weights = (x.reshape(dense ** components.scale.shape[-1], -1) for x in line)
    nodes = nodes.reshape(len(nodes), *[1] * (components.scale.ndim - 1), -1)
    nodes = nodes.expand(-1, *components.scale.shape)
    everywhere = node_candidates(components, nodes, weights.prod(-1), "loc_scale")
    values = q(everywhere.actions)
    exact = weighted_baseline(values, everywhere.optimal_weights)
    mean = weighted_baseline(values, everywhere.probabilities).unsqueeze(-1)
    spread = weighted_baseline((values - mean).square(), everywhere.probabilities).sqrt()
    out = {}
    for name, options in rules.items():
        candidates = action_candidates(dist, measure="optimal_weights", **options)
        b = weighted_baseline(q(candidates.actions), candidates.optimal_weights)
        error = ((b - exact) / spread).square().mean().sqrt().item()
        out[name] = candidates.actions.shape[-2], error
    return out


@torch.no_grad()
def random_network(dim: int, gain: float) -> dict[str, tuple[int, float]]:
    """Errors for actions of one dimension ``dim``."""
    torch.manual_seed(0)
    states = 20 if SMOKE else STATES[dim]
    net = MLP(OBSERVATION + dim, 1, depth=2, num_cells=256, activation_class=torch.nn.Tanh).double()
    for p in net.parameters():
        if p.ndim == 2:
            p.mul_(gain)
    observation = torch.randn(states, 1, OBSERVATION, dtype=torch.float64)
    loc = torch.randn(states, dim, dtype=torch.float64) / 2
    scale = torch.rand(states, dim, dtype=torch.float64) * 0.7 + 0.3

    def q(actions: Tensor) -> Tensor:
        chunks = []
        for some in actions.split(2_000, dim=1):
            inputs = [observation.expand(-1, some.shape[1], -1), some]
            chunks.append(net(torch.cat(inputs, -1)).squeeze(-1))
        return torch.cat(chunks, 1)

    dense = 10 if SMOKE and dim < 6 else DENSE[dim]
    return compare(TanhNormal(loc, scale), dense, q, RULES)


def navigation(batches: int) -> dict[str, tuple[int, float]]:
    """Errors for the critic of ``torchrl-ob train`` after some batches, with four agents."""
    overrides = ["experiment=smoke"] if SMOKE else ["trainer.num_epochs=15"]
    overrides += ["device=cpu", "progress_bar=false"]
    with tempfile.TemporaryDirectory() as folder:
        parts = build(compose_config(overrides, config_folder()), Path(folder))
        for _, batch in zip(range(batches), parts.collector, strict=False):
            estimate(parts, batch)
            improve(parts, batch)
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        steps = parts.evaluation.env.rollout(20, parts.actor, break_when_any_done=False)[:20, ::5]
        for network in (parts.actor, parts.critic):
            network.double()
        steps = steps.apply(lambda x: x.double() if x.is_floating_point() else x)
        dist = parts.advantage.team.policy(steps)
        dense = 6 if SMOKE else 24
        return compare(dist, dense, lambda x: parts.advantage.team.q_candidates(steps, x), RULES)


def show(name: str, gain: str, row: dict[str, tuple[int, float]]) -> None:
    """One line of the table."""
    cells = "  ".join(
        f"{row[n][1]:9.2%} ({row[n][0]:4})" if n in row else f"{'-':>16}" for n in RULES
    )
    print(f"{name:>18} {gain:>5}  {cells}", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print("RMSE of b* over the standard deviation of Q across own actions (points)")
    print(f"{'d':>18} {'gain':>5}  " + "  ".join(f"{name:>16}" for name in RULES))
    figures = {}
    for dim in (1, 2) if SMOKE else STATES:
        for gain in (1.0, 2.0, 4.0):
            row = random_network(dim, gain)
            show(str(dim), f"{gain:.0f}", row)
            figures[f"d={dim}, gain {gain:.0f}"] = row["Gauss (default)"][1]
    for batches in (0, 1 if SMOKE else 12):
        row = navigation(batches)
        show("2, navigation", f"{batches}", row)
        figures[f"navigation, batch {batches}"] = row["Gauss (default)"][1]
    record(
        "ob_rmse_over_q_std",
        row["Gauss (default)"][1],
        points=row["Gauss (default)"][0],
        all=figures,
    )
