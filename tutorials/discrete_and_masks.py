"""Discrete actions, masks, and agents that die
============================================

Three marines fight three others (SMAX's map *3m*, a StarCraft-like battle written in JAX). A marine moves, stops, or
shoots at one enemy. Most of the time, most of its eight actions are unavailable, and a dead marine can do nothing at
all. This tutorial shows what that means for the policy, the critic, the baseline and the loss:

- *masked actions*: the policy gives an unavailable action the probability zero, and the action enters no baseline;
- *one pass for all actions*: with discrete actions, the critic outputs the value of each of an agent's own actions at
  once, so that the expectation in the baseline is an exact sum;
- *dead agents*: they get an advantage of zero and are left out when advantages are standardized.

A *baseline* is subtracted from an agent's return before the return multiplies the score, which is the gradient of the
log-probability. COMA's baseline is the mean of Q over the agent's own actions. The *optimal baseline* (OB) also
weights the actions by how far their score moves the policy, which gives the gradient the smallest variance.

This tutorial needs JaxMARL: ``pip install '.[smax]'``. Run it with ``python tutorials/discrete_and_masks.py``. It
takes about two minutes on two CPU cores and leaves a picture in ``runs/discrete_and_masks``.

.. image:: /images/discrete_and_masks.png
   :alt: Weights of an agent's actions in two baselines, and battles won during training
"""

import os
from pathlib import Path

import matplotlib

matplotlib.use("agg")  # draws to files: no screen needed

import matplotlib.pyplot as plt
import torch
from tensordict import TensorDictBase
from torchrl.collectors import Collector
from torchrl.envs import ExplorationType, StepCounter, TransformedEnv, set_exploration_type
from torchrl.objectives import ClipPPOLoss

from torchrl_ob import ComaAdvantage, JointQCritic, ObAdvantage, policy_from_env
from torchrl_ob.envs.jaxmarl import JaxMARLEnv
from torchrl_ob.functional import categorical_optimal_weights

# %%
# Sizes
# -----
#
# SMOKE=1 runs the same script in seconds, with sizes too small to learn anything.
SMOKE = os.environ.get("SMOKE") == "1"
NUM_ENVS = 4 if SMOKE else 64
MAX_STEPS = 100  # length of a battle that nobody wins
FRAMES_PER_BATCH = 80 if SMOKE else 6_400  # one frame is one step of the whole team
NUM_BATCHES = 2 if SMOKE else 20
NUM_EPOCHS = 1 if SMOKE else 8
MINIBATCH_SIZE = 40 if SMOKE else 1_600
GAMMA, LMBDA = 0.99, 0.9
FOLDER = Path("runs") / "discrete_and_masks"
torch.manual_seed(0)

# %%
# What the environment writes
# ---------------------------
#
# ``("agents", "action")`` is an integer for each agent, ``("agents", "action_mask")`` says which actions are
# available, and ``("agents", "mask")`` says which agents are alive. All battles step together, in one call. With
# three units a side, all units are marines.
game = JaxMARLEnv(
    "HeuristicEnemySMAX",
    num_allies=3,
    num_enemies=3,
    num_envs=NUM_ENVS,
    max_steps=MAX_STEPS,
    seed=0,
)
env = TransformedEnv(game, StepCounter(max_steps=MAX_STEPS))  # cut after MAX_STEPS: a time limit
for name, spec in env.observation_spec_unbatched["agents"].items():
    print(f"agents, {name}: {list(spec.shape)} {spec.dtype}")

# %%
# Policy and critic
# -----------------
#
# If there is an action mask, ``policy_from_env`` uses TorchRL's ``MaskedCategorical``. In your own pipeline, give a
# ``ProbabilisticActor`` the ``in_keys={"logits": ..., "mask": ("agents", "action_mask")}``.
#
# The critic reads what all agents observe and do. The environment's global ``state`` has positions in units of the
# map, up to 32; the observations are on a unit scale, so the critic reads only those.
policy = policy_from_env(env)
critic = JointQCritic.from_env(env, state_dim=None)
loss = ClipPPOLoss(policy, critic, entropy_coeff=0.01)
loss.set_keys(value=critic.out_keys[0], reward=env.reward_key, action=env.action_key)
advantage = ObAdvantage.for_loss(loss, gamma=GAMMA, lmbda=LMBDA)
loss.make_value_estimator(advantage)

# %%
# One batch, before any learning
# ------------------------------
#
# The policy never draws an unavailable action.
with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
    batch = env.rollout(MAX_STEPS // 2, policy, break_when_any_done=False)
alive, available = batch["agents", "mask"], batch["agents", "action_mask"]
taken = batch["agents", "action"].unsqueeze(-1)
print(f"alive: {alive.float().mean():.0%} of the agents' steps")
print(f"available: {available[alive].float().mean():.0%} of the actions of those alive")
assert available.gather(-1, taken).all()

# %%
# **Dead agents.** Their only available action is to stop. Its probability is one, so the score is zero, and the
# advantage is zero too. A living agent's baseline depends on the actions of the others.
advantage(batch)
assert batch["advantage"][~alive].abs().sum() == 0
print(f"advantage: {batch['advantage'][alive].std():.3f} (standard deviation, agents alive)")

# %%
# **The weights of the actions.** COMA's baseline weights an action by its probability π(a). OB weights it by π(a)
# times the squared length of its score, normalized. For a softmax, these weights x(a) have a closed form, which
# ``categorical_optimal_weights`` evaluates. They stay exact under a mask, and an unavailable action has weight zero.
with torch.no_grad():
    probabilities = policy.get_dist(batch).probs
    weights = categorical_optimal_weights(probabilities.log())
assert weights[~available].abs().sum() == 0
torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))

# %%
# **The baseline by hand.** One pass of the critic gives Q for all eight actions of an agent. Their weighted sum is
# the baseline that the advantage has written.
actions = torch.arange(available.shape[-1]).expand(available.shape)
with torch.no_grad():
    q = critic.candidate_values(batch, actions)
by_hand = torch.where(available, weights * q, 0).sum(-1, keepdim=True)
torch.testing.assert_close(batch["agents", "baseline"][alive], by_hand[alive])
coma = ComaAdvantage(actor_network=policy, value_network=critic, gamma=GAMMA, lmbda=LMBDA)
coma.set_keys(reward=env.reward_key)
difference = coma(batch.copy())["agents", "baseline"] - batch["agents", "baseline"]
print(f"COMA's baseline less OB's: {difference[alive].std():.5f} (standard deviation)")


# %%
# Training
# --------
#
# Three lines differ from a loop without deaths: advantages are standardized only over living agents. With
# ``normalize_advantage=True``, the zeros of the dead would shrink the deviation. The critic also learns from the
# steps of the dead: the reward is the team's, and the return goes on after a death.
def standardize(batch: TensorDictBase) -> None:
    """Bring the advantages of the living to mean zero and unit deviation; those of the dead stay zero."""
    alive = batch["agents", "mask"].unsqueeze(-1)
    of_living = batch["advantage"][alive]
    standard = (batch["advantage"] - of_living.mean()) / of_living.std()
    batch["advantage"] = torch.where(alive, standard, 0)


def battles(batch: TensorDictBase) -> tuple[int, int]:
    """How many battles are won, and how many end."""
    won = batch["next", "info", "battle_won"][batch["next", "done"]]
    return int(won.sum()), won.numel()


optimizer = torch.optim.Adam(loss.parameters(), lr=2e-3)
scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=NUM_BATCHES)
collector = Collector(
    env,
    policy,
    frames_per_batch=FRAMES_PER_BATCH,
    total_frames=FRAMES_PER_BATCH * NUM_BATCHES,
    auto_register_policy_transforms=False,
)
results = []  # battles won, and ended, in each batch
for batch in collector:
    advantage(batch)
    standardize(batch)
    steps = batch.reshape(-1)
    for _ in range(NUM_EPOCHS):
        for index in torch.randperm(len(steps)).split(MINIBATCH_SIZE):
            terms = loss(steps[index])
            total = terms["loss_objective"] + terms["loss_critic"] + terms["loss_entropy"]
            optimizer.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
            optimizer.step()
    scheduler.step()
    results.append(battles(batch))
    won, ended = results[-1]
    alive = batch["agents", "mask"].float().mean()
    print(f"batch {len(results):2}: {won} of {ended} battles won, {alive:.0%} of the steps alive")
collector.shutdown()

# %%
# The trained team
# ----------------
#
# The trained team acts by the mode of its policy in new battles. The picture shows an agent that has all actions but
# one and clearly prefers one of them: COMA's baseline is then nearly that action's Q. OB gives more weight to the
# *other* actions, which move the logits most when they are sampled.
env.set_seed(1)
with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
    played = env.rollout(MAX_STEPS, policy, break_when_any_done=False)
won, ended = battles(played)
print(f"the trained team, by the mode of its policy: {won} of {ended} new battles won")
choices = played["agents", "action_mask"].sum(-1)
probabilities = policy.get_dist(played).probs.detach()
preferred = probabilities.amax(-1)
some_barred = choices == choices.max() - 1
sure = (some_barred & (preferred < 0.95)).float() * preferred
at = (sure == sure.max()).nonzero()[0].unbind()
shown, x = probabilities[at], categorical_optimal_weights(probabilities[at].log())

# %%
# The picture
# -----------
#
# The bars on the right are 95% intervals of a share (Wilson's).
FOLDER.mkdir(parents=True, exist_ok=True)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
names = ["north", "east", "south", "west", "stop", "shoot 1", "shoot 2", "shoot 3"]
places = torch.arange(len(names))
left.bar(places - 0.2, shown, 0.4, label="π(a): weights of COMA's baseline", color="tab:orange")
left.bar(places + 0.2, x, 0.4, label="x(a): weights of the optimal baseline", color="tab:green")
barred = ~played["agents", "action_mask"][at]
for place in places[barred]:
    left.axvspan(place - 0.45, place + 0.45, color="lightgray", zorder=0)
left.set_xticks(places, names, rotation=30)
left.set(title="one agent of the trained team (gray: not available)")
left.set(xlabel="own action", ylabel="weight", ylim=(0, 1.2))
left.legend(loc="upper center", fontsize="small")
won, ended = torch.tensor(results, dtype=torch.float).T
share, z = won / ended, 1.96
center = (share + z**2 / (2 * ended)) / (1 + z**2 / ended)
half = z / (1 + z**2 / ended) * (share * (1 - share) / ended + (z / (2 * ended)) ** 2).sqrt()
errors = torch.stack([share - (center - half), center + half - share]).clamp(min=0)
frames = torch.arange(1, len(results) + 1) * FRAMES_PER_BATCH
right.errorbar(
    frames, share, errors, marker="o", capsize=3, label="battles of each batch, by samples"
)
right.set(title="SMAX 3m, MAPPO with OB", ylim=(0, 1), ylabel="share of battles won")
right.set(xlabel="frames (steps of the team)")
right.grid(alpha=0.3)
right.legend()
figure.savefig(FOLDER / "battles.png", dpi=100)
print(f"picture: {FOLDER / 'battles.png'}")

# sphinx_gallery_thumbnail_path = "images/discrete_and_masks.png"
