r"""What a gradient is worth: its variance, its bias, and how far it points the true way.

Less variance is not all: with a bootstrapped return (λ below 1) the *mean* gradient is off by what the value errs by. If J has a
curvature of at most L, a step along an estimate g of its gradient, of the best length, improves J by at least

.. math::
    \frac{\langle E[g], \nabla J \rangle^2}{2 L\, E\|g\|^2} = \frac{\|\nabla J\|^2}{2 L}\; e^2, \qquad
    e = \frac{\langle E[g], \nabla J \rangle}{\|\nabla J\| \sqrt{E\|g\|^2}}

so that the efficiency e, the expected cosine with the truth, counts both. One policy is trained by MAPPO with TorchRL's GAE on
batches of 1,500 frames, as in ``dueling_learning.py``, and the other critics are fitted to the same batches beside it. After some
batches, in the parameters of the policy: *variance* over what it is with GAE, *efficiency*, and *bias*, the cosine
of the mean gradient with the truth; *V at 3e-3* is the dueling critic whose V is fitted in twice the passes at five times the learning rate. The truth is the gradient of returns without a bootstrap over 200 steps or more, on
two hundred times the data.

``python benchmarks/gradient_efficiency.py [scenario ...]``: five by default, two seeds of some ten minutes each on one core. Prints
medians over seeds and batches, and writes every number to ``runs/gradient_efficiency.csv``. ``SMOKE=1`` for seconds.
"""

import csv
import os
import statistics
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mappo import Way, collect, update
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase, VmasEnv
from torchrl.modules import ProbabilisticActor
from ways_of_fitting import make_ways

from torchrl_ob import MapgAdvantage
from torchrl_ob.policies import policy_from_env

SMOKE = os.environ.get("SMOKE") == "1"
SCENARIOS = ("navigation", "balance", "flocking", "give_way", "simple_spread")
SEEDS = range(1) if SMOKE else range(int(os.environ.get("SEEDS", "2")))
NUM_ENVS, NUM_STEPS = (4, 10) if SMOKE else (15, 100)
NUM_EPOCHS, MINIBATCH_SIZE = (1, 20) if SMOKE else (30, 100)
MEASURED = (1,) if SMOKE else (2, 5, 10, 20)
GAMMA, LMBDA = 0.99, 0.9
WAYS = ("GAE", "Q", "V", "dueling", "V at 1e-3", "V at 3e-3")
NUM_BATCHES = 4 if SMOKE else 40  # whose gradients are compared
TRUE_ENVS, TRUE_STEPS, TRUE_BATCHES = (4, 20, 3) if SMOKE else (150, 300, 10)
CSV = Path("runs") / "gradient_efficiency.csv"


def gradients(
    policy: ProbabilisticActor, batch: TensorDictBase, advantages: Mapping[str, Any], steps: int
) -> dict[str, Tensor]:
    """In the policy's parameters, of the first steps; an agent's mean advantage is taken off, as MAPPO does."""
    out = {}
    early = batch[:, :steps]
    log_prob = policy.get_dist(early.select(*policy.in_keys)).log_prob(
        early[policy.dist_sample_keys[0]]
    )
    for name, advantage in advantages.items():
        signal = advantage(batch.copy())["advantage"][:, :steps].squeeze(-1)
        surrogate = (log_prob * (signal - signal.mean((0, 1)))).mean()
        gradient = torch.autograd.grad(surrogate, list(policy.parameters()), retain_graph=True)
        out[name] = torch.cat([part.flatten() for part in gradient])
    return out


def measure(
    env: EnvBase, true_env: EnvBase, policy: ProbabilisticActor, ways: Mapping[str, Way]
) -> dict[str, dict[str, float]]:
    """A row of numbers for each way."""
    critic = ways["Q"].advantage.value_network
    unbiased = MapgAdvantage(actor_network=policy, value_network=critic, gamma=GAMMA, lmbda=1.0)
    unbiased.set_keys(reward=env.reward_key)
    truths = torch.stack(
        [
            gradients(policy, collect(true_env, policy, TRUE_STEPS), {"": unbiased}, NUM_STEPS)[""]
            for _ in range(TRUE_BATCHES)
        ]
    )
    truth, size = truths.mean(0), norm(truths)
    advantages = {name: way.advantage for name, way in ways.items()}
    found = [
        gradients(policy, collect(env, policy, NUM_STEPS), advantages, NUM_STEPS)
        for _ in range(NUM_BATCHES)
    ]
    rows = {}
    for name in ways:
        gradient = torch.stack([each[name] for each in found])
        along = (gradient.mean(0) @ truth / size).item()
        rows[name] = {
            "variance": gradient.var(0).sum().item(),
            "bias": along / norm(gradient),
            "efficiency": along / gradient.square().sum(1).mean().sqrt().item(),
        }
    reference = rows["GAE"]["variance"]
    for row in rows.values():
        row["variance"] /= reference
    return rows


def norm(samples: Tensor) -> float:
    """Of the mean, without what chance adds to its square; not a number where that is all there is."""
    chance = samples.var(0).sum() / len(samples)
    return (samples.mean(0).square().sum() - chance).sqrt().item()


def main(scenario: str, seed: int) -> dict[int, dict[str, dict[str, float]]]:
    """Train, and measure after some batches."""
    torch.manual_seed(seed)
    size = {} if scenario == "give_way" else {"n_agents": 4}
    env = VmasEnv(scenario, num_envs=NUM_ENVS, seed=seed, **size)
    true_env = VmasEnv(scenario, num_envs=TRUE_ENVS, seed=1_000 + seed, **size)
    policy = policy_from_env(env)
    ways = make_ways(
        env, policy, gamma=GAMMA, lmbda=LMBDA, minibatch_size=MINIBATCH_SIZE, everything=True
    )
    ways = {name: ways[name] for name in WAYS}
    rows = {}
    for k in range(1, max(MEASURED) + 1):
        batch = collect(env, policy, NUM_STEPS)
        update(ways, batch, num_epochs=NUM_EPOCHS, minibatch_size=MINIBATCH_SIZE)
        if k in MEASURED:
            rows[k] = measure(env, true_env, policy, ways)
    return rows


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="the critic ignores the action")
    CSV.parent.mkdir(exist_ok=True)
    with CSV.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scenario", "seed", "batches", "way", "what", "value"])
        print("| task | way | variance | bias | efficiency |\n| --- | --- | --- | --- | --- |")
        for scenario in sys.argv[1:] or (SCENARIOS[:1] if SMOKE else SCENARIOS):
            runs = {seed: main(scenario, seed) for seed in SEEDS}
            for seed, run in runs.items():
                for k, rows in run.items():
                    for way, row in rows.items():
                        for what, value in row.items():
                            writer.writerow([scenario, seed, k, way, what, value])
            file.flush()
            measured = [rows for run in runs.values() for rows in run.values()]
            for way in measured[0]:
                cells = [
                    statistics.median(rows[way][what] for rows in measured)
                    for what in measured[0][way]
                ]
                print(f"| {scenario} | {way} | " + " | ".join(f"{x:.2f}" for x in cells) + " |")
            sys.stdout.flush()
