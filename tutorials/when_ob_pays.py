"""When the optimal baseline pays, and when it cannot
==================================================

Each of n agents observes its own context and picks one of three actions. Together they are paid the sum of their
contributions. For any one agent, the contributions of the n - 1 others are noise, and the noise grows with the number
of agents. A state value leaves that noise in the gradient. A baseline that depends on the others' actions, such as
COMA's or the optimal one (OB), removes it.

Part 1 measures the variance of the gradient for n = 2 to 32 and compares it with theory. Part 2 shows when there is
nothing to remove. Part 3 trains with no baseline, a state value, COMA and OB, from paired seeds, in teams of 2, 8 and
32 and on a task without headroom, on which they should tie. Part 4 trains a team of eight on VMAS navigation, where
the actions of the others' past and future are noise too, and the reward is split between the agents.

Run it with ``python tutorials/when_ob_pays.py``. It takes about five minutes on two CPU cores and leaves its
pictures in ``runs/``.

.. image:: /images/when_ob_pays.png
   :alt: Variance and learning over the number of agents
"""

import os
import time
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("agg")  # draws to files: no screen needed

import matplotlib.pyplot as plt
import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor
from torchrl.data import Categorical, Composite, OneHot, Unbounded
from torchrl.envs import EnvBase, ExplorationType, VmasEnv, set_exploration_type
from torchrl.modules import ProbabilisticActor, RunningValueNorm
from torchrl.objectives import A2CLoss, ClipPPOLoss
from torchrl.objectives.value import MultiAgentGAE

from torchrl_ob import (
    ComaAdvantage,
    JointAdvantage,
    JointQCritic,
    MapgAdvantage,
    ObAdvantage,
    StateValue,
    StreamAdvantage,
    policy_from_env,
)
from torchrl_ob.diagnostics import (
    coma_baseline,
    gradient_moments,
    gradient_variance,
    headroom,
    optimal_baseline,
)

# %%
# Sizes
# -----
#
# SMOKE=1 runs the same script in seconds, with sizes too small to learn anything.
SMOKE = os.environ.get("SMOKE") == "1"
TEAMS = [2, 4] if SMOKE else [2, 4, 8, 16, 32]  # numbers of agents whose variance is measured
TRAINED = [2, 4] if SMOKE else [2, 8, 32]  # and that are trained
SEEDS = range(2 if SMOKE else 8)  # of the results
TUNING_SEEDS = range(100, 101 if SMOKE else 104)  # others, for the choice of the learning rate
LEARNING_RATES = [0.1, 0.3, 1.0]
NUM_UPDATES = 3 if SMOKE else 40
NUM_EPISODES = 32  # in a batch: small, so that noise matters
CRITIC_LEARNING_RATE = 3e-3
WARM_UP = 5 if SMOKE else 300  # batches that teach the critic before the team learns
MEASURED_EPISODES = 64 if SMOKE else 4_096
STATE_VALUE_DRAWS = 16
PICTURE = Path("runs") / "when_ob_pays.png"
CURVES = Path("runs") / "when_ob_pays_curves.png"

# %%
# The game
# --------
#
# Each agent plays the toy game of the paper, Q = (2, 1, 100), here divided by 100. Which of the two rare actions is
# valuable depends on the context that the agent observes. The team starts with the paper's policy, (0.8, 0.1, 0.1),
# as its habit: the valuable action is rare.
PAYOFF = torch.tensor([[2.0, 100.0, 1.0], [2.0, 1.0, 100.0]]) / 100  # [context, action]
HABIT = torch.tensor([0.8, 0.1, 0.1])
NUM_CONTEXTS, NUM_ACTIONS = PAYOFF.shape


class Task(NamedTuple):
    """The parameters in which the tasks differ; the game is the same."""

    num_agents: int
    num_steps: int = 1  # of an episode
    noise: float = 0.0  # standard deviation of what chance adds to the team's reward
    num_episodes: int = NUM_EPISODES  # in a batch


class SumGame(EnvBase):
    """The team is paid the sum of its agents' contributions; contexts are drawn anew at each step.

    The group is called "agents": its observations are one-hot contexts ``[B, n, 2]``, its actions integers
    ``[B, n]``. The reward ``[B, 1]`` is the team's, and the global state ``[B, 1]`` is the number of remaining steps.
    """

    def __init__(self, task: Task, num_envs: int) -> None:
        super().__init__(batch_size=[num_envs])
        self.task = task
        self.team = (num_envs, task.num_agents)
        observation = OneHot(NUM_CONTEXTS, (*self.team, NUM_CONTEXTS), dtype=torch.float32)
        self.observation_spec = Composite(
            agents=Composite(observation=observation, shape=self.team),
            state=Unbounded((num_envs, 1)),
            shape=(num_envs,),
        )
        action = Categorical(NUM_ACTIONS, self.team)
        self.action_spec = Composite(
            agents=Composite(action=action, shape=self.team), shape=(num_envs,)
        )
        self.reward_spec = Unbounded((num_envs, 1))

    def _observe(self, steps_left: Tensor) -> TensorDict:
        context = torch.randint(NUM_CONTEXTS, self.team)
        observation = torch.nn.functional.one_hot(context, NUM_CONTEXTS).float()
        agents = TensorDict({"observation": observation}, self.team)
        return TensorDict({"agents": agents, "state": steps_left}, self.batch_size)

    def _reset(self, tensordict: TensorDictBase | None = None) -> TensorDict:
        return self._observe(torch.full((*self.batch_size, 1), float(self.task.num_steps)))

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        context = tensordict["agents", "observation"].argmax(-1)
        contribution = PAYOFF[context, tensordict["agents", "action"]]
        reward = contribution.sum(-1, keepdim=True)
        following = self._observe(tensordict["state"] - 1)
        done = following["state"] == 0
        chance = self.task.noise * torch.randn_like(reward)
        return following.update({"reward": reward + chance, "done": done, "terminated": done})

    def _set_seed(self, seed: int | None) -> None:
        if seed is not None:
            torch.manual_seed(seed)


# %%
# Policy and critic
# -----------------
#
# A policy is a table of logits for each agent, and the agents share no parameters. The gradient with respect to the
# logits, whose variance OB minimizes, is then the gradient with respect to the parameters.
class Table(torch.nn.Module):
    """Logits of each agent's actions in its context: ``[*B, n, 2]`` to ``[*B, n, 3]``."""

    def __init__(self, num_agents: int) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(HABIT.log().repeat(num_agents, NUM_CONTEXTS, 1))

    def forward(self, context: Tensor) -> Tensor:
        """Pick the row of the context."""
        return torch.einsum("...nc,nca->...na", context, self.logits)


def make_policy(num_agents: int) -> ProbabilisticActor:
    """The team's policy, at its habit."""
    logits = ("agents", "logits")
    return ProbabilisticActor(
        TensorDictModule(Table(num_agents), [("agents", "observation")], [logits]),
        in_keys=[logits],
        out_keys=[("agents", "action")],
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True,
    )


def collect(env: SumGame, policy: ProbabilisticActor) -> TensorDictBase:
    """An episode of the policy in each environment, ``[episodes, time]``."""
    # outside a collector, a policy acts deterministically by default
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        return env.rollout(env.task.num_steps, policy)


# %%
# The four estimators
# -------------------
#
# The four estimators have the same critic and the same signal, the return; they differ only in the baseline. With
# lmbda=1, nothing is bootstrapped, so a critic's error can reach the gradient only through the baseline, where it
# causes no bias. For the state value, we average that critic's Q over joint actions of the policy: V(s) = E_a[Q(s,
# a)]. A network trained to predict V would do the same with errors of its own. (In practice, V is such a network,
# with TorchRL's GAE or MultiAgentGAE.)
class StateValueAdvantage(JointAdvantage):
    """The return less V(s), estimated as a mean over 16 joint actions, which adds a sixteenth of Q's variance."""

    def baseline(self, tensordict: TensorDictBase) -> Tensor:
        """V(s), ``[*B, n, 1]``."""
        with torch.random.fork_rng(devices=[]):  # leaves the seeds paired
            drawn = self.team.policy(tensordict).sample([STATE_VALUE_DRAWS])
            copies = tensordict.select(*self.team.critic.in_keys).expand(drawn.shape[:3])
            return self.team.q(copies, drawn).mean(0)


ESTIMATORS = {
    "none": MapgAdvantage,
    "V": StateValueAdvantage,
    "COMA": ComaAdvantage,
    "OB": ObAdvantage,
}


def make_advantage(name: str, policy: ProbabilisticActor, critic: JointQCritic) -> JointAdvantage:
    """One of the four, by name."""
    return ESTIMATORS[name](actor_network=policy, value_network=critic, gamma=1.0, lmbda=1.0)


def make_loss(policy: ProbabilisticActor, critic: JointQCritic, name: str) -> A2CLoss:
    """TorchRL's actor-critic loss, with the advantage of that name."""
    # Advantages are not standardized, by A2CLoss's default: that would subtract one more baseline.
    loss = A2CLoss(policy, critic, entropy_bonus=False, loss_critic_type="l2")
    loss.make_value_estimator(make_advantage(name, policy, critic))
    loss.set_keys(value=critic.out_keys[0], reward="reward", action=("agents", "action"))
    return loss


# %%
# Warming up the critic
# ---------------------
#
# Before the team learns, the critic learns the team's habit. Every estimator and every seed then starts from the same
# weights. A sum of n contributions has a mean of order n, and the network would take long to reach it. A value norm
# lets the network work at unit scale for any n; we set its statistics once, from the first batch. The network's ReLUs
# extrapolate linearly beyond the training data, which suits a sum.
def warmed_up_critic(task: Task) -> JointQCritic:
    """A critic of the joint action that has learned the task at the team's habit."""
    torch.manual_seed(0)
    policy = make_policy(task.num_agents)
    env, norm = SumGame(task, num_envs=256), RunningValueNorm(shape=1)
    critic = JointQCritic.from_env(env, hidden_dim=32, activation=torch.nn.ReLU, value_norm=norm)
    loss = make_loss(policy, critic, "none")
    optimizer = torch.optim.Adam(critic.backbone.parameters(), lr=CRITIC_LEARNING_RATE)
    for k in range(WARM_UP):
        batch = collect(env, policy)
        loss.value_estimator(batch)
        if k == 0:
            norm.update(batch["value_target"])
        optimizer.zero_grad()
        loss(batch.reshape(-1))["loss_critic"].backward()
        optimizer.step()
    return critic


# %%
# The exact variance
# ------------------
#
# The game is additive, so everything can be enumerated, with the agent's own part apart from the others' part. Let X
# be agent i's signal. The agent's own contribution, less the part of the baseline that belongs to it, is a game of
# one agent. The rest is what the baseline leaves of the others' contributions, of later steps and of random rewards.
# It is independent of the agent's own action, and adds its variance times E[w], where w is the squared length of the
# score.
def theory(task: Task) -> dict[str, float]:
    """Exact variance of one agent's gradient, for each estimator and a perfect critic."""
    expected = (PAYOFF @ HABIT).mean()  # of a contribution, in either context
    spread = (PAYOFF.square() @ HABIT).mean() - expected.square()
    score_norm = 1 - HABIT.square().sum()  # E[w] of a softmax
    total = dict.fromkeys(ESTIMATORS, 0.0)
    for steps_later in range(task.num_steps):
        others, later = task.num_agents - 1, task.num_agents * steps_later  # contributions
        beyond = later * spread + task.noise**2  # out of reach of any of the baselines
        for own in PAYOFF:
            mean_own = coma_baseline(own, [HABIT], 0)
            cases = {  # own part of the baseline, and variance of what it leaves of the rest
                "none": (-(others + later) * expected, beyond + others * spread),
                "V": (mean_own, beyond + others * spread),
                "COMA": (mean_own, beyond),
                "OB": (optimal_baseline(own, [HABIT], 0), beyond),
            }
            for name, (baseline, rest) in cases.items():
                mean, variance = gradient_moments(own - baseline, [HABIT], 0)
                second_moment = variance + mean.square().sum() + rest * score_norm
                total[name] += second_moment.item() / (task.num_steps * NUM_CONTEXTS)
    gradients = [gradient_moments(own, [HABIT], 0).mean for own in PAYOFF]
    squared_mean = torch.stack(gradients).mean(0).square().sum().item()
    return {name: second_moment - squared_mean for name, second_moment in total.items()}


# %%
# 1. The variance as the team grows
# ---------------------------------
#
# On the same batch, from the initial policy, we measure the variance of each agent's gradient under every baseline.
# Theory and measurement agree. Without a baseline, the variance grows with the square of n (the team's mean reward
# grows too); under V it grows with n, and under COMA and OB it does not grow. OB has a third less variance than COMA,
# for every n.
class Measured(NamedTuple):
    """What was measured of a task at the team's habit."""

    critic: JointQCritic
    variance: dict[str, float]  # mean over agents, for each estimator
    first_agent: dict[str, tuple[float, float, float]]  # the first agent's, with its interval
    ratio: dict[str, tuple[float, float, float]]  # over OB's, with its interval
    words: str  # what headroom says of the first agent


def measure(task: Task) -> Measured:
    """Warm up a critic, and measure on a large batch."""
    critic, policy = warmed_up_critic(task), make_policy(task.num_agents)
    batch = collect(SumGame(task, MEASURED_EPISODES), policy)
    advantage = make_advantage("OB", policy, critic)
    result = gradient_variance(advantage, batch)
    return Measured(
        critic,
        {name: result.variance[name.lower()].value.mean().item() for name in ESTIMATORS},
        {name: tuple(x[0].item() for x in result.variance[name.lower()]) for name in ESTIMATORS},
        {name: tuple(x.item() for x in result.ratio[name.lower()]) for name in ESTIMATORS},
        str(headroom(advantage, batch)).splitlines()[0],
    )


def print_variances(tasks: dict[str, Task]) -> dict[Task, Measured]:
    """Measure the tasks and print a line of each, theory's value in brackets."""
    measured = {}
    header = "".join(f"{name:>10}{'':7}" for name in ESTIMATORS)
    print(f"{'':15}{header}{'V / OB':>12}{'COMA / OB':>21}")
    for label, task in tasks.items():
        measured[task] = result = measure(task)
        exact = theory(task)
        cells = (f"{result.variance[name]:8.3f} {f'({exact[name]:.3f})':8}" for name in ESTIMATORS)
        ratios = (
            f"{value:7.2f} [{low:.2f}, {high:.2f}]"
            for value, low, high in (result.ratio["V"], result.ratio["COMA"])
        )
        print(f"{label:15}" + "".join(cells) + " ".join(ratios))
    return measured


start = time.perf_counter()
print("1. Variance of an agent's gradient at the initial policy, measured (and exact)")
measured = print_variances({f"n = {n}": Task(n) for n in TEAMS})

# %%
# 2. When there is nothing to take out
# ------------------------------------
#
# The tasks above have one step, where the return is what the current joint action brings. A baseline of the current
# actions removes neither the noise of later actions nor random rewards. Longer episodes have more noise from later
# actions: OB's variance now grows with n too, and the ratio of V's to OB's falls towards one. In a game with a noisy
# reward, nearly all of the variance is random. ``headroom`` shows this from one batch, before any policy is trained.
#
# The exact values assume a perfect critic. With 16 steps, our critic learns an agent's own action from returns in
# which that action hardly shows, and OB gives large weights to the rare actions, for which the critic has the least
# data. OB then has slightly *more* variance than COMA. Optimal means optimal for the critic's Q.
LONG = Task(TRAINED[1], num_steps=16)
NOISY = Task(2, noise=3.0, num_episodes=NUM_EPISODES if SMOKE else 512)
n = LONG.num_agents
print("\n2. The same in longer episodes, and where the reward is mostly chance")
longer = {f"n = {n}, {steps} steps": LONG._replace(num_steps=steps) for steps in (2, 4, 16)}
measured |= print_variances(longer | {"n = 2, noise": NOISY})
print("\nIn words, at the first agent (estimates: a sum of shares may pass 100%):")
for label, task in {f"n = {n}, 1 step": Task(n), **longer, "n = 2, noise": NOISY}.items():
    print(f"{label}: {measured[task].words}")


# %%
# 3. Learning
# -----------
#
# Each batch has one step of Adam, for the actor and the critic alike. Batches are small: 32 episodes. No estimator
# would learn the noisy task from so few, so it has 512. The measure of success is exact: the expected contribution of
# an agent, at most 1, from the table of its policy.
def train(name: str, task: Task, learning_rate: float, seed: int) -> Tensor:
    """Expected contribution of an agent before training and after each update, ``[updates + 1]``."""
    torch.manual_seed(seed)
    policy, critic = make_policy(task.num_agents), deepcopy(measured[task].critic)
    env, loss = SumGame(task, task.num_episodes), make_loss(policy, critic, name)
    optimizer = torch.optim.Adam(
        [
            {"params": policy.parameters(), "lr": learning_rate},
            {"params": critic.backbone.parameters(), "lr": CRITIC_LEARNING_RATE},
        ]
    )
    (logits,) = policy.parameters()
    curve = [(logits.detach().softmax(-1) * PAYOFF).sum(-1).mean()]
    for _ in range(NUM_UPDATES):
        batch = collect(env, policy)
        loss.value_estimator(batch)
        losses = loss(batch.reshape(-1))
        optimizer.zero_grad()
        (losses["loss_objective"] + losses["loss_critic"]).backward()
        optimizer.step()
        curve.append((logits.detach().softmax(-1) * PAYOFF).sum(-1).mean())
    return torch.stack(curve)


def interquartile_mean(scores: Tensor) -> Tensor:
    """Mean of the middle half, over the first dimension."""
    cut = len(scores) // 4
    return scores.sort(0).values[cut : len(scores) - cut].mean(0)


def interval(scores: Tensor, num_resamples: int = 2_000) -> tuple[Tensor, Tensor, Tensor]:
    """Interquartile mean over seeds, and its 95% interval by resampling the seeds: percentiles."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(scores), (len(scores), num_resamples), generator=generator)
    resampled = interquartile_mean(scores[drawn])
    low, high = resampled.quantile(torch.tensor([0.025, 0.975]), 0)
    return interquartile_mean(scores), low, high


def show(scores: Tensor) -> str:
    """A number of each seed, as text."""
    value, low, high = (x.item() for x in interval(scores))
    return f"{value:6.3f} [{low:6.3f}, {high:6.3f}]"


# On each task, each estimator has the best of three learning rates: the one whose teams contribute most over
# training, on four seeds that the results do not use. The eight seeds of the results are paired: a seed gives every
# estimator the same initial weights and the same random numbers.
#
# As the team grows, V falls behind because of the others' noise, and the estimator without a baseline falls further
# behind. OB and COMA both remove this noise and learn alike. OB also reduces the noise of the agent's own action, but
# in this game that noise hardly misleads: the action that pays most is pushed up whenever it is sampled. If the
# reward is mostly random, all four tie.
TASKS = {**{f"n = {n}": Task(n) for n in TRAINED}, "n = 2, noise": NOISY}
curves: dict[str, dict[str, Tensor]] = {}  # of each task and estimator, [seeds, updates + 1]
print(f"\n3. Expected contribution of an agent: {len(SEEDS)} paired seeds, interquartile mean, 95%")
for label, task in TASKS.items():
    curves[label] = {}
    print(f"\n{label:13} rate    mean over training       after training")
    for name in ESTIMATORS:
        tried = {
            rate: sum(train(name, task, rate, seed).mean().item() for seed in TUNING_SEEDS)
            for rate in LEARNING_RATES
        }
        best = max(tried, key=tried.__getitem__)
        curve = torch.stack([train(name, task, best, seed) for seed in SEEDS])
        curves[label][name] = curve
        print(f"{name:13} {best:4}  {show(curve.mean(1))}  {show(curve[:, -1])}")
    for name in ("none", "V", "COMA"):
        gain = curves[label]["OB"] - curves[label][name]
        print(f"{'OB - ' + name:13}       {show(gain.mean(1))}  {show(gain[:, -1])}")

# %%
# 4. A team of eight on VMAS navigation
# -------------------------------------
#
# Each agent moves to a goal of its own and is paid the mean of the team's rewards at every step. An agent's return
# then contains what seven others earn from now to the end of the episode. OB subtracts what its critic explains of
# the others' *current* actions, which is little: a critic that is fitted to returns learns late which agent's action
# brought a reward.
# ``StreamAdvantage`` fits a model to the rewards of single steps, pays each agent its own share of them, and has the
# optimal baseline on these shares. The control is TorchRL's GAE with V of the same network.
NUM_STEPS, NUM_ENVS, NUM_BATCHES = (10, 2, 1) if SMOKE else (100, 30, 6)
NUM_EPOCHS, MINIBATCH_SIZE = (1, 10) if SMOKE else (15, 400)
DECAY = {"gamma": 0.99, "lmbda": 0.9}


def train_team(name: str, seed: int = 0) -> list[float]:
    """Mean over episodes of the sum of the team's rewards, in each batch."""
    torch.manual_seed(seed)
    env = VmasEnv("navigation", num_envs=NUM_ENVS, n_agents=8, shared_rew=False, seed=seed)
    policy = policy_from_env(env)
    critic = StateValue.from_env(env) if name == "V" else JointQCritic.from_env(env)
    networks = {"actor_network": policy, "value_network": critic}
    if name == "V":
        advantage = MultiAgentGAE(value_network=critic, **DECAY)
    elif name == "OB":
        advantage = ObAdvantage(**networks, **DECAY)
    else:
        advantage = StreamAdvantage.from_env(env, **networks, **DECAY)
    loss = ClipPPOLoss(
        policy, critic, normalize_advantage=True, normalize_advantage_exclude_dims=(-2,)
    )
    loss.make_value_estimator(advantage)
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key, action=env.action_key)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3, fused=True)
    reward_key, rewards = ("next", *env.reward_key), []
    for _ in range(NUM_BATCHES):
        with set_exploration_type(ExplorationType.RANDOM), torch.no_grad():
            batch = env.rollout(NUM_STEPS, policy, break_when_any_done=False)
        own = batch[reward_key]
        batch[reward_key] = own.mean(-2, keepdim=True).expand_as(own).clone()  # the team's
        rewards.append(own.mean().item() * NUM_STEPS)
        steps = advantage(batch).reshape(-1)
        for _ in range(NUM_EPOCHS):
            for index in torch.randperm(len(steps)).split(MINIBATCH_SIZE):
                losses = loss(steps[index])
                sum(x for key, x in losses.items() if key.startswith("loss_")).backward()
                torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
    return rewards


print(
    f"\n4. Navigation with eight agents: reward of an episode in each of {NUM_BATCHES} batches, one seed"
)
for name in ("V", "OB", "streams"):
    print(f"{name:8}", *(f"{reward:6.2f}" for reward in train_team(name)))

# %%
# One seed shows the direction; the benchmark page on team rewards has more seeds and tasks, and those that the split
# does not help.
#
# Pictures
# --------
#
# Where COMA and OB tie, their lines coincide: COMA is drawn as a broad line and OB as a thin dashed line on top of
# it, and the points of one team are drawn side by side. Bars and bands are 95% intervals.
styles = {
    "none": {"color": "tab:gray", "marker": "x"},
    "V": {"color": "tab:blue", "marker": "s"},
    "COMA": {"color": "tab:orange", "marker": "o", "linewidth": 5, "alpha": 0.5, "markersize": 9},
    "OB": {"color": "tab:green", "marker": "D", "linestyle": "--", "markersize": 5},
}


def side_by_side(position: int) -> Tensor:
    """Where an estimator's points stand at each team on a logarithmic axis."""
    return torch.tensor(TRAINED) * 1.08 ** (position - 1.5)


figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for position, (name, style) in enumerate(styles.items()):
    exact = [theory(Task(n))[name] for n in TEAMS]
    left.plot(TEAMS, exact, label=name, **style | {"marker": ""})
    found = torch.tensor([measured[Task(n)].first_agent[name] for n in TEAMS]).T
    errors = torch.stack([found[0] - found[1], found[2] - found[0]])
    points = {"color": style["color"], "marker": style["marker"], "linestyle": "", "capsize": 3}
    left.errorbar(TEAMS, found[0], errors, **points)
    areas = torch.stack([curves[f"n = {n}"][name].mean(1) for n in TRAINED], 1)
    value, low, high = interval(areas)
    right.errorbar(
        side_by_side(position),
        value,
        torch.stack([value - low, high - value]),
        label=name,
        **points,
    )
left.set(title="noise: exact (lines) and measured (points)", yscale="log")
left.set(ylabel="variance of an agent's gradient")
right.set(title=f"learning: mean over {NUM_UPDATES} updates", ylim=(None, 1))
right.set(ylabel="contribution of an agent (at most 1)")
for panel, teams in ((left, TEAMS), (right, TRAINED)):
    panel.set(xlabel="number of agents", xscale="log")
    panel.set_xticks(teams, map(str, teams))
    panel.minorticks_off()
    panel.grid(alpha=0.3)
    panel.legend()
PICTURE.parent.mkdir(exist_ok=True)
figure.savefig(PICTURE, dpi=120)

figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
for panel, label in zip(panels, (f"n = {TRAINED[-1]}", "n = 2, noise"), strict=True):
    for name, style in styles.items():
        value, low, high = interval(curves[label][name])
        updates = torch.arange(NUM_UPDATES + 1)
        panel.plot(updates, value, label=name, **style | {"marker": ""})
        panel.fill_between(updates, low, high, color=style["color"], alpha=0.2)
    panel.set(title=f"learning, {label}", xlabel="updates")
    panel.grid(alpha=0.3)
    panel.legend()
panels[0].set_ylabel("contribution of an agent (at most 1)")
figure.savefig(CURVES, dpi=120)
print(f"\n{time.perf_counter() - start:.0f} s; pictures: {PICTURE}, {CURVES}")

# sphinx_gallery_thumbnail_path = "images/when_ob_pays.png"
