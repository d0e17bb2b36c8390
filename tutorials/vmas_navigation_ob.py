"""Train a VMAS team with the optimal baseline
===========================================

In VMAS's *navigation*, three agents in a square each have to reach their own goal without bumping into one another.
MAPPO trains them, with one change to TorchRL's own tutorial: the advantage subtracts the optimal baseline, which
reduces the noise that the random actions of the *other* agents add to an agent's gradient.

Run it with ``make tutorial`` or ``python tutorials/vmas_navigation_ob.py``. It takes about two minutes on two CPU
cores and leaves a learning curve and a video of the team in ``runs/``.

.. image:: /images/navigation_seeds.png
   :alt: Learning curves of five seeds
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("agg")  # draws to files: no screen needed

import matplotlib.pyplot as plt
import pyglet
import torch
from PIL import Image
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule
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
from torchrl.modules import MultiAgentMLP, NormalParamExtractor, ProbabilisticActor, TanhNormal
from torchrl.objectives import ClipPPOLoss
from tqdm import tqdm

from torchrl_ob import JointQCritic, ObAdvantage

# %%
# Sizes
# -----
#
# SMOKE=1 runs the same script in seconds, with sizes too small to learn anything.
SMOKE = os.environ.get("SMOKE") == "1"
SEED = int(os.environ.get("SEED", "0"))
NUM_AGENTS = 3
MAX_STEPS = 100  # length of an episode
FRAMES_PER_BATCH = 400 if SMOKE else 6_000  # one frame is one step of the whole team
NUM_BATCHES = 2 if SMOKE else 12
NUM_EPOCHS = 2 if SMOKE else 30  # passes over each batch
MINIBATCH_SIZE = 100 if SMOKE else 400
LEARNING_RATE = 1e-3  # falls to zero over the run
MAX_GRAD_NORM = 1.0
GAMMA, LMBDA = 0.99, 0.9  # discount, and decay of the return's trace
RUN_DIR = Path("runs") / "vmas_navigation_ob"

torch.manual_seed(SEED)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


# %%
# Environment
# -----------
#
# VMAS steps all its environments at once, as tensors. The group of agents is called "agents": observations are
# ("agents", "observation") [envs, agents, 18], rewards are ("agents", "reward"). The episode ends for good
# ("terminated") when every agent is on its goal. StepCounter cuts it after MAX_STEPS ("truncated"); the return then
# bootstraps from the critic's value beyond the cut.
def make_env(num_envs: int, seed: int) -> EnvBase:
    """Navigation, with the sum of an episode's rewards so far beside the reward."""
    env = VmasEnv(
        "navigation",
        num_envs=num_envs,
        max_steps=None,
        n_agents=NUM_AGENTS,
        continuous_actions=True,
        device=device,
        seed=seed,
    )
    reward_sum = RewardSum(in_keys=[env.reward_key], out_keys=[("agents", "episode_reward")])
    return TransformedEnv(env, Compose(StepCounter(max_steps=MAX_STEPS), reward_sum))


env = make_env(FRAMES_PER_BATCH // MAX_STEPS, SEED)

# %%
# Policy
# ------
#
# Each agent reads only its own observation, and the agents share one network. The network outputs the location and
# scale of a Gaussian that a tanh squashes into the bounds of the action.
action_spec = env.full_action_spec_unbatched["agents", "action"]
policy_net = torch.nn.Sequential(
    MultiAgentMLP(
        n_agent_inputs=env.observation_spec_unbatched["agents", "observation"].shape[-1],
        n_agent_outputs=2 * action_spec.shape[-1],
        n_agents=NUM_AGENTS,
        centralized=False,
        share_params=True,
        depth=2,
        num_cells=256,
        activation_class=torch.nn.Tanh,
        device=device,
    ),
    NormalParamExtractor(),
)
policy = ProbabilisticActor(
    TensorDictModule(
        policy_net,
        in_keys=[("agents", "observation")],
        out_keys=[("agents", "loc"), ("agents", "scale")],
    ),
    in_keys=[("agents", "loc"), ("agents", "scale")],
    out_keys=[("agents", "action")],
    distribution_class=TanhNormal,
    distribution_kwargs={"low": action_spec.space.low[0], "high": action_spec.space.high[0]},
    return_log_prob=True,
).to(device)

# %%
# Critic
# ------
#
# The optimal baseline needs the values of actions that the agent did not take, so the critic reads the joint action:
# Q(s, a), not V(s). Its sizes come from the environment's specs.
critic = JointQCritic.from_env(env).to(device)

# %%
# Collector and buffer
# --------------------
#
# The collector samples from the policy, one batch of whole episodes at a time; the buffer cuts
# each batch into minibatches.
collector = Collector(
    env,
    policy,
    frames_per_batch=FRAMES_PER_BATCH,
    total_frames=FRAMES_PER_BATCH * NUM_BATCHES,
    auto_register_policy_transforms=False,
    device=device,
)
buffer = ReplayBuffer(
    storage=LazyTensorStorage(FRAMES_PER_BATCH, device=device),
    sampler=SamplerWithoutReplacement(),
    batch_size=MINIBATCH_SIZE,
)

# %%
# Loss and advantage
# ------------------
#
# The loss is TorchRL's PPO loss, unchanged. Standardizing the advantage separately for each agent makes the size of a
# step independent of the scale of rewards. It subtracts a mean, which is one more baseline: leave it out to compare
# estimators.
loss = ClipPPOLoss(
    policy,
    critic,
    clip_epsilon=0.2,
    entropy_coeff=1e-4,
    normalize_advantage=True,
    normalize_advantage_exclude_dims=(-2,),
)
# The next line is the only one that the optimal baseline needs. To compare, replace `ObAdvantage` by `ComaAdvantage`
# or `MapgAdvantage`, with the same arguments. For TorchRL's own GAE, make `critic` a state value, a TensorDictModule
# from observations to ("agents", "state_value"), and write
#     advantage = MultiAgentGAE(value_network=critic, gamma=GAMMA, lmbda=LMBDA)
advantage = ObAdvantage(actor_network=policy, value_network=critic, gamma=GAMMA, lmbda=LMBDA)
loss.make_value_estimator(advantage)  # before set_keys, which hands the advantage its keys
loss.set_keys(value=critic.out_keys[0], reward=env.reward_key, action=env.action_key)
optimizer = torch.optim.Adam(loss.parameters(), lr=LEARNING_RATE)
scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=NUM_BATCHES)


# %%
# Training loop
# -------------
#
# The advantage is computed once for each batch, while the batch still has a time dimension; the minibatches are drawn
# from the flattened batch.
def mean_episode_reward(batch: TensorDictBase) -> float:
    """Mean, over agents and the episodes that end in the batch, of the sum of rewards."""
    done = batch["next", "done"].squeeze(-1)
    return batch["next", "agents", "episode_reward"][done].mean().item()


rewards: list[float] = []
start = time.perf_counter()
progress = tqdm(total=NUM_BATCHES, unit="batch")
for batch in collector:
    advantage(batch)
    buffer.extend(batch.reshape(-1))
    for _ in range(NUM_EPOCHS):
        for minibatch in buffer:
            losses = loss(minibatch)
            total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
            optimizer.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(loss.parameters(), MAX_GRAD_NORM)
            optimizer.step()
    scheduler.step()
    collector.update_policy_weights_()
    rewards.append(mean_episode_reward(batch))
    progress.set_postfix(episode_reward=f"{rewards[-1]:.2f}")
    progress.update()
progress.close()
collector.shutdown()
seconds = time.perf_counter() - start
print(f"{FRAMES_PER_BATCH * NUM_BATCHES:,} frames in {seconds:.0f} s")
if SMOKE:
    print("SMOKE=1: two short batches, which learn nothing")
print("mean episode reward of each batch:", *(f"{reward:.2f}" for reward in rewards))

# %%
# Evaluation
# ----------
#
# Outside a collector, a policy acts deterministically by default; we evaluate both ways. The environments are new
# ones, with another seed.
frames: list[Image.Image] = []


def film(env: EnvBase, _: TensorDictBase) -> None:
    """Keep a picture of the first environment."""
    frames.append(Image.fromarray(env.render(mode="rgb_array")))


def evaluate(
    exploration: ExplorationType,
    num_envs: int = 100,
    callback: Callable[[EnvBase, TensorDictBase], None] | None = None,
) -> float:
    """Mean reward of the episodes that the trained team ends in ``MAX_STEPS`` steps."""
    test_env = make_env(num_envs, seed=SEED + 1)
    with torch.no_grad(), set_exploration_type(exploration):
        batch = test_env.rollout(MAX_STEPS, policy, callback, break_when_any_done=False)
    return mean_episode_reward(batch)


for kind in (ExplorationType.RANDOM, ExplorationType.DETERMINISTIC):
    print(f"mean episode reward in 100 new environments, {kind.name.lower()}: {evaluate(kind):.2f}")

RUN_DIR.mkdir(parents=True, exist_ok=True)
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
axes.plot(range(1, len(rewards) + 1), rewards, marker="o")
axes.set(title="VMAS navigation, MAPPO with the optimal baseline")
axes.set(xlabel=f"batch of {FRAMES_PER_BATCH:,} frames", ylabel="mean episode reward")
axes.grid(alpha=0.3)
figure.savefig(RUN_DIR / "learning_curve.png", dpi=150)
print(f"learning curve: {RUN_DIR / 'learning_curve.png'}")

# VMAS renders through OpenGL; without a screen, it needs the EGL library.
pyglet.options["headless"] = True
try:
    evaluate(ExplorationType.RANDOM, num_envs=1, callback=film)
except Exception as error:  # whichever way OpenGL is missing: the training is done all the same
    print(
        f"no video ({type(error).__name__}): on Debian or Ubuntu, apt-get install libegl1 libglu1-mesa"
    )
else:
    frames[0].save(
        RUN_DIR / "team.gif", save_all=True, append_images=frames[1:], duration=50, loop=0
    )
    print(f"video of the team: {RUN_DIR / 'team.gif'}")

# sphinx_gallery_thumbnail_path = "images/navigation_seeds.png"
