"""Where the optimal baseline pays on VMAS: true headroom, what critics see of it, and the variance.

For each scenario, number of agents and kind of reward, each agent's own or the team's mean, a team is trained by MAPPO with OB
for a few batches, together with a second critic of another backbone on the same data. Actions are continuous, and what a
scenario shares by itself is switched off. Then, on fresh rollouts:

- *headroom*: the share of the return's variance within a state that the joint action truly explains, at
  10 and 30 steps, by branching states of the environment: no baseline can remove more;
- *R²* and *captured*: between the critic's Q and the true one of 10 steps, across joint actions; and
  *slope*, of the return on Q's action part: 1 is calibrated, below 1/2 its baselines add noise;
- *none/OB, V/OB, COMA/OB*: the variance of the gradient in ψ, summed over agents, over that with OB,
  for the λ-return with several λ and for the critic's Q as the signal.

``python benchmarks/gradient_variance.py [scenario ...]``: all by default, half a minute to two for each of 48
teams on one core; ``TEAMS=2,4`` for teams of these sizes alone. Prints the table as markdown, and writes every number with its interval to
``runs/gradient_variance.csv``. ``SMOKE=1`` for a run of seconds.
"""

import csv
import math
import os
import sys
import time
import warnings
from itertools import product
from pathlib import Path

import torch
from tensordict import TensorDictBase
from torch import nn
from torchrl.envs import EnvBase, ExplorationType, VmasEnv, set_exploration_type
from torchrl.modules import PopArtValueNorm, ProbabilisticActor
from torchrl.objectives.multiagent import MAPPOLoss

from torchrl_ob import JointQCritic, ObAdvantage
from torchrl_ob.diagnostics import (
    Estimate,
    branch,
    critic_fit,
    critic_quality,
    gradient_variance,
    true_headroom,
    visited_states,
)
from torchrl_ob.policies import policy_from_env

SMOKE = os.environ.get("SMOKE") == "1"
SCENARIOS = ("navigation", "balance", "transport", "dispersion", "discovery", "simple_spread")
OPTIONS = {  # no sharing of its own; and no respawn, which is random, so that states could not be branched
    "navigation": {"shared_rew": False},
    "dispersion": {"share_reward": False},
    "discovery": {"shared_reward": False, "targets_respawn": False},
}
CRITICS = {"individual": ("pooled", "concat"), "team": ("pooled", "additive")}
TEAMS = [int(x) for x in os.environ.get("TEAMS", "2" if SMOKE else "2,4,8,16").split(",")]
NUM_ENVS, NUM_STEPS = (8, 10) if SMOKE else (30, 100)
NUM_BATCHES = 1 if SMOKE else 8
NUM_EPOCHS = 1 if SMOKE else 5
MINIBATCH_SIZE = 40 if SMOKE else 300
NUM_STATES = 4 if SMOKE else 24  # that are branched
BRANCHES = 4 if SMOKE else 12  # joint actions of each state, and continuations of each
HORIZONS = (1, 2) if SMOKE else (10, 30)
GAMMA, LMBDA = 0.99, 0.9
SIGNALS = {"λ = 0.5": 0.5, "λ = 0.9": 0.9, "λ = 1": 1.0, "Q": None}
BASELINES = ("none", "v", "coma")
CSV = Path("runs") / "gradient_variance.csv"


def collect(env: EnvBase, policy: ProbabilisticActor, reward: str) -> TensorDictBase:
    """A batch of trajectories whose agents are paid their own rewards, or the mean of all."""
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        batch = env.rollout(NUM_STEPS, policy, break_when_any_done=False)
    if reward == "team":
        own = batch["next", "agents", "reward"]
        batch["next", "agents", "reward"] = own.mean(-2, keepdim=True).expand_as(own).clone()
    return batch


def make_loss(env: EnvBase, policy: ProbabilisticActor, backbone: str) -> MAPPOLoss:
    """MAPPO's loss of the policy and a critic of its own, with OB."""
    critic = JointQCritic.from_env(env, backbone=backbone, value_norm=PopArtValueNorm(shape=1))
    loss = MAPPOLoss(
        policy,
        critic,
        value_norm=critic.value_norm,
        entropy_coeff=1e-4,
        normalize_advantage=True,
        normalize_advantage_exclude_dims=(-2,),
    )
    options = {"gamma": GAMMA, "lmbda": LMBDA}
    loss.make_value_estimator(ObAdvantage(actor_network=policy, value_network=critic, **options))
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key, action=env.action_key)
    return loss


def train(env: EnvBase, policy: ProbabilisticActor, reward: str) -> dict[str, ObAdvantage]:
    """Train the policy with OB and the first critic; fit the other critic beside it."""
    losses = {backbone: make_loss(env, policy, backbone) for backbone in CRITICS[reward]}
    adams = {name: torch.optim.Adam(loss.parameters(), lr=5e-4) for name, loss in losses.items()}
    for _ in range(NUM_BATCHES):
        batch = collect(env, policy, reward)
        steps = {name: x.value_estimator(batch.copy()).reshape(-1) for name, x in losses.items()}
        for _ in range(NUM_EPOCHS):
            for index in torch.randperm(batch.numel()).split(MINIBATCH_SIZE):
                for name, loss in losses.items():
                    if name == CRITICS[reward][0]:
                        out = loss(steps[name][index])
                        total = out["loss_objective"] + out["loss_critic"] + out["loss_entropy"]
                    else:
                        total = loss.loss_critic(steps[name][index])[0].mean()
                    total.backward()
                    nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
                    adams[name].step()
                    adams[name].zero_grad()
    return {name: loss.value_estimator for name, loss in losses.items()}


def measure(scenario: str, reward: str, num_agents: int) -> dict[str, dict[str, Estimate]]:
    """One row of numbers for each backbone."""
    torch.manual_seed(0)
    env = VmasEnv(
        scenario,
        num_envs=NUM_ENVS,
        n_agents=num_agents,
        seed=0,
        **OPTIONS.get(scenario, {}),
    )
    policy = policy_from_env(env)
    advantages = train(env, policy, reward)
    batch = collect(env, policy, reward)
    at, states = visited_states(env, policy, num_states=NUM_STATES, max_steps=NUM_STEPS // 2)
    branches = branch(
        at,
        states,
        policy,
        num_actions=BRANCHES,
        num_continuations=BRANCHES,
        horizons=HORIZONS,
        gamma=GAMMA,
    )
    team_returns = branches.returns.mean(-1, keepdim=True)  # of the whole team: one number a row
    wide = states.unsqueeze(1).expand(len(states), BRANCHES).contiguous()
    rows = {}
    for backbone, advantage in advantages.items():
        with torch.no_grad():
            q = advantage.team.q(wide, branches.actions).mean(-2)
        row = {}
        for horizon, returns in zip(HORIZONS, team_returns, strict=True):
            row[f"headroom {horizon}"] = squeeze(true_headroom(returns))
        fit = critic_fit(q.double(), team_returns[0])
        row["R²"], row["captured"] = squeeze(fit.r2), squeeze(fit.captured)
        row["slope"] = mean_over_agents(critic_quality(advantage, batch).slope)
        for name, lmbda in SIGNALS.items():
            advantage.signal = "critic" if lmbda is None else "lambda_return"
            advantage.lmbda = LMBDA if lmbda is None else lmbda
            ratio = gradient_variance(advantage, batch).ratio
            for baseline in BASELINES:
                row[f"{name}: {baseline}/ob"] = ratio[baseline]
        rows[backbone] = row
    return rows


def squeeze(estimate: Estimate) -> Estimate:
    """Of the only agent, as scalars."""
    return Estimate(*(x.squeeze(-1) for x in estimate))


def mean_over_agents(estimate: Estimate) -> Estimate:
    """One number for the team; the mean of the agents' intervals is on the wide side."""
    return Estimate(*(x.mean() for x in estimate))


def print_table(path: Path) -> None:
    """The most important columns as markdown; what cannot be told from 0 / 0 is left out."""
    rows: dict[tuple[str, ...], dict[str, list[float]]] = {}
    with path.open(newline="") as file:
        for *team, what, value, low, high in list(csv.reader(file))[1:]:
            rows.setdefault(tuple(team), {})[what] = [float(value), float(low), float(high)]
    shown = [f"headroom {h}" for h in HORIZONS] + ["R²", "captured", "slope"]
    shown += [f"{name}: {b}/ob" for name in ("λ = 0.9", "Q") for b in BASELINES]
    print("| scenario | reward | agents | critic | " + " | ".join(shown) + " |")
    print("| --- " * (4 + len(shown)) + "|")
    for team, row in rows.items():
        cells = [cell(what, row, row[f"headroom {HORIZONS[0]}"]) for what in shown]
        print("| " + " | ".join([*team, *cells]) + " |")


def cell(what: str, row: dict[str, list[float]], truth: list[float]) -> str:
    """Value and interval."""
    value, low, high = row[what]
    undefined = what in ("R²", "captured") and not truth[1] > 0  # no action effect to speak of
    if undefined or any(math.isnan(x) for x in row[what]):
        return "-"
    if what.startswith("headroom"):
        return f"{value:.1%} [{low:.1%}, {high:.1%}]"
    if "none" in what:
        return f"{value:.3g} [{low:.3g}, {high:.3g}]"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="the critic ignores the action")  # the table says so
    chosen = sys.argv[1:] or (SCENARIOS[:1] if SMOKE else SCENARIOS)
    CSV.parent.mkdir(exist_ok=True)
    with CSV.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scenario", "reward", "agents", "critic", "what", "value", "low", "high"])
        for scenario, reward, num_agents in product(chosen, CRITICS, TEAMS):
            start = time.perf_counter()
            rows = measure(scenario, reward, num_agents)
            for backbone, row in rows.items():
                team = [scenario, reward, num_agents, backbone]
                for what, estimate in row.items():
                    writer.writerow([*team, what, *(x.item() for x in estimate)])
            file.flush()
            seconds = time.perf_counter() - start
            print(f"{scenario}, {reward}, {num_agents}: {seconds:.0f} s", file=sys.stderr)
    print_table(CSV)
    print(f"\nevery number: {CSV}")
