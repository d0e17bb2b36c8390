"""Which critics see the action: ways of fitting Q, against the truth, on five VMAS tasks.

One policy is trained by MAPPO with OB, and every critic is fitted to the same batches beside it, at the tutorial's
budget (6,000 frames a batch, 30 epochs of 400). After some batches, on states and data that no critic was
fitted on:

- *R²* and *captured*: between the critic's Q and the true one of 10 steps, across joint actions, by branching;
- *variance*: of the gradient in ψ, summed over agents, with OB, over that with the state value as baseline (the
  way V, which is GAE); an agent's mean advantage is taken off, as in training;
- *slope*: of what the batch leaves of V on the action part of a dueling critic, by which it could be calibrated, and
  *calibrated*: the share captured then.

Ways: *V*, a state value alone (a dueling critic whose action part is never fitted), also with the learning rate of the action
part; *Q*, the joint critic fitted to λ-returns; *dueling*, the action part fitted to what V leaves of returns with
λ = 0.5 or as named, of the last batch or three (with λ = 0 older batches need no correction of the policy), by a
pooled network, one with attention, or three; *cv*, control variates in the signal. *Upper bound*: the action part's
network fitted to branched returns of other states. *Noise* is that of returns of 10 steps, in units of the variance of the
action's effect, N: the blend (Q - b) + κ (G - Q) errs by (1 - κ)² (1 - captured) + κ² N in the same units, a bias and a variance.

``python benchmarks/critic_that_sees.py [scenario ...]``: five by default, ten minutes each on one core; with ``ALL=1`` all
ways. Prints tables as markdown and writes every number to ``runs/critic_that_sees.csv``. ``SMOKE=1`` for a run of seconds.
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

from torchrl_ob import DuelingCritic, JointQCritic, ObAdvantage
from torchrl_ob.diagnostics import (
    branch,
    critic_fit,
    nested_variance,
    true_headroom,
    visited_states,
)
from torchrl_ob.diagnostics.scores import taken_scores
from torchrl_ob.policies import policy_from_env

SMOKE = os.environ.get("SMOKE") == "1"
ALL = SMOKE or os.environ.get("ALL") == "1"
SCENARIOS = ("navigation", "simple_spread", "balance", "flocking", "give_way")
NUM_AGENTS = int(os.environ.get("AGENTS", "4"))  # give_way has its own
NUM_ENVS, NUM_STEPS = (6, 10) if SMOKE else (60, 100)
NUM_EPOCHS, MINIBATCH_SIZE = (1, 30) if SMOKE else (30, 400)
GAMMA, LMBDA = 0.99, 0.9
MEASURED = (1,) if SMOKE else tuple(map(int, os.environ.get("BATCHES", "5,10,20").split(",")))
NUM_STATES, BRANCHES = (4, 4) if SMOKE else (96, 12)
NUM_FITTED_STATES = 8 if SMOKE else 500  # of the upper bound
HORIZON = 2 if SMOKE else 10
CSV = Path("runs") / "critic_that_sees.csv"


def upper_bound(
    env: EnvBase, policy: ProbabilisticActor, test: tuple[TensorDictBase, torch.Tensor]
) -> torch.Tensor:
    """Values of the action part's network, fitted to branched returns of other states."""
    at, states = visited_states(
        env, policy, num_states=NUM_FITTED_STATES, max_steps=NUM_STEPS // 2, seed=1
    )
    options: Any = {"num_actions": BRANCHES, "horizons": [HORIZON], "gamma": GAMMA}
    branches = branch(at, states, policy, num_continuations=2, seed=1, **options)
    returns = branches.returns[0].mean(2)
    effect = (returns - returns.mean(1, keepdim=True)).float()
    wide = states.unsqueeze(1).expand(*effect.shape[:2]).contiguous()
    critic = DuelingCritic.from_env(env)
    critic.scale.fill_(effect.std())
    steps = wide.set(env.action_key, branches.actions).select(*critic.in_keys).reshape(-1)
    target = effect.flatten(0, 1).unsqueeze(-1) / critic.scale
    optimizer = torch.optim.Adam(critic.backbone.parameters(), lr=1e-3)
    for _ in range(NUM_EPOCHS):
        for index in torch.randperm(len(target)).split(MINIBATCH_SIZE):
            loss = nn.functional.mse_loss(critic.action_effect(steps[index]), target[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return team_values(critic, env, *test)


def team_values(
    critic: JointQCritic, env: EnvBase, states: TensorDictBase, actions: torch.Tensor
) -> torch.Tensor:
    """Q of the team, the mean over agents, of joint actions of each state."""
    wide = states.unsqueeze(1).expand(*actions.shape[:2]).contiguous().set(env.action_key, actions)
    with torch.no_grad():
        return critic(wide)[critic.out_keys[0]].mean(-2).double()


def against_truth(q: torch.Tensor, returns: torch.Tensor) -> dict[str, float]:
    """R² and captured share of the team's action effect."""
    fit = critic_fit(q, returns.mean(-1, keepdim=True))
    return {"R²": fit.r2.value.item(), "captured": fit.captured.value.item()}


def variance_in_training(advantage: ObAdvantage, batch: TensorDictBase) -> float:
    """Of the gradient in ψ, summed over agents; an agent's mean advantage is taken off, as MAPPO does."""
    signal = advantage(batch.copy())["advantage"].squeeze(-1)
    signal = signal - signal.mean((0, 1))
    with torch.no_grad():
        weight = taken_scores(advantage, batch).square().sum(-1)
    return (signal.square() * weight).mean((0, 1)).sum().item()


@torch.no_grad()
def slope_of(way: Way, batch: TensorDictBase) -> float:
    """Regression of what V leaves of the team's return on the action part, its mean over actions taken off."""
    steps = batch.reshape(-1)
    critic = way.advantage.value_network
    effect = critic.scale * critic.action_effect(steps)
    average = way.advantage.state_value(steps) - critic.state_value(steps)
    effect, residual = (
        x.mean(-2).flatten() for x in (effect - average, way.fit.residual(batch).reshape_as(effect))
    )
    moments = torch.stack([effect, residual]).cov()
    return (moments[0, 1] / moments[0, 0]).item()


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
    for name, way in ways.items():
        critic = way.advantage.value_network
        q = team_values(critic, env, *test)
        rows[name] = row = against_truth(q, returns)
        row["variance"] = variance_in_training(way.advantage, batch)
        if way.fit is not None:
            row["slope"] = slope_of(way, batch)
            row["calibrated"] = against_truth(row["slope"] * q, returns)["captured"]
    reference = rows["V"]["variance"]
    for row in rows.values():
        row["variance"] /= reference
    rows["upper bound"] = against_truth(upper_bound(env, policy, test), returns)
    team = returns.mean(-1, keepdim=True)
    effect, noise = (x.mean().item() for x in nested_variance(team))
    rows["truth"] = {"headroom": true_headroom(team).value.item(), "noise": noise / effect}
    return rows


def main(scenario: str, writer: Any) -> None:
    """Train, and measure after some batches."""
    torch.manual_seed(0)
    size = {} if scenario == "give_way" else {"n_agents": NUM_AGENTS}
    env = VmasEnv(scenario, num_envs=NUM_ENVS, seed=0, **size)
    policy = policy_from_env(env)
    ways = make_ways(env, policy, gamma=GAMMA, lmbda=LMBDA, everything=ALL)
    for k in range(1, max(MEASURED) + 1):
        batch = collect(env, policy, NUM_STEPS)
        update(ways, batch, num_epochs=NUM_EPOCHS, minibatch_size=MINIBATCH_SIZE)
        if k not in MEASURED:
            continue
        rows = measure(env, policy, ways, seed=k)
        print(f"\n{scenario}, {env.n_agents} agents, after {k} batches\n")
        print("| way | R² | captured | variance | slope | calibrated |")
        print("| --- | --- | --- | --- | --- | --- |")
        truth = rows.pop("truth")
        for name, row in rows.items():
            cells = [f"{value:.2f}" for value in row.values()]
            print(f"| {name} | " + " | ".join(cells + ["-"] * (5 - len(cells))) + " |")
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
