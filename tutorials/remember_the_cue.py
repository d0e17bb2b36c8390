"""A team that remembers
=====================

Each agent is told +1 or -1 at the first step, and must name it ten steps later, when nothing shows it any more. The reward is the
team's. A policy of the current observation cannot exceed 1/2, whatever it learns; one with a memory can be right always. Both
are trained here in the same way: by a loss on whole trajectories, with a critic that remembers.

Run this with ``python tutorials/remember_the_cue.py``; it takes half a minute.
"""

import torch
from tensordict.nn import TensorDictSequential
from torchrl.collectors import Collector
from torchrl.envs import InitTracker, TransformedEnv
from torchrl.modules.utils import get_primers_from_module
from torchrl.objectives import ClipPPOLoss

from torchrl_ob import ObAdvantage, RecurrentCritic, policy_from_env
from torchrl_ob.envs.cue import RememberTheCue

NUM_ENVS, DELAY, BATCHES, EPOCHS = 64, 10, 35, 4

# %%
# 1. Networks and environment
# ---------------------------
#
# ``cell="gru"`` puts a GRU before the policy's hidden layers; ``None`` leaves it out. The critic is in two parts: a memory
# of each agent's observations, and a joint critic on what it remembers. The environment marks the first step of an
# episode and holds the states of all memories. What collects is the policy, with the critic's memory beside it.


def make_team(cell):
    """Policy, critic and what collects."""
    env = RememberTheCue(NUM_ENVS, delay=DELAY, seed=0)
    policy = policy_from_env(env, cell=cell, memory_size=32, depth=1, num_cells=32)
    critic = RecurrentCritic.from_env(env, cell="gru", memory_size=32, hidden_dim=32)
    acting = TensorDictSequential(policy, critic.memory)
    env = TransformedEnv(env).append_transform(InitTracker())
    env.append_transform(get_primers_from_module(acting))
    frames = NUM_ENVS * (DELAY + 1)
    collector = Collector(
        env,
        acting,
        frames_per_batch=frames,
        total_frames=BATCHES * frames,
        auto_register_policy_transforms=False,
    )
    return policy, critic, collector


# %%
# 2. Training on sequences
# ------------------------
#
# Minibatches are whole trajectories, ``[32, 11]``: the loss runs both memories over the last dimension, and the gradient runs
# back to the cue. The advantage encodes the history of a batch once, and asks the critic about other actions from there.


def train(cell):
    """Share of right answers, batch by batch."""
    torch.manual_seed(0)
    policy, critic, collector = make_team(cell)
    loss = ClipPPOLoss(
        policy,
        critic,
        entropy_coeff=0.01,
        normalize_advantage=True,
        normalize_advantage_exclude_dims=[-2],
    )
    loss.set_keys(
        value=critic.out_keys[0],
        action=("agents", "action"),
        sample_log_prob=("agents", "action_log_prob"),
    )
    advantage = ObAdvantage.for_loss(loss, gamma=1.0, lmbda=0.95)
    loss.make_value_estimator(advantage)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    shares = []
    for batch in collector:
        shares.append(batch["next", "reward"][batch["next", "done"]].mean().item())
        advantage(batch)
        for _ in range(EPOCHS):
            for minibatch in batch[torch.randperm(NUM_ENVS)].split(NUM_ENVS // 2):
                terms = loss(minibatch)
                sum(x for name, x in terms.items() if name.startswith("loss")).backward()
                torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
    collector.shutdown()
    return shares


# %%
# 3. What they learn
# ------------------
#
# With a memory nearly all answers are right after thirty batches. Without one they are guesses, and the share stays around 1/2.

for name, cell in (("with a memory", "gru"), ("without", None)):
    shares = train(cell)
    shown = " ".join(f"{share:.2f}" for share in shares[::5])
    print(f"{name}: right answers {shown}; at the end {shares[-1]:.2f}")

# %%
# In the command, ``policy=gru critic=pooled_gru trainer.sequence_length=10`` trains such a team. The page *A team that remembers*
# among the how-to pages tells what changes in a pipeline of your own, and how GAE gets the same memory.
