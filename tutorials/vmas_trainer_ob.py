"""The optimal baseline in TorchRL's trainer
=========================================

TorchRL has a trainer, ``PPOTrainer``, that runs the whole loop: it collects a batch, calls hooks at fixed stages,
updates the networks, logs, and saves checkpoints. Here it trains a team with the *optimal baseline* (OB): the
advantage subtracts, for each agent, the baseline that gives its gradient the smallest variance.

The task is VMAS's *navigation*: three agents in a square each have to reach their own goal without bumping into one
another. No part of the loop is written by hand, but there are five traps to know; each is shown where it occurs. The
run stops halfway and continues from its checkpoint, with everything built anew.

Run it with ``python tutorials/vmas_trainer_ob.py``. It takes about two minutes on two CPU cores and leaves its
metrics, checkpoints and a picture in ``runs/vmas_trainer_ob``.

.. image:: /images/vmas_trainer_ob.png
   :alt: Reward and critic's loss of a run that stops half way and goes on
"""

import csv
import os
import shutil
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("agg")  # draws to files: no screen needed

import matplotlib.pyplot as plt
import torch
from tensordict import TensorDictBase
from torchrl.checkpoint import Checkpoint, CheckpointRotation
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer, SamplerWithoutReplacement
from torchrl.envs import (
    Compose,
    EnvBase,
    ExplorationType,
    RewardSum,
    StepCounter,
    TransformedEnv,
    VmasEnv,
    set_exploration_type,
)
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import ClipPPOLoss
from torchrl.record import CSVLogger
from torchrl.trainers.algorithms import PPOTrainer

from torchrl_ob import JointQCritic, ObAdvantage, policy_from_env

# the trainer warns that it is experimental, and that its stages will be renamed
warnings.filterwarnings("ignore", "PPOTrainer is an experimental")
warnings.filterwarnings("ignore", "The .* hook stage will be replaced")

# %%
# Sizes
# -----
#
# SMOKE=1 runs the same script in seconds, with sizes too small to learn anything.
SMOKE = os.environ.get("SMOKE") == "1"
NUM_AGENTS = 3
MAX_STEPS = 10 if SMOKE else 100  # length of an episode
FRAMES_PER_BATCH = 40 if SMOKE else 6_000  # one frame is one step of the whole team
NUM_BATCHES = 4 if SMOKE else 12
NUM_EPOCHS = 2 if SMOKE else 30  # passes over each batch
MINIBATCH_SIZE = 20 if SMOKE else 400
EVALUATION_INTERVAL = 2  # batches between two evaluations
NUM_EPISODES = 4 if SMOKE else 100  # of an evaluation
FOLDER = Path("runs") / "vmas_trainer_ob"
shutil.rmtree(FOLDER, ignore_errors=True)  # the metrics of an earlier run


# %%
# Environment
# -----------
#
# ``RewardSum`` adds up each agent's rewards, so that the last step of an episode has the sum for the episode.
# ``StepCounter`` cuts an episode after ``MAX_STEPS``, as a time limit: the return then bootstraps from the critic's
# value beyond it.
def make_env(num_envs: int, seed: int) -> EnvBase:
    """Navigation, many environments in one."""
    env = VmasEnv("navigation", num_envs=num_envs, n_agents=NUM_AGENTS, max_steps=None, seed=seed)
    reward_sum = RewardSum(in_keys=[env.reward_key], out_keys=[("agents", "episode_reward")])
    return TransformedEnv(env, Compose(StepCounter(max_steps=MAX_STEPS), reward_sum))


# %%
# Hooks
# -----
#
# A *hook* is a function that the trainer calls at a stage. A hook of the stage ``pre_steps_log`` receives the batch
# before its updates, one of ``post_steps_log`` after them; both return what to log, by name.
def episode_rewards(batch: TensorDictBase) -> torch.Tensor:
    """Sum of rewards, averaged over the agents, of the episodes that end in a batch."""
    done = batch["next", "done"].squeeze(-1)
    return batch["next", "agents", "episode_reward"][done].mean((-2, -1))


def log_training(batch: TensorDictBase) -> dict[str, float]:
    """The reward of the batch's own episodes, to the logger and the progress bar."""
    return {"train_reward": episode_rewards(batch).mean().item(), "log_pbar": True}


# %%
# **Trap 1: exploration.** A policy samples its actions inside a collector; elsewhere it uses the mode of its
# distribution, unless ``set_exploration_type`` says otherwise. An evaluation may use both. A *batch to learn from*
# that is rolled out without ``RANDOM`` has no noise, and so nothing to learn from.
class Evaluation:
    """Play episodes of new environments every few batches, acting by samples and by the mode."""

    def __init__(self, policy: ProbabilisticActor) -> None:
        self.policy, self.calls = policy, 0

    def __call__(self, _: TensorDictBase) -> dict[str, float] | None:
        """Return means and standard errors over the episodes."""
        self.calls += 1
        if self.calls % EVALUATION_INTERVAL:
            return None
        found = {}
        for exploration in (ExplorationType.RANDOM, ExplorationType.DETERMINISTIC):
            env, name = make_env(NUM_EPISODES, seed=1), exploration.name.lower()
            with torch.no_grad(), set_exploration_type(exploration):
                batch = env.rollout(MAX_STEPS, self.policy, break_when_any_done=False)
            rewards = episode_rewards(batch)
            found[f"eval_{name}"] = rewards.mean().item()
            found[f"eval_{name}_error"] = rewards.std().item() / len(rewards) ** 0.5
        return found


# %%
# The trainer
# -----------
#
# Policy, critic, loss and advantage are those of any TorchRL pipeline. The critic reads the joint action, since the
# baseline needs the values of actions that the agent did not take.
#
# **Trap 2: the advantage in every epoch.** ``PPOTrainer(gae=advantage)`` works, but computes the advantage at the
# start of each of the 30 epochs, with the critic and next actions of that moment. This costs thirty times as much,
# and the targets move while the critic is fitted to them. With ``add_gae=False`` and a hook of the stage
# ``batch_process``, the advantage is computed once for each batch.
#
# **Trap 3: a loss without the advantage.** If ``"advantage"`` is missing from a batch, TorchRL's loss silently runs
# its own estimator. ``make_value_estimator`` makes our advantage that estimator.
#
# **Trap 4: an epoch without an end.** With ``optim_steps_per_batch=None``, an epoch ends when the replay buffer runs
# out: pass a buffer that holds one batch and draws without replacement. Without a buffer, the first epoch never ends.
#
# **Trap 5: keys.** The trainer passes ``reward_key`` and ``action_key`` to the loss, which passes them on to its
# advantage. The trainer reads ``episode_reward_key`` for its log: the default ``"reward"`` is missing in a
# multi-agent batch, and the first batch ends in a ``KeyError``.
def make_trainer(num_batches: int) -> tuple[PPOTrainer, ProbabilisticActor]:
    """Everything that a run needs, built from nothing: the trainer, and the policy that it trains."""
    torch.manual_seed(0)
    env = make_env(FRAMES_PER_BATCH // MAX_STEPS, seed=0)
    policy = policy_from_env(env)
    critic = JointQCritic.from_env(env)
    loss = ClipPPOLoss(
        policy,
        critic,
        entropy_coeff=1e-4,
        normalize_advantage=True,
        normalize_advantage_exclude_dims=(-2,),  # each agent's apart
    )
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key, action=env.action_key)
    advantage = ObAdvantage.for_loss(loss, gamma=0.99, lmbda=0.9)
    loss.make_value_estimator(advantage)  # trap 3

    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    trainer = PPOTrainer(
        collector=Collector(
            env,
            policy,
            frames_per_batch=FRAMES_PER_BATCH,
            total_frames=FRAMES_PER_BATCH * num_batches,
            auto_register_policy_transforms=False,
        ),
        total_frames=FRAMES_PER_BATCH * num_batches,
        frame_skip=1,
        loss_module=loss,
        add_gae=False,  # trap 2
        optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, NUM_BATCHES),
        clip_norm=1.0,
        num_epochs=NUM_EPOCHS,
        optim_steps_per_batch=None,  # as many as there are minibatches
        replay_buffer=ReplayBuffer(  # trap 4
            storage=LazyTensorStorage(FRAMES_PER_BATCH),
            sampler=SamplerWithoutReplacement(),
            batch_size=MINIBATCH_SIZE,
        ),
        reward_key=env.reward_key,  # trap 5
        episode_reward_key=env.reward_key,
        action_key=env.action_key,
        logger=CSVLogger("metrics", log_dir=str(FOLDER)),
        log_interval=1,  # frames: every batch
        checkpoint=Checkpoint(),
        checkpoint_rotation=CheckpointRotation(FOLDER / "checkpoints", keep_last=2),
        save_trainer_interval=FRAMES_PER_BATCH,
        progress_bar=not SMOKE,
    )
    trainer.register_op("batch_process", advantage)  # trap 2
    trainer.register_op("pre_steps_log", log_training)
    trainer.register_op("post_steps_log", Evaluation(policy))
    return trainer, policy


# %%
# Training, stopped half way
# --------------------------
#
# ``total_frames`` ends the first run after half of its batches. A checkpoint holds the networks, the optimizer, the
# schedule, the logger and the counts of frames and steps.
half = NUM_BATCHES // 2
trainer, _ = make_trainer(half)
trainer.train()
print(f"stopped after {trainer.collected_frames:,} frames")

# %%
# Going on from the checkpoint
# ----------------------------
#
# A new process would do the same: build everything, read the newest checkpoint, train. The collector's checkpoint has
# its count of frames but not the simulator, so episodes begin anew. (``torchrl-ob train`` also saves the simulator,
# and a resumed run gives the same numbers.)
trainer, policy = make_trainer(NUM_BATCHES)
newest = CheckpointRotation(FOLDER / "checkpoints", keep_last=2).latest()
trainer.load_from_file(newest)
print(f"goes on from {newest}, at {trainer.collected_frames:,} frames")
trainer.train()
print(f"stopped after {trainer.collected_frames:,} frames")


# %%
# The metrics
# -----------
#
# The logger has written a file for each name. Besides our own metrics, there are the trainer's: ``r_training``, the
# mean reward of a step, and the losses. Bars are 95% intervals over the episodes of an evaluation.
def read(name: str) -> tuple[list[int], list[float]]:
    """Frames and values of a metric."""
    (path,) = FOLDER.rglob(f"{name}.csv")
    with path.open() as file:
        rows = [(int(frame), float(value)) for frame, value in csv.reader(file)]
    frames, values = zip(*rows, strict=True)
    return list(frames), list(values)


print("metrics:", ", ".join(sorted(path.stem for path in FOLDER.rglob("scalars/*.csv"))))
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.plot(*read("train_reward"), marker="o", label="episodes of the batch, by samples")
for name, color in (("random", "tab:orange"), ("deterministic", "tab:green")):
    frames, values = read(f"eval_{name}")
    errors = [1.96 * error for error in read(f"eval_{name}_error")[1]]
    label = (
        f"{NUM_EPISODES} new episodes, by "
        + {"random": "samples", "deterministic": "the mode"}[name]
    )
    left.errorbar(frames, values, errors, label=label, color=color, linestyle="--", capsize=3)
    print(f"{label}, at the end: {values[-1]:.2f} ± {errors[-1]:.2f}")
left.axvline(half * FRAMES_PER_BATCH, color="gray", linewidth=1, label="resumed")
left.set(title="VMAS navigation, MAPPO with OB", ylabel="reward of an episode, mean over agents")
right.plot(*read("loss_critic"), marker="o", color="tab:red")
right.axvline(half * FRAMES_PER_BATCH, color="gray", linewidth=1, label="resumed")
right.set(title="the critic's loss, mean over a batch's updates", ylabel="smooth L1 distance")
for panel in (left, right):
    panel.set(xlabel="frames (steps of the team)")
    panel.grid(alpha=0.3)
    panel.legend()
figure.savefig(FOLDER / "training.png", dpi=100)
print(f"picture: {FOLDER / 'training.png'}")

# sphinx_gallery_thumbnail_path = "images/vmas_trainer_ob.png"
