"""Two critics and the effect of an action
=======================================

A baseline subtracts what the critic predicts for the other agents' actions. If the critic ignores the actions, every
baseline is in effect a state value. Here, two critics are fitted to the same batches of the same policy on VMAS
navigation:

- ``JointQCritic`` is one network that the loss fits to returns. Returns differ far more between states than between
  actions, so it learns the states.
- ``DuelingCritic``, Q = V + A, is fitted separately from the loss. ``DuelingFit`` fits V to returns. It fits A to the
  part of *short* returns that V does not explain; there, later actions do not yet mask the effect of an action.

The simulator can be copied, so the true effect can be measured: ``branch`` follows many joint actions from one state
by many continuations each. Run it with ``python tutorials/dueling_critic.py``. It takes two minutes on two CPU cores
and leaves a picture in ``runs/dueling_critic``.

.. image:: /images/dueling_critic.png
   :alt: The effect of actions: the truth, and two critics
"""

import os
from pathlib import Path

import matplotlib
import torch
from torchrl.envs import ExplorationType, VmasEnv, set_exploration_type
from torchrl.objectives import ClipPPOLoss

from torchrl_ob import DuelingCritic, DuelingFit, JointQCritic, ObAdvantage
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
FOLDER = Path("runs") / "dueling_critic"

# %%
# Two critics, one policy
# -----------------------
#
# Three things change in a pipeline: the class of the critic, ``critic_coeff=0`` in the loss, and one line that calls
# ``DuelingFit`` with each batch after its updates. In a config, ``experiment=dueling`` does all three, and uses
# returns with control variates.
torch.manual_seed(0)
env = VmasEnv("navigation", num_envs=NUM_ENVS, n_agents=NUM_AGENTS, seed=0)
policy = policy_from_env(env)
critics = {"plain": JointQCritic.from_env(env), "dueling": DuelingCritic.from_env(env)}
losses, advantages = {}, {}
for name, critic in critics.items():
    loss = ClipPPOLoss(
        policy,
        critic,
        critic_coeff=0.0 if name == "dueling" else 1.0,
        normalize_advantage=True,
        normalize_advantage_exclude_dims=(-2,),
    )
    bootstrap = "control_variate" if name == "dueling" else "sampled"
    advantage = ObAdvantage(
        actor_network=policy,
        value_network=critic,
        gamma=GAMMA,
        lmbda=LMBDA,
        bootstrap=bootstrap,
    )
    loss.make_value_estimator(advantage)
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key, action=env.action_key)
    losses[name], advantages[name] = loss, advantage
optimizers = {name: torch.optim.Adam(loss.parameters(), lr=3e-4) for name, loss in losses.items()}
fit = DuelingFit(advantages["dueling"])

# %%
# Training
# --------
#
# The dueling critic trains the policy; the plain critic is fitted beside it. ``effect_explained`` is the share that A
# explains of the part of short returns that V does not explain, on a batch that A was not yet fitted to.
shares = []
for number in range(NUM_BATCHES):
    with set_exploration_type(ExplorationType.RANDOM), torch.no_grad():
        batch = env.rollout(NUM_STEPS, policy, break_when_any_done=False)
    steps = {name: advantages[name](batch.copy()).reshape(-1) for name in critics}
    for _ in range(NUM_EPOCHS):
        for index in torch.randperm(batch.numel()).split(MINIBATCH_SIZE):
            for name, loss in losses.items():
                terms = loss(steps[name][index])
                if name == "dueling":
                    total = terms["loss_objective"] + terms["loss_entropy"]
                else:
                    total = terms["loss_critic"]
                total.backward()
                torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
                optimizers[name].step()
                optimizers[name].zero_grad()
    explained = fit(batch)["critic/effect_explained"].item()
    shares.append(explained)
    reward = batch["next", env.reward_key].mean().item()
    print(f"batch {number + 1}: reward of a step {reward:.3f}, A explains {explained:.0%}")

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
surfaces = {"the truth": surface[0, 0].mean(1)[:, 0]}
for name, advantage in advantages.items():
    with torch.no_grad():
        q = advantage.team.q(states[:1].unsqueeze(1).expand(1, len(own)).contiguous(), joint)
    surfaces[f"the {name} critic"] = q[0, :, 0, 0].double()

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
    figure.colorbar(image, ax=axis, label="effect on the return")
axes[2, 1].plot(range(1, NUM_BATCHES + 1), shares, marker="o")
axes[2, 1].set(title="what A explains of a new batch", xlabel="batch of 6,000 frames", ylim=(0, 1))
axes[2, 1].set_ylabel("share of the variance of its targets")
figure.savefig(FOLDER / "dueling_critic.png", dpi=100)
print(f"the picture is in {FOLDER}")

# sphinx_gallery_thumbnail_path = "images/dueling_critic.png"
