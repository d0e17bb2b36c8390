"""A baseline and a critic of your own
===================================

The library has three advantages: ``ObAdvantage`` with the optimal baseline (OB), ``ComaAdvantage`` with COMA's
baseline, and ``MapgAdvantage`` with no baseline. A *baseline* is subtracted from an agent's return before the return
multiplies the score, which is the gradient of the log-probability. If the baseline does not depend on the agent's own
action, it changes only the variance of the gradient, not its mean.

This tutorial adds a fourth advantage, in one method, and uses a critic that the library does not know:

- the baseline is Q with the agent's own action at zero and the others' actions as they were. The advantage is then
  the difference that the agent's own action made, an old idea in multi-agent learning: *difference rewards* (Wolpert
  and Tumer, 2001);
- the critic is an attention network over the agents, in a plain ``TensorDictModule``.

The team is VMAS's *navigation*: three agents, each with its own goal, and a force in two dimensions as the action.
Run it with ``python tutorials/own_baseline_and_critic.py``. It takes about a minute on two CPU cores and leaves a
picture in ``runs/own_baseline_and_critic``.

.. image:: /images/own_baseline_and_critic.png
   :alt: Learning with an own baseline and critic, and the variance of the gradient under three baselines
"""

import os
from pathlib import Path

import matplotlib

matplotlib.use("agg")  # draws to files: no screen needed

import matplotlib.pyplot as plt
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule
from torch import Tensor
from torchrl.collectors import Collector
from torchrl.envs import RewardSum, StepCounter, TransformedEnv, VmasEnv
from torchrl.objectives import ClipPPOLoss

from torchrl_ob import (
    ComaAdvantage,
    JointAdvantage,
    MapgAdvantage,
    ObAdvantage,
    policy_from_env,
)

# %%
# Sizes
# -----
#
# SMOKE=1 runs the same script in seconds, with sizes too small to learn anything.
SMOKE = os.environ.get("SMOKE") == "1"
NUM_AGENTS = 3
MAX_STEPS = 10 if SMOKE else 100  # length of an episode
FRAMES_PER_BATCH = 40 if SMOKE else 6_000  # one frame is one step of the whole team
NUM_BATCHES = 2 if SMOKE else 8
NUM_EPOCHS = 1 if SMOKE else 10
MINIBATCH_SIZE = 20 if SMOKE else 400
NUM_RESAMPLES = 1_000  # for the intervals
OPTIONS = {"gamma": 0.99, "lmbda": 0.9}  # discount, and decay of the return's trace
FOLDER = Path("runs") / "own_baseline_and_critic"
torch.manual_seed(0)

env = TransformedEnv(
    VmasEnv("navigation", num_envs=FRAMES_PER_BATCH // MAX_STEPS, n_agents=NUM_AGENTS, seed=0),
    StepCounter(max_steps=MAX_STEPS),  # a time limit: the return goes on beyond it
)
env.append_transform(RewardSum(in_keys=[env.reward_key], out_keys=[("agents", "episode_reward")]))
policy = policy_from_env(env)


# %%
# The critic
# ----------
#
# Any module works that reads the observations and the joint action and writes one value for each agent,
# ``[*B, n, 1]``. For the baseline, the library evaluates it at *other* own actions, which are substituted into copies
# of its inputs, one agent at a time. The module must therefore be a function of a single step, without a memory in
# time. (``JointQCritic`` is faster, because it computes the part that does not depend on the agent's own action only
# once. Your own network inside it is a *backbone*, see :doc:`/how_to/own_critic`.)
class AttentionCritic(torch.nn.Module):
    """Q of each agent, from what it observes and does and what it attends to of the others."""

    def __init__(self, observation_dim: int, action_dim: int, width: int = 64) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(observation_dim + action_dim, width)
        self.attend = torch.nn.MultiheadAttention(width, num_heads=4, batch_first=True)
        self.out = torch.nn.Sequential(
            torch.nn.Linear(2 * width, width), torch.nn.Tanh(), torch.nn.Linear(width, 1)
        )

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """``[*B, n, o]`` and ``[*B, n, d]`` to ``[*B, n, 1]``."""
        tokens = self.embed(torch.cat([observation, action], -1)).tanh()
        flat = tokens.flatten(0, -3)  # attention takes one batch dimension
        attended, _ = self.attend(flat, flat, flat, need_weights=False)
        return self.out(torch.cat([flat, attended], -1)).unflatten(0, tokens.shape[:-2])


observation_dim = env.observation_spec_unbatched["agents", "observation"].shape[-1]
action_dim = env.full_action_spec_unbatched[env.action_key].shape[-1]
critic = TensorDictModule(
    AttentionCritic(observation_dim, action_dim),
    in_keys=[("agents", "observation"), env.action_key],
    out_keys=[("agents", "q")],
)


# %%
# The baseline
# ------------
#
# ``baseline`` is the only method that a custom advantage needs. It receives some trajectories of the batch and
# returns ``[*B, n, 1]``. It calls ``self.team``, which holds the actor, the critic and the keys:
#
# - ``team.q_candidates(batch, actions)``: Q of K alternative own actions ``[*B, n, K, *event]``, with the others'
#   actions as they were, ``[*B, n, K]``;
# - ``team.candidates(batch, acting=True)``: own actions that represent the policy's distribution, ``.actions``, with
#   their ``.probabilities``; Σ probabilities · Q is COMA's baseline, and Σ ``.optimal_weights`` · Q is OB;
# - ``team.q(batch)``, ``team.v(batch)``: Q of the joint action taken, and its mean over the policies.
#
# The base class handles returns, time limits, keys, masks and chunks.
class DifferenceAdvantage(JointAdvantage):
    """The return less Q where the agent does nothing and the others act as they did."""

    def baseline(self, tensordict: TensorDictBase) -> Tensor:
        """Q(s, a with the own action at zero), ``[*B, n, 1]``."""
        nothing = torch.zeros_like(tensordict[self.team.action_key]).unsqueeze(-2)
        return self.team.q_candidates(tensordict, nothing)


# %%
# In a pipeline, it replaces ``ObAdvantage`` and accepts the same arguments.
loss = ClipPPOLoss(
    policy,
    critic,
    entropy_coeff=1e-4,
    normalize_advantage=True,
    normalize_advantage_exclude_dims=(-2,),  # each agent's apart
)
loss.set_keys(value=critic.out_keys[0], reward=env.reward_key, action=env.action_key)
advantage = DifferenceAdvantage.for_loss(loss, **OPTIONS)
loss.make_value_estimator(advantage)

# %%
# Training
# --------
optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=NUM_BATCHES)
collector = Collector(
    env,
    policy,
    frames_per_batch=FRAMES_PER_BATCH,
    total_frames=FRAMES_PER_BATCH * NUM_BATCHES,
    auto_register_policy_transforms=False,
)
rewards = []  # of the episodes, [batches][episodes]
for number, batch in enumerate(collector, start=1):
    steps = advantage(batch).reshape(-1)
    for _ in range(NUM_EPOCHS):
        for index in torch.randperm(len(steps)).split(MINIBATCH_SIZE):
            terms = loss(steps[index])
            total = terms["loss_objective"] + terms["loss_critic"] + terms["loss_entropy"]
            optimizer.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
            optimizer.step()
    scheduler.step()
    done = batch["next", "done"].squeeze(-1)
    rewards.append(batch["next", "agents", "episode_reward"][done].mean((-2, -1)))
    print(f"batch {number:2}: reward of an episode {rewards[-1].mean():.2f}")
collector.shutdown()

# %%
# Two laws, checked
# -----------------
#
# The advantage writes its baseline under ``("agents", "baseline")``. Exchange agent 0's actions between the
# environments. Its own baseline must not change, or the gradient would be biased. The baselines of the others must
# change, or the noise of agent 0's actions would remain in their gradients.
before = advantage(batch.copy())["agents", "baseline"]
changed = batch.copy()
action = changed[env.action_key].clone()
action[:, :, 0] = action[:, :, 0].roll(1, 0)
changed[env.action_key] = action
moved = (advantage(changed)["agents", "baseline"] - before).abs().mean((0, 1)).squeeze(-1)
print("mean change of the baselines:", ", ".join(f"agent {i} {x:.4f}" for i, x in enumerate(moved)))
assert moved[0] < 1e-5
assert moved[1:].min() > moved[0]

# %%
# The variance of the gradient
# ----------------------------
#
# This cell compares four baselines on the same batch and critic. An agent's gradient at one step is its score times
# its advantage; automatic differentiation gives the score in the location and scale of the policy's Gaussian. The
# comparison is made twice: with the *return* as the signal, as in training, and with Q as the signal
# (``signal="critic"``), as the paper writes the estimators. The intervals come from resampling trajectories; the
# ratio to OB is computed within each resample.
psi = {name: batch["agents", name].clone().requires_grad_() for name in ("loc", "scale")}
acted = batch.copy()
for name, value in psi.items():
    acted["agents", name] = value
log_prob = policy[-1].get_dist(acted).log_prob(batch[env.action_key])
score = torch.cat(torch.autograd.grad(log_prob.sum(), list(psi.values())), -1)


def moments(kind: type[JointAdvantage], signal: str) -> Tensor:
    """First and second moment of the gradient in each trajectory, ``[trajectories, 2, n, D]``."""
    torch.manual_seed(0)  # the same next actions in the return of all four
    estimator = kind(actor_network=policy, value_network=critic, signal=signal, **OPTIONS)
    estimator.set_keys(reward=env.reward_key)
    gradient = score * estimator(batch.copy())["advantage"]
    return torch.stack([gradient.mean(1), gradient.square().mean(1)], 1)


def variance(of_trajectories: Tensor) -> Tensor:
    """Mean over the agents of the variance of their gradients; trajectories are the first dimension."""
    mean, square = of_trajectories.mean(0).unbind(-3)
    return (square - mean.square()).sum(-1).mean(-1)


KINDS = {
    "none": MapgAdvantage,
    "difference": DifferenceAdvantage,
    "COMA": ComaAdvantage,
    "OB": ObAdvantage,
}
ratios = {}  # over OB's variance: value, low, high
for signal in ("lambda_return", "critic"):
    found = {name: moments(kind, signal) for name, kind in KINDS.items()}
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(batch), (len(batch), NUM_RESAMPLES), generator=generator)
    print(f'signal="{signal}": variance over OB\'s')
    for name, values in found.items():
        ratio = variance(values) / variance(found["OB"])
        resampled = torch.stack([variance(values[d]) / variance(found["OB"][d]) for d in drawn.T])
        low, high = resampled.quantile(torch.tensor([0.025, 0.975]))
        ratios[signal, name] = ratio.item(), low.item(), high.item()
        print(f"  {name:10} {ratio:8.3f} [{low:.3f}, {high:.3f}]")

# %%
# The picture
# -----------
#
# Without a baseline, the variance is tens or thousands of times that of OB, and off the scale. With Q as the signal,
# OB has the smallest variance, as theory predicts. With the return as the signal, it does not: most of a return's
# noise comes from later actions, which no baseline of the current actions removes (:doc:`/concepts/limits`), and the
# three are close. The band is a 95% interval over episodes.
FOLDER.mkdir(parents=True, exist_ok=True)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
frames = torch.arange(1, NUM_BATCHES + 1) * FRAMES_PER_BATCH
mean = torch.stack([x.mean() for x in rewards])
half = torch.stack([1.96 * x.std() / len(x) ** 0.5 for x in rewards])
left.plot(frames, mean, marker="o", label="difference baseline, attention critic")
left.fill_between(frames, mean - half, mean + half, alpha=0.2)
left.set(title="VMAS navigation", xlabel="frames (steps of the team)")
left.set_ylabel("reward of an episode, mean over agents")
left.grid(alpha=0.3)
left.legend()
shown = [name for name in KINDS if name != "none"]
for offset, (signal, label) in zip(
    (-0.1, 0.1), (("lambda_return", "signal: the return"), ("critic", "signal: Q")), strict=True
):
    value, low, high = torch.tensor([ratios[signal, name] for name in shown]).T
    places, errors = torch.arange(len(shown)) + offset, torch.stack([value - low, high - value])
    right.errorbar(places, value, errors, marker="o", linestyle="", capsize=3, label=label)
right.axhline(1, color="black", linewidth=0.8)
right.set_xticks(range(len(shown)), shown)
right.set(title="variance of the gradient", xlabel="baseline", xlim=(-0.5, len(shown) - 0.5))
right.set_ylabel("variance, over that under OB")
right.grid(alpha=0.3, axis="y")
right.legend()
figure.savefig(FOLDER / "own.png", dpi=100)
print(f"picture: {FOLDER / 'own.png'}")

# sphinx_gallery_thumbnail_path = "images/own_baseline_and_critic.png"
