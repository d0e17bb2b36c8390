"""Measure the variance of the gradient on a VMAS task
===================================================

The task is *navigation*: n agents have to reach their goals without bumping into one another, and share the reward
for progress. For teams of 2, 4 and 8, we measure on one batch of rollouts how noisy each agent's gradient is
under four baselines: none, a state value, COMA's and the optimal one. We first measure for the untrained policy, with
a critic fitted to it, and then after some batches of training. Finally, we measure in the environment itself, by
branching its states, how much any baseline could remove, and how much of that the critic explains.

Run it with ``python tutorials/variance_on_vmas.py``. It takes about five minutes on two CPU cores and leaves its
pictures in ``runs/variance_on_vmas/``.
"""

import os
import time
from pathlib import Path

import torch
from tensordict import TensorDictBase
from torchrl.envs import EnvBase, ExplorationType, VmasEnv, set_exploration_type
from torchrl.objectives import ClipPPOLoss

from torchrl_ob import JointQCritic, ObAdvantage
from torchrl_ob.diagnostics import (
    GradientVariance,
    branch,
    critic_fit,
    critic_quality,
    gradient_variance,
    headroom,
    plot_ratios,
    plot_terms,
    plot_variance,
    true_headroom,
    variance_terms,
    visited_states,
)
from torchrl_ob.policies import policy_from_env

# %%
# Sizes
# -----
SMOKE = os.environ.get("SMOKE") == "1"  # a run of seconds that learns nothing
TEAMS = (2, 3) if SMOKE else (2, 4, 8)
SHOWN = TEAMS[1]  # the team that is looked at in detail
MAX_STEPS = 10 if SMOKE else 100  # of a trajectory
NUM_ENVS = 8 if SMOKE else 60
CRITIC_BATCHES = 1 if SMOKE else 4  # for the critic of the untrained policy
NUM_BATCHES = 1 if SMOKE else 8
NUM_EPOCHS = 1 if SMOKE else 10
MINIBATCH_SIZE = 20 if SMOKE else 400
GAMMA, LMBDA = 0.99, 0.9
RUN_DIR = Path("runs") / "variance_on_vmas"
RUN_DIR.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)


# %%
# One team: environment, policy, critic, advantage
# ------------------------------------------------
def make_env(num_agents: int) -> EnvBase:
    """*navigation*, many environments in one."""
    return VmasEnv("navigation", num_envs=NUM_ENVS, n_agents=num_agents, seed=0)


def collect(env: EnvBase, policy: torch.nn.Module) -> TensorDictBase:
    """One trajectory of every environment. Its last step is no end: the return goes on beyond."""
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        return env.rollout(MAX_STEPS, policy, break_when_any_done=False)


def train(
    env: EnvBase,
    policy: torch.nn.Module,
    advantage: ObAdvantage,
    loss: ClipPPOLoss,
    num_batches: int,
    names: list[str],
) -> None:
    """Some batches of MAPPO with the optimal baseline, on the losses of those names."""
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    for _ in range(num_batches):
        steps = advantage(collect(env, policy)).reshape(-1)
        for _ in range(NUM_EPOCHS):
            for minibatch in steps[torch.randperm(len(steps))].split(MINIBATCH_SIZE):
                losses = loss(minibatch)
                optimizer.zero_grad()
                sum(losses[name] for name in names).backward()
                torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
                optimizer.step()


# %%
# Measure, train, measure
# -----------------------
#
# ``gradient_variance`` uses the actor, critic and keys of the advantage. It computes all four baselines on the same
# batch and from the same critic, so that they differ in nothing else.
measured: dict[str, dict[int, GradientVariance]] = {"untrained": {}, "trained": {}}
for num_agents in TEAMS:
    start = time.perf_counter()
    env = make_env(num_agents)
    policy = policy_from_env(env)
    critic = JointQCritic.from_env(env)
    loss = ClipPPOLoss(
        policy,
        critic,
        entropy_coeff=1e-4,
        normalize_advantage=True,
        normalize_advantage_exclude_dims=(-2,),  # each agent's apart
    )
    advantage = ObAdvantage(actor_network=policy, value_network=critic, gamma=GAMMA, lmbda=LMBDA)
    loss.make_value_estimator(advantage)
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key, action=env.action_key)

    train(env, policy, advantage, loss, CRITIC_BATCHES, ["loss_critic"])
    first = collect(env, policy)
    measured["untrained"][num_agents] = gradient_variance(advantage, first)
    every = ["loss_critic", "loss_objective", "loss_entropy"]
    train(env, policy, advantage, loss, NUM_BATCHES, every)
    batch = collect(env, policy)
    measured["trained"][num_agents] = gradient_variance(advantage, batch)
    rewards = [b["next", env.reward_key].sum(1).mean().item() for b in (first, batch)]
    seconds = time.perf_counter() - start
    print(
        f"\n{num_agents} agents: episode reward {rewards[0]:.2f} -> {rewards[1]:.2f}, {seconds:.0f} s"
    )
    for stage in measured:
        print(f"{stage}\n{measured[stage][num_agents]}")
    if num_agents == SHOWN:
        shown = env, policy, advantage, batch

for stage, teams in measured.items():
    plot_ratios(teams).savefig(RUN_DIR / f"ratios_{stage}.png", dpi=120)

# %%
# Why: where the variance comes from
# ----------------------------------
#
# The score multiplies a return, and most of a return's noise does not come from the current joint action.
# ``headroom`` estimates from the critic how much of it does. ``critic_quality`` shows whether the critic is reliable:
# with a slope of 1, the effects of actions in Q are on the scale of returns.
env, policy, advantage, batch = shown
print(f"\n{SHOWN} agents, trained. {str(headroom(advantage, batch)).splitlines()[0]}")
quality = critic_quality(advantage, batch)
for name, estimate in quality._asdict().items():
    value, low, high = (x[0].item() for x in estimate)
    print(f"{name:19} of agent 0: {value:7.3f} [{low:.3f}, {high:.3f}]")
plot_variance(measured["trained"][SHOWN]).savefig(RUN_DIR / "variance.png", dpi=120)
plot_terms(variance_terms(advantage, batch)).savefig(RUN_DIR / "terms.png", dpi=120)

# The paper's estimator multiplies the score by Q itself, not by the return. All of the noise then comes from the
# joint action, and the baselines differ clearly; the price is that the signal contains Q's error.
advantage.signal = "critic"
print(f"with Q as the signal\n{gradient_variance(advantage, batch)}")
advantage.signal = "lambda_return"

# %%
# The truth, without a critic
# ---------------------------
#
# A VMAS state can be copied. From each of a few states, we follow many joint actions of the policy by several
# continuations each. A nested analysis of variance then gives the share of the return's variance that the joint
# action truly explains, and how much of that the critic explains.
horizons = [1, 5] if SMOKE else [1, 10, 30]
states_env, states = visited_states(
    env, policy, num_states=4 if SMOKE else 16, max_steps=MAX_STEPS // 2
)
branches = branch(
    states_env,
    states,
    policy,
    num_actions=4 if SMOKE else 16,
    num_continuations=4 if SMOKE else 16,
    horizons=horizons,
    gamma=GAMMA,
)
wide = states.unsqueeze(1).expand(len(states), branches.actions.shape[1]).contiguous()
with torch.no_grad():
    q = advantage.team.q(wide, branches.actions).squeeze(-1)
print(f"\n{SHOWN} agents, trained, by branching {len(states)} states")
for horizon, returns in zip(horizons, branches.returns, strict=True):
    truth, fit = true_headroom(returns), critic_fit(q.double(), returns)
    value, low, high = (x[0].item() for x in truth)
    print(
        f"horizon {horizon:2}: the joint action explains {value:5.1%} [{low:.1%}, {high:.1%}] of the "
        f"return's variance; the critic's R2 {fit.r2.value[0]:.2f}, captured {fit.captured.value[0]:.2f}"
    )
print(f"\npictures: {RUN_DIR}")
