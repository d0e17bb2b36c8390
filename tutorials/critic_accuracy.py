"""What a critic explains of the actions
=====================================

A baseline subtracts what the critic predicts for the other agents' actions. If the critic ignores the actions, every
baseline is in effect a state value. Returns differ far more between states than between actions, so what a critic
explains of the returns does not tell what it explains of the actions. Here, two critics are fitted to the same batches
of one policy on VMAS navigation, where each of four agents is paid the mean of the team's rewards:

- the *pooled* critic, the default, embeds each agent and averages over the others;
- the *additive* critic is a mean of one term per agent: one value for the team.

In the run of the picture, one seed, the additive critic explained 85% of the variance of the returns of a sixth batch,
before it was fitted to it, and the pooled critic 74%. Of the variance between joint actions of one state, they removed
58% and 37%.

The simulator can be copied, so the true effect can be measured: ``branch`` follows many joint actions from one state
by many continuations each. Run it with ``python tutorials/critic_accuracy.py``. It takes two minutes on two CPU cores
and leaves a picture in ``runs/critic_accuracy``.

.. image:: /images/critic_accuracy.png
   :alt: The effect of actions: the truth, and two critics
"""

import os
from pathlib import Path

import matplotlib
import torch
from torchrl.envs import ExplorationType, VmasEnv, set_exploration_type
from torchrl.objectives import ClipPPOLoss

from torchrl_ob import JointQCritic, ObAdvantage
from torchrl_ob.diagnostics import branch, branch_returns, critic_fit, visited_states
from torchrl_ob.diagnostics.branching.clone import clone_vmas
from torchrl_ob.policies import policy_from_env

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SMOKE = os.environ.get("SMOKE") == "1"  # a run of seconds that learns nothing
NUM_AGENTS = 4
NUM_ENVS, NUM_STEPS, NUM_BATCHES = (6, 10, 1) if SMOKE else (60, 100, 6)
NUM_EPOCHS, MINIBATCH_SIZE = (1, 30) if SMOKE else (30, 400)
NUM_STATES, NUM_ACTIONS, NUM_CONTINUATIONS = (3, 4, 4) if SMOKE else (32, 16, 16)
GRID = 3 if SMOKE else 9  # own actions of the picture, in each of two dimensions
HORIZON, GAMMA, LMBDA = (2 if SMOKE else 10), 0.99, 0.9
FOLDER = Path("runs") / "critic_accuracy"

# %%
# Two critics, one policy
# -----------------------
#
# Only ``backbone`` differs. In a config, it is ``critic=pooled`` and ``critic=additive``.
torch.manual_seed(0)
env = VmasEnv("navigation", num_envs=NUM_ENVS, n_agents=NUM_AGENTS, seed=0)
policy = policy_from_env(env)
losses, advantages = {}, {}
for backbone in ("pooled", "additive"):
    critic = JointQCritic.from_env(env, backbone=backbone)
    loss = ClipPPOLoss(
        policy, critic, normalize_advantage=True, normalize_advantage_exclude_dims=(-2,)
    )
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key, action=env.action_key)
    advantages[backbone] = ObAdvantage.for_loss(loss, gamma=GAMMA, lmbda=LMBDA)
    loss.make_value_estimator(advantages[backbone])
    losses[backbone] = loss
optimizers = {name: torch.optim.Adam(loss.parameters(), lr=3e-4) for name, loss in losses.items()}

# %%
# Training
# --------
#
# The pooled critic trains the policy; the additive critic is fitted beside it, to λ-returns of the same batches. The
# share that a critic explains of the returns is measured on a batch that it was not yet fitted to.
reward_key, shares = ("next", *env.reward_key), {name: [] for name in losses}
for number in range(NUM_BATCHES):
    with set_exploration_type(ExplorationType.RANDOM), torch.no_grad():
        batch = env.rollout(NUM_STEPS, policy, break_when_any_done=False)
    reward = batch[reward_key]
    batch[reward_key] = reward.mean(-2, keepdim=True).expand_as(reward).clone()  # of the team
    steps = {}
    for name, advantage in advantages.items():
        steps[name] = advantage(batch.copy())
        with torch.no_grad():
            target, q = steps[name]["value_target"], advantage.team.q(batch)
        shares[name].append((1 - (target - q).var() / target.var()).item())
        steps[name] = steps[name].reshape(-1)
    for _ in range(NUM_EPOCHS):
        for index in torch.randperm(batch.numel()).split(MINIBATCH_SIZE):
            for name, loss in losses.items():
                terms = loss(steps[name][index])
                total = terms["loss_critic"]
                if name == "pooled":
                    total = total + terms["loss_objective"] + terms["loss_entropy"]
                total.backward()
                torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
                optimizers[name].step()
                optimizers[name].zero_grad()
    explained = ", ".join(f"{name} {share[-1]:.0%}" for name, share in shares.items())
    print(f"batch {number + 1}: reward of a step {reward.mean():.3f}, of the returns: {explained}")

# %%
# The truth
# ---------
#
# From each of several states that the policy visits, joint actions are followed by continuations. The differences
# between joint actions of one state are their effects. ``critic_fit`` compares Q with these effects. R² ignores the
# critic's scale; the captured share is what Q removes from the variance without rescaling. Both weight a state by how
# much its action matters, and a state in which two agents are about to collide outweighs all others:
# ``leave_out=0.1`` leaves out the tenth of the states with the largest effects.
at, states = visited_states(env, policy, num_states=NUM_STATES, max_steps=NUM_STEPS // 2)
options = {"num_continuations": NUM_CONTINUATIONS, "horizons": [HORIZON], "gamma": GAMMA}
branches = branch(at, states, policy, num_actions=NUM_ACTIONS, **options)
returns = branches.returns[0].mean(-1, keepdim=True)  # of the team: the mean over agents
true = returns.mean(2).squeeze(-1)
wide = states.unsqueeze(1).expand(NUM_STATES, NUM_ACTIONS).contiguous()
values = {}
for name, advantage in advantages.items():
    with torch.no_grad():
        values[name] = advantage.team.q(wide, branches.actions).mean(-2)
    for share in (0.0, 0.1):
        quality = critic_fit(values[name].double(), returns, leave_out=share)
        print(
            f"the {name} critic, without {share:.0%} of the states: "
            f"R² {quality.r2.value.item():.2f}, captured share {quality.captured.value.item():.2f}"
        )

# %%
# One agent's own action
# ----------------------
#
# For one state, this cell measures the return of each of agent 0's own actions, with the others' actions as the
# policy drew them.
line = torch.linspace(-1, 1, GRID) * 0.95
own = torch.cartesian_prod(line, line)
joint = branches.actions[:1, :1].repeat(1, len(own), 1, 1)
joint[0, :, 0] = own
surface = branch_returns(clone_vmas(at, torch.tensor([0])), states[:1], policy, joint, **options)
surfaces = {"the truth": surface[0, 0].mean((1, 2))}  # over continuations and agents
for name, advantage in advantages.items():
    with torch.no_grad():
        q = advantage.team.q(states[:1].unsqueeze(1).expand(1, len(own)).contiguous(), joint)
    surfaces[f"the {name} critic"] = q[0].mean((1, 2)).double()

# %%
# The picture
# -----------
FOLDER.mkdir(parents=True, exist_ok=True)
figure, axes = plt.subplots(3, 2, figsize=(10, 13), layout="constrained")
centered = [(x - x.mean(1, keepdim=True)).flatten() for x in (true, *values.values())]
limit = 1.05 * max(x.abs().max().item() for x in centered)
for axis, name, q in zip(axes[0], values, centered[1:], strict=True):
    axis.plot(centered[0], q, ".", markersize=3)
    axis.axline((0, 0), slope=1, color="black", linewidth=0.8, label="a perfect critic")
    axis.set(title=f"joint actions: the {name} critic", xlim=(-limit, limit), ylim=(-limit, limit))
    axis.set(xlabel=f"true effect on the return of {HORIZON} steps", ylabel="Q less its mean")
    axis.legend()
largest = (surfaces["the truth"] - surfaces["the truth"].mean()).abs().max().item()
for axis, (name, values_of_own) in zip(axes[1:].flat, surfaces.items(), strict=False):
    effect = (values_of_own - values_of_own.mean()).reshape(GRID, GRID).T
    image = axis.imshow(
        effect,
        origin="lower",
        extent=(-1, 1, -1, 1),
        cmap="RdBu",
        vmin=-largest,
        vmax=largest,
        aspect="auto",
    )
    axis.set(title=f"own action of agent 0: {name}", xlabel="force along x", ylabel="force along y")
    figure.colorbar(image, ax=axis, label="effect on the team's return")
for name, share in shares.items():
    axes[2, 1].plot(range(1, NUM_BATCHES + 1), share, marker="o", label=f"the {name} critic")
axes[2, 1].set(title="what Q explains of a new batch", xlabel="batch of 6,000 frames")
axes[2, 1].set(ylabel="share of the variance of returns", ylim=(0, 1))
axes[2, 1].legend(loc="lower right")
figure.savefig(FOLDER / "critic_accuracy.png", dpi=100)
print(f"the picture is in {FOLDER}")

# sphinx_gallery_thumbnail_path = "images/critic_accuracy.png"
