"""Which critics see the action: ways of fitting Q, against the truth, on five VMAS tasks.

One policy is trained by MAPPO with TorchRL's GAE, and every other critic is fitted to the same batches beside it, at the
tutorial's budget (6,000 frames a batch, 30 epochs of 400). After some batches, on states and data that no critic was
fitted on:

- *R²* and *captured*: between the critic's Q and the true one of 10 steps, across joint actions, by branching;
- *typical*: the same without the tenth of the states in which the joint action matters most;
- *variance*: of the gradient in ψ, summed over agents, over that with GAE; an agent's mean advantage is taken off, as
  in training.

Ways: *GAE*, a state value fitted in the loss; *Q*, the joint critic fitted in the loss, with OB; *V*, the dueling critic whose action
part is never fitted, a state value fitted apart by ``DuelingFit``; *dueling*, both parts, with OB and control variates. With
``ALL=1`` changes of the last: no control variates, short returns of another λ, V in twice the passes at two and five times the
learning rate, and an action part with attention, or of three networks. *Upper bound*: the action part's network fitted to branched
returns of 2,000 other states. *Truth*: the headroom; *noise*, the variance of returns of 10 steps in units of that of the action's
effect; and the share that the top hundredth and the top tenth of the states have of the latter.

``python benchmarks/critic_accuracy.py [scenario ...]``: five by default, ten minutes each on one core; ``AGENTS=8``
for other teams. Prints tables as markdown and writes every number to ``runs/critic_accuracy.csv``. ``SMOKE=1`` for a run of seconds.
"""

import csv
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from mappo import Way, collect, update
from tensordict import TensorDictBase
from torch import nn
from torchrl.envs import EnvBase, VmasEnv
from torchrl.modules import ProbabilisticActor
from ways_of_fitting import make_ways

from torchrl_ob import DuelingCritic
from torchrl_ob.diagnostics import (
    branch,
    critic_fit,
    nested_variance,
    true_headroom,
    visited_states,
)
from torchrl_ob.diagnostics.measured.scores import taken_scores
from torchrl_ob.policies import policy_from_env

SMOKE = os.environ.get("SMOKE") == "1"
ALL = SMOKE or os.environ.get("ALL") == "1"
SCENARIOS = ("navigation", "simple_spread", "balance", "flocking", "give_way")
NUM_AGENTS = int(os.environ.get("AGENTS", "4"))  # give_way has its own
NUM_ENVS, NUM_STEPS = (6, 10) if SMOKE else (60, 100)
NUM_EPOCHS, MINIBATCH_SIZE = (1, 30) if SMOKE else (30, 400)
GAMMA, LMBDA = 0.99, 0.9
MEASURED = (1,) if SMOKE else tuple(map(int, os.environ.get("BATCHES", "5,10,20").split(",")))
NUM_STATES, BRANCHES = (10, 4) if SMOKE else (128, 12)
NUM_FITTED_STATES, FITTED_ACTIONS = (8, 4) if SMOKE else (2_000, 6)  # of the upper bound
HORIZON = 2 if SMOKE else 10
CSV = Path("runs") / "critic_accuracy.csv"


def upper_bound(
    env: EnvBase, policy: ProbabilisticActor, test: tuple[TensorDictBase, torch.Tensor]
) -> torch.Tensor:
    """Values of the action part's network, fitted to branched returns of other states."""
    at, states = visited_states(
        env, policy, num_states=NUM_FITTED_STATES, max_steps=NUM_STEPS // 2, seed=1
    )
    options: Any = {"num_actions": FITTED_ACTIONS, "horizons": [HORIZON], "gamma": GAMMA}
    branches = branch(at, states, policy, num_continuations=2, seed=1, **options)
    returns = branches.returns[0].mean(2)
    effect = (returns - returns.mean(1, keepdim=True)).float()
    wide = states.unsqueeze(1).expand(*effect.shape[:2]).contiguous()
    critic = DuelingCritic.from_env(env)
    steps = wide.set(env.action_key, branches.actions).select(*critic.in_keys).reshape(-1)
    target = critic.effect_units.follow(
        effect.flatten(0, 1).unsqueeze(-1), critic.backbone.tail[-1]
    )
    optimizer = torch.optim.Adam(critic.backbone.parameters(), lr=1e-3)
    for _ in range(NUM_EPOCHS):
        for index in torch.randperm(len(target)).split(MINIBATCH_SIZE):
            loss = nn.functional.mse_loss(critic.effect_output(steps[index]), target[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return team_values(critic, env, *test)


def team_values(
    critic: nn.Module, env: EnvBase, states: TensorDictBase, actions: torch.Tensor
) -> torch.Tensor:
    """Q of the team, the mean over agents, of joint actions of each state."""
    wide = states.unsqueeze(1).expand(*actions.shape[:2]).contiguous().set(env.action_key, actions)
    with torch.no_grad():
        return critic(wide)[critic.out_keys[0]].mean(-2).double()


def against_truth(q: torch.Tensor, returns: torch.Tensor) -> dict[str, float]:
    """R² and captured share of the team's action effect, in all states and in typical ones."""
    team, row = returns.mean(-1, keepdim=True), {}
    for name, leave_out in (("", 0.0), (", typical", 0.1)):
        fit = critic_fit(q, team, leave_out=leave_out)
        row |= {f"R²{name}": fit.r2.value.item(), f"captured{name}": fit.captured.value.item()}
    return row


def variance_in_training(advantage: Any, batch: TensorDictBase, weight: torch.Tensor) -> float:
    """Of the gradient in ψ, summed over agents; an agent's mean advantage is taken off, as MAPPO does."""
    signal = advantage(batch.copy())["advantage"].squeeze(-1)
    signal = signal - signal.mean((0, 1))
    return (signal.square() * weight).mean((0, 1)).sum().item()


def compute_truth(returns: torch.Tensor) -> dict[str, float]:
    """What the team's returns themselves say."""
    team = returns.mean(-1, keepdim=True)
    action, noise = nested_variance(team)
    largest = action.flatten().sort(descending=True).values
    shares = {
        f"top {share:.0%}": (
            largest[: max(1, int(share * len(largest)))].sum() / largest.sum()
        ).item()
        for share in (0.01, 0.1)
    }
    headroom = true_headroom(team).value.item()
    return {"headroom": headroom, "noise": (noise.mean() / action.mean()).item(), **shares}


def measure(
    env: EnvBase, policy: ProbabilisticActor, ways: dict[str, Way], seed: int
) -> dict[str, dict[str, float]]:
    """A row of numbers for each way."""
    at, states = visited_states(
        env, policy, num_states=NUM_STATES, max_steps=NUM_STEPS // 2, seed=seed
    )
    options: Any = {"num_actions": BRANCHES, "horizons": [HORIZON], "gamma": GAMMA}
    branches = branch(at, states, policy, num_continuations=BRANCHES, seed=seed, **options)
    test, returns = (states, branches.actions), branches.returns[0]
    batch, rows = collect(env, policy, NUM_STEPS), {}
    with torch.no_grad():
        weight = taken_scores(ways["dueling"].advantage, batch).square().sum(-1)
    for name, way in ways.items():
        q = team_values(way.advantage.value_network, env, *test)
        rows[name] = {
            "variance": variance_in_training(way.advantage, batch, weight),
            **against_truth(q, returns),
        }
    reference = rows["GAE"]["variance"]
    for row in rows.values():
        row["variance"] /= reference
    rows["upper bound"] = against_truth(upper_bound(env, policy, test), returns)
    rows["truth"] = compute_truth(returns)
    return rows


def main(scenario: str, writer: Any) -> None:
    """Train, and measure after some batches."""
    torch.manual_seed(0)
    size = {} if scenario == "give_way" else {"n_agents": NUM_AGENTS}
    env = VmasEnv(scenario, num_envs=NUM_ENVS, seed=0, **size)
    policy = policy_from_env(env)
    ways = make_ways(
        env, policy, gamma=GAMMA, lmbda=LMBDA, minibatch_size=MINIBATCH_SIZE, everything=ALL
    )
    for k in range(1, max(MEASURED) + 1):
        batch = collect(env, policy, NUM_STEPS)
        update(ways, batch, num_epochs=NUM_EPOCHS, minibatch_size=MINIBATCH_SIZE)
        if k not in MEASURED:
            continue
        rows = measure(env, policy, ways, seed=k)
        print(f"\n{scenario}, {env.n_agents} agents, after {k} batches\n")
        print("| way | variance | R² | captured | R², typical | captured, typical |")
        print("| --- | --- | --- | --- | --- | --- |")
        truth = rows.pop("truth")
        for name, row in rows.items():
            cells = [f"{value:.2f}" for value in row.values()]
            print(f"| {name} | " + " | ".join(["-"] * (5 - len(cells)) + cells) + " |")
        print("\ntruth: " + ", ".join(f"{what} {x:.2f}" for what, x in truth.items()), flush=True)
        for name, row in {**rows, "truth": truth}.items():
            for what, value in row.items():
                writer.writerow([scenario, env.n_agents, k, name, what, value])


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="the critic ignores the action")  # the table says so
    chosen = sys.argv[1:] or (SCENARIOS[:1] if SMOKE else SCENARIOS)
    CSV.parent.mkdir(exist_ok=True)
    with CSV.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scenario", "agents", "batches", "way", "what", "value"])
        for scenario in chosen:
            main(scenario, writer)
            file.flush()
