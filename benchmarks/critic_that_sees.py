"""Which critics see the action: ways of fitting Q, against the truth, on five VMAS tasks.

One policy is trained by MAPPO with OB, and every critic is fitted to the same batches beside it, at the tutorial's
budget (6,000 frames a batch, 30 epochs of 400). After some batches, on states and data that no critic was
fitted on:

- *R²* and *captured*: between the critic's Q and the true one of 10 steps, across joint actions, by branching;
- *variance*: of the gradient in ψ, summed over agents, with OB, over that with the state value as baseline (the
  way V, which is GAE); an agent's mean advantage is taken off, as in training.

Ways: *V*, a state value alone (a dueling critic whose action part is never fitted); *Q*, the joint critic fitted to
λ-returns; *Q, cv*, with control variates in them; *dueling, λ*, the action part fitted to what V leaves of returns
with that λ; *dueling, λ, cv*, the same critic with control variates in the signal too. *Upper bound*: the action part's
network fitted to branched returns of other states.

``python benchmarks/critic_that_sees.py [scenario ...]``: five by default, about six minutes each on one core. Prints the
table as markdown and writes every number to ``runs/critic_that_sees.csv``. ``SMOKE=1`` for a run of seconds.
"""

import csv
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from mappo import collect, mappo_with_ob
from tensordict import TensorDictBase
from torch import nn
from torchrl.envs import EnvBase, VmasEnv
from torchrl.modules import PopArtValueNorm, ProbabilisticActor

from torchrl_ob import ActionEffectFit, DuelingCritic, JointQCritic, ObAdvantage
from torchrl_ob.diagnostics import (
    branch,
    critic_fit,
    true_headroom,
    visited_states,
)
from torchrl_ob.diagnostics.scores import taken_scores
from torchrl_ob.policies import policy_from_env

SMOKE = os.environ.get("SMOKE") == "1"
SCENARIOS = ("navigation", "simple_spread", "balance", "flocking", "give_way")
NUM_AGENTS = int(os.environ.get("AGENTS", "4"))  # give_way has its own
NUM_ENVS, NUM_STEPS = (6, 10) if SMOKE else (60, 100)
MEASURED = (1,) if SMOKE else (5, 10)  # after so many batches
NUM_EPOCHS, MINIBATCH_SIZE = (1, 30) if SMOKE else (30, 400)
NUM_STATES, BRANCHES = (4, 4) if SMOKE else (48, 12)
NUM_FITTED_STATES = 8 if SMOKE else 500  # of the upper bound
HORIZON, GAMMA, LMBDA = (2 if SMOKE else 10), 0.99, 0.9
LMBDAS = (0.0, 0.5, 0.9)  # of the action part's returns
CSV = Path("runs") / "critic_that_sees.csv"


class Way:
    """A critic with its loss, advantage and optimiser, and the fit of its action part where it has one."""

    def __init__(
        self, env: EnvBase, policy: ProbabilisticActor, effect: float | None, **options: Any
    ) -> None:
        kind = JointQCritic if effect is None else DuelingCritic
        critic = kind.from_env(env, value_norm=PopArtValueNorm(shape=1))
        self.loss, self.advantage = mappo_with_ob(
            env, policy, critic, gamma=GAMMA, lmbda=LMBDA, **options
        )
        self.optimizer = torch.optim.Adam(self.loss.parameters(), lr=3e-4)
        self.fit = None
        if effect is not None and effect >= 0:
            self.fit = ActionEffectFit(self.advantage, lmbda=effect)


def make_ways(env: EnvBase, policy: ProbabilisticActor) -> dict[str, Way]:
    """The ways by name; the first trains the policy."""
    ways = {
        "Q": Way(env, policy, None),
        "V": Way(env, policy, -1.0),
        "Q, cv": Way(env, policy, None, bootstrap="control_variate"),
    }
    for lmbda in LMBDAS:
        ways[f"dueling, λ = {lmbda}"] = Way(env, policy, lmbda)
    ways["dueling, λ = 0.5, cv"] = Way(env, policy, 0.5, bootstrap="control_variate")
    return ways


def update(ways: dict[str, Way], batch: TensorDictBase) -> None:
    """One batch: every critic is fitted, and the policy trained by the first way."""
    steps = {name: way.advantage(batch.copy()).reshape(-1) for name, way in ways.items()}
    for _ in range(NUM_EPOCHS):
        for index in torch.randperm(batch.numel()).split(MINIBATCH_SIZE):
            for name, way in ways.items():
                minibatch = steps[name][index]
                if name == "Q":
                    out = way.loss(minibatch)
                    total = out["loss_objective"] + out["loss_critic"] + out["loss_entropy"]
                else:
                    total = way.loss.loss_critic(minibatch)[0].mean()
                total.backward()
                nn.utils.clip_grad_norm_(way.loss.parameters(), 1.0)
                way.optimizer.step()
                way.optimizer.zero_grad()
    for way in ways.values():
        if way.fit is not None:
            way.fit(batch)


def upper_bound(
    env: EnvBase, policy: ProbabilisticActor, test: tuple[Any, ...]
) -> dict[str, float]:
    """R² and captured share of the action part's network, fitted to branched returns of other states."""
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
    return against_truth(critic, env, *test)


def against_truth(
    critic: Any, env: EnvBase, states: TensorDictBase, actions: torch.Tensor, returns: torch.Tensor
) -> dict[str, float]:
    """R² and captured share of the team's action effect."""
    wide = states.unsqueeze(1).expand(*actions.shape[:2]).contiguous().set(env.action_key, actions)
    with torch.no_grad():
        q = critic(wide)[critic.out_keys[0]].mean(-2)
    fit = critic_fit(q.double(), returns.mean(-1, keepdim=True))
    return {"R²": fit.r2.value.item(), "captured": fit.captured.value.item()}


def variance_in_training(advantage: ObAdvantage, batch: TensorDictBase) -> float:
    """Of the gradient in ψ, summed over agents; an agent's mean advantage is taken off, as MAPPO does."""
    signal = advantage(batch.copy())["advantage"].squeeze(-1)
    signal = signal - signal.mean((0, 1))
    with torch.no_grad():
        weight = taken_scores(advantage, batch).square().sum(-1)
    return (signal.square() * weight).mean((0, 1)).sum().item()


def measure(
    env: EnvBase, policy: ProbabilisticActor, ways: dict[str, Way], seed: int
) -> dict[str, dict[str, float]]:
    """A row of numbers for each way."""
    at, states = visited_states(
        env, policy, num_states=NUM_STATES, max_steps=NUM_STEPS // 2, seed=seed
    )
    options: Any = {"num_actions": BRANCHES, "horizons": [HORIZON], "gamma": GAMMA}
    branches = branch(at, states, policy, num_continuations=BRANCHES, seed=seed, **options)
    test = states, branches.actions, branches.returns[0]
    batch, rows = collect(env, policy, NUM_STEPS), {}
    for name, way in ways.items():
        rows[name] = against_truth(way.advantage.value_network, env, *test)
        rows[name]["variance"] = variance_in_training(way.advantage, batch)
    reference = rows["V"]["variance"]
    for row in rows.values():
        row["variance"] /= reference
    rows["upper bound"] = upper_bound(env, policy, test)
    share = true_headroom(branches.returns[0].mean(-1, keepdim=True)).value.item()
    rows["true headroom"] = {"share": share}
    return rows


def main(scenario: str, writer: Any) -> dict[str, dict[str, float]]:
    """Train, and measure after some batches; the last rows are returned."""
    torch.manual_seed(0)
    size = {} if scenario == "give_way" else {"n_agents": NUM_AGENTS}
    env = VmasEnv(scenario, num_envs=NUM_ENVS, seed=0, **size)
    policy = policy_from_env(env)
    ways, rows = make_ways(env, policy), {}
    for k in range(1, max(MEASURED) + 1):
        update(ways, collect(env, policy, NUM_STEPS))
        if k in MEASURED:
            rows = measure(env, policy, ways, seed=k)
            for name, row in rows.items():
                for what, value in row.items():
                    writer.writerow([scenario, k, name, what, value])
                cells = ", ".join(f"{what} {value:.2f}" for what, value in row.items())
                print(f"{scenario}, batch {k}, {name}: {cells}", file=sys.stderr, flush=True)
    return rows


def print_table(tables: dict[str, dict[str, dict[str, float]]]) -> None:
    """After the last batch, as markdown: R² / captured / variance over V's."""
    print("| way | " + " | ".join(tables) + " |")
    print("| --- " * (1 + len(tables)) + "|")
    for name in next(iter(tables.values())):
        cells = [" / ".join(f"{x:.2f}" for x in rows[name].values()) for rows in tables.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="the critic ignores the action")  # the table says so
    chosen = sys.argv[1:] or (SCENARIOS[:1] if SMOKE else SCENARIOS)
    CSV.parent.mkdir(exist_ok=True)
    with CSV.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scenario", "batch", "way", "what", "value"])
        print_table({scenario: main(scenario, writer) for scenario in chosen})
