"""Two groups of agents, and one critic over both
===============================================

In VMAS's *simple_tag*, three adversaries chase an agent that is faster than they are. A *group* in TorchRL's sense is
a set of agents with identical spaces. This game has two groups, which have different observations and rewards. Each
group has its own policy, loss and advantage.

The noise in an adversary's return comes from two sides: from the other adversaries, and from the agent that they
chase. An advantage with the *optimal baseline* (OB) subtracts, for each agent, what the critic predicts for the
*others'* actions. For that, the critic has to read the actions of both groups; ``group_critics`` makes such a critic.
The advantage also needs the policies that draw the other group's next actions, which ``other_actors`` passes to it.

Run it with ``python tutorials/groups_simple_tag.py``. It takes about two minutes on two CPU cores and leaves a
picture in ``runs/groups_simple_tag``.

.. image:: /images/groups_simple_tag.png
   :alt: Rewards of adversaries before and after training, and whose action moves whose baseline
"""

import os
from copy import deepcopy
from pathlib import Path

import matplotlib

matplotlib.use("agg")  # draws to files: no screen needed

import matplotlib.pyplot as plt
import torch
from tensordict.nn import TensorDictSequential
from torchrl.collectors import Collector
from torchrl.envs import ExplorationType, StepCounter, TransformedEnv, VmasEnv, set_exploration_type
from torchrl.objectives import ClipPPOLoss

from torchrl_ob import ObAdvantage, group_critics, policy_from_env

# %%
# Sizes
# -----
#
# SMOKE=1 runs the same script in seconds, with sizes too small to learn anything.
SMOKE = os.environ.get("SMOKE") == "1"
MAX_STEPS = 10 if SMOKE else 100  # length of an episode
FRAMES_PER_BATCH = 40 if SMOKE else 6_000  # one frame is one step of all agents
NUM_BATCHES = 2 if SMOKE else 10
NUM_EPOCHS = 1 if SMOKE else 10
MINIBATCH_SIZE = 20 if SMOKE else 600
FOLDER = Path("runs") / "groups_simple_tag"
torch.manual_seed(0)

# %%
# The groups
# ----------
#
# ``env.group_map`` lists the agents of each group. Entries of a group are stored under its name, such as
# ``("adversary", "reward")``; ``"done"`` is stored at the root. Adversaries share a reward of 10 for each touch, and
# the agent loses 10. Touches are rare at first, so distances are rewarded too (``shape_..._rew``): adversaries for
# being near, the agent for being far away. A gain for one side is a loss for the other.
game = VmasEnv(
    "simple_tag",
    num_envs=FRAMES_PER_BATCH // MAX_STEPS,
    max_steps=None,
    seed=0,
    shape_adversary_rew=True,
    shape_agent_rew=True,
)
env = TransformedEnv(game, StepCounter(max_steps=MAX_STEPS))  # a time limit: the return goes on
for group, agents in env.group_map.items():
    observation = env.observation_spec_unbatched[group, "observation"].shape
    action = env.full_action_spec_unbatched[group, "action"].shape
    print(f"{group}: {agents}, observation {list(observation)}, action {list(action)}")

# %%
# Policies, and one critic with a view for each group
# ---------------------------------------------------
#
# The views of ``group_critics`` share all networks. The network of its group embeds each agent, and the messages
# between agents of different groups have the same width, so that an agent's value depends on every agent of every
# group.
policies = {group: policy_from_env(env, group=group) for group in env.group_map}
first = deepcopy(policies)  # as they are before training
critics = group_critics(env)
print("the critic of the adversaries reads", critics["adversary"].in_keys)

# %%
# A loss and an advantage for each group
# --------------------------------------
#
# Each loss reads and writes under its group's name. The value target is a return that bootstraps from Q of the *next*
# joint action of both groups: ``other_actors`` are the policies that draw the other group's part. If a critic reads
# an action that no actor writes, the advantage raises an error when it is built.
losses = {}
for group, policy in policies.items():
    loss = ClipPPOLoss(
        policy,
        critics[group],
        entropy_coeff=1e-4,
        normalize_advantage=True,
        normalize_advantage_exclude_dims=(-2,),  # each agent's apart
    )
    keys = {name: (group, name) for name in ("action", "reward", "advantage", "value_target")}
    loss.set_keys(value=critics[group].out_keys[0], **keys)
    others = [policies[other] for other in policies if other != group]
    advantage = ObAdvantage.for_loss(loss, gamma=0.99, lmbda=0.9, other_actors=others)
    loss.make_value_estimator(advantage)
    losses[group] = loss


def call_advantages(batch):
    """Write the advantages of all groups, each under its group's name."""
    for loss in losses.values():
        loss.value_estimator(batch)
    return batch


# %%
# Training
# --------
#
# All groups act in one sequence, and one optimizer steps on the sum of the losses. The critic's parameters are in
# both losses and are passed to the optimizer once. The critic's loss is a distance to returns, which are in the tens
# here: ``clip_grad_norm_`` bounds the size of a step; a value norm would also do so.
parameters = list(dict.fromkeys(x for loss in losses.values() for x in loss.parameters()))
optimizer = torch.optim.Adam(parameters, lr=1e-3)
collector = Collector(
    env,
    TensorDictSequential(*policies.values()),
    frames_per_batch=FRAMES_PER_BATCH,
    total_frames=FRAMES_PER_BATCH * NUM_BATCHES,
    auto_register_policy_transforms=False,
)
for number, batch in enumerate(collector, start=1):
    steps = call_advantages(batch).reshape(-1)
    for _ in range(NUM_EPOCHS):
        for index in torch.randperm(len(steps)).split(MINIBATCH_SIZE):
            minibatch = steps[index]
            total = sum(
                terms["loss_objective"] + terms["loss_critic"] + terms["loss_entropy"]
                for terms in (loss(minibatch) for loss in losses.values())
            )
            optimizer.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
    reward = batch["next", "adversary", "reward"].sum(1).mean()
    print(f"batch {number:2}: reward of an adversary's episode {reward:.2f}")
collector.shutdown()

# %%
# What each group has learned
# ---------------------------
#
# Opponents hide one another's progress: both learn, and the rewards need not rise. Each group is therefore also
# played against the *first* policy of the other group, from the same starts. The table shows the adversaries' reward
# for an episode, with 95% intervals.
ADVERSARIES = {"first adversaries": first, "trained adversaries": policies}
AGENTS = {"first agent": first, "trained agent": policies}
played = {}  # mean and half of the interval, of each pair
print("\nreward of an adversary")
for words, adversaries in ADVERSARIES.items():
    for opponent, agents in AGENTS.items():
        env.set_seed(1)
        team = TensorDictSequential(adversaries["adversary"], agents["agent"])
        with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
            batch_of_pair = env.rollout(MAX_STEPS, team, break_when_any_done=False)
        reward = batch_of_pair["next", "adversary", "reward"].sum(1).mean((-2, -1))
        mean, half = reward.mean().item(), 1.96 * reward.std().item() / len(reward) ** 0.5
        played[words, opponent] = mean, half
        print(f"  {words}, {opponent}: {mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]")

# %%
# Whose action moves whose baseline
# ---------------------------------
#
# A baseline leaves the mean of the gradient unchanged if it does not depend on the agent's *own* action. It removes
# the noise of the others only if it depends on *their* actions. Both properties can be checked: exchange one agent's
# actions between the environments, and measure how far each agent's baseline moves. The diagonal is zero, to
# rounding.
names = [name for agents in env.group_map.values() for name in agents]
sizes = {group: len(agents) for group, agents in env.group_map.items()}


def baselines(batch):
    """The baselines of all agents, ``[envs, time, agents]``."""
    call_advantages(batch)
    return torch.cat([batch[group, "baseline"].squeeze(-1) for group in sizes], -1)


before, moved = baselines(batch.copy()), []
for group, n in sizes.items():
    for agent in range(n):
        changed = batch.copy()
        action = changed[group, "action"].clone()
        action[:, :, agent] = action[:, :, agent].roll(1, 0)
        changed[group, "action"] = action
        moved.append((baselines(changed) - before).abs().mean((0, 1)))
moved = torch.stack(moved)
assert moved.diagonal().max() < 1e-4 * moved.max()
width = max(map(len, names))
print("\nmean change of a baseline (columns) when an agent's actions are exchanged (rows)")
print(" " * width, *(f"{name:>{width}}" for name in names))
for name, row in zip(names, moved, strict=True):
    print(f"{name:{width}}", *(f"{x:{width}.3f}" for x in row))

# %%
# The picture
# -----------
#
# On the left, trained adversaries do better than the first ones against either agent, and the trained agent does
# better than the first one against adversaries that it was not trained with. Bars are 95% intervals over episodes.
FOLDER.mkdir(parents=True, exist_ok=True)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for position, (words, color) in enumerate(zip(ADVERSARIES, ("tab:gray", "tab:red"), strict=True)):
    means, halves = zip(*(played[words, opponent] for opponent in AGENTS), strict=True)
    places = [place + 0.1 * (position - 0.5) for place in range(len(AGENTS))]
    left.errorbar(
        places, means, halves, marker="o", linestyle="", capsize=4, color=color, label=words
    )
left.set_xticks(range(len(AGENTS)), AGENTS)
left.set(title="simple_tag, MAPPO with OB", xlabel="opponent", xlim=(-0.5, len(AGENTS) - 0.5))
left.set_ylabel("an adversary's reward of an episode")
left.grid(alpha=0.3, axis="y")
left.legend()
image = right.imshow(moved, cmap="Greens", vmin=0, vmax=1.5 * moved.max())
for row in range(len(names)):
    for column in range(len(names)):
        right.text(column, row, f"{moved[row, column]:.2f}", ha="center", va="center")
ticks = range(len(names))
right.set_xticks(ticks, names, rotation=20)
right.set_yticks(ticks, names)
right.set(
    title="change of a baseline", xlabel="whose baseline", ylabel="whose actions are exchanged"
)
figure.colorbar(image, ax=right, label="mean change, in units of the return")
figure.savefig(FOLDER / "groups.png", dpi=100)
print(f"picture: {FOLDER / 'groups.png'}")

# %%
# A critic that reads only its own group is ``JointQCritic.from_env(env, group="agent")``, and its advantage needs no
# ``other_actors``. From the command line: ``torchrl-ob train env.scenario=simple_tag``.

# sphinx_gallery_thumbnail_path = "images/groups_simple_tag.png"
