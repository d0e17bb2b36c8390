"""The story of the optimal baseline, exactly, on games small enough to enumerate.

A policy gradient samples an action and multiplies its score by its value, less a baseline. A baseline
that does not depend on the agent's own action leaves the *mean* of that gradient alone; baselines
differ in its *variance*, which decides how many samples learning takes.

The paper is Kuba et al., "Settling the Variance of Multi-Agent Policy Gradients", NeurIPS 2021,
arXiv:2108.08612. Run this with ``python tutorials/matrix_game_ob.py``; it takes a few seconds and
leaves its picture in ``runs/``.
"""

import os
from itertools import permutations
from pathlib import Path

import matplotlib

matplotlib.use("agg")  # draws to files: no screen needed

import matplotlib.pyplot as plt
import torch

from torchrl_ob.diagnostics import (
    coma_baseline,
    gradient_moments,
    multi_agent_advantage,
    optimal_baseline,
    state_value,
    variance_decomposition,
)
from torchrl_ob.functional import categorical_optimal_weights

torch.set_default_dtype(torch.float64)
MAX_AGENTS = 3 if os.environ.get("SMOKE") == "1" else 8
PICTURE = Path("runs") / "matrix_game_ob.png"

# %% 1. One agent, three actions: the toy game of the paper
# COMA averages the values with the probabilities of the actions. The optimal baseline averages
# them with weights x(a) ~ pi(a) w(a), where w(a) is the squared length of the score: an action
# that moves the logits further counts for more.
pi = torch.tensor([0.8, 0.1, 0.1])
values = torch.tensor([2.0, 1.0, 100.0])
baselines = {
    "none": torch.zeros(1),
    "COMA": coma_baseline(values, [pi], agent=0),
    "OB": optimal_baseline(values, [pi], agent=0),
}
weights = categorical_optimal_weights(pi.log())
print("weights of the optimal baseline:", [round(w, 4) for w in weights.tolist()])
print(f"{'baseline':9} {'value':>7} {'variance':>9}   mean gradient")
toy = {}
for name, baseline in baselines.items():
    mean, variance = gradient_moments(values - baseline, [pi], agent=0)
    toy[name] = variance.item()
    shown = [round(m, 4) for m in mean.tolist()]
    print(f"{name:9} {baseline.item():7.2f} {variance:9.1f}   {shown}")
# The mean is the same for all three. The paper prints 1321, 1015 and 673: its value for COMA is
# slightly off, as the enumeration shows.

# %% 2. Several agents: advantages add up, in any order, and so do variances
torch.manual_seed(0)
game = torch.randn(3, 2, 4)
policies = [torch.randn(size).softmax(-1) for size in game.shape]
errors = []
for order in permutations(range(3)):
    total = torch.zeros(())
    for k, agent in enumerate(order):  # each agent judged given those before it
        term = multi_agent_advantage(game, policies, [agent], given=order[:k])
        total = total.unsqueeze(-1) + term
    errors.append((total - (game - state_value(game, policies)).permute(order)).abs().max())
print(f"\nA(a) = sum of A^i given those before: largest error over 6 orders {max(errors):.0e}")
for order in ([0, 1, 2], [2, 1, 0]):
    terms = variance_decomposition(game, policies, order)
    parts = " + ".join(f"{t:.3f} (agent {i})" for t, i in zip(terms, order, strict=True))
    print(f"Var[A] = {parts} = {terms.sum():.3f}")

# %% 3. The noise of the other agents
# A team of n agents, each playing the toy game; the team's value is the sum of what they get. A
# state value leaves all of the others' noise in agent 0's gradient, so its variance grows with n.
# COMA and OB subtract what the others did, so theirs does not.
growth: dict[str, list[float]] = {"V": [], "COMA": [], "OB": []}
for n in range(1, MAX_AGENTS + 1):
    team = sum(values.reshape([-1 if i == j else 1 for i in range(n)]) for j in range(n))
    same = [pi] * n
    for name, baseline in (
        ("V", state_value(team, same)),
        ("COMA", coma_baseline(team, same, agent=0)),
        ("OB", optimal_baseline(team, same, agent=0)),
    ):
        growth[name].append(gradient_moments(team - baseline, same, agent=0).variance.item())
print("\nvariance of agent 0's gradient as the team grows")
print(f"{'n':>4} {'V':>9} {'COMA':>9} {'OB':>9}")
for n, row in enumerate(zip(*growth.values(), strict=True), start=1):
    print(f"{n:4}" + "".join(f" {v:9.1f}" for v in row))

# %% 4. The surrogate and the exact baseline
# What the library ships minimises the variance in the logits, which a network hands out. The exact
# baseline minimises it in the network's parameters and needs their gradient for every action. Here
# the logits are random linear functions of 20 parameters, 200 times.
ratios = []
for _ in range(200):
    jacobian = torch.randn(3, 20)
    own, q = torch.randn(3).softmax(-1), torch.randn(3)
    best = gradient_moments(q - optimal_baseline(q, [own], 0, jacobian), [own], 0, jacobian)
    surrogate = gradient_moments(q - optimal_baseline(q, [own], 0), [own], 0, jacobian)
    coma = gradient_moments(q - coma_baseline(q, [own], 0), [own], 0, jacobian)
    ratios.append([surrogate.variance / best.variance, coma.variance / best.variance])
ratio = torch.tensor(ratios)
print("\nvariance in the parameters, over that of the exact baseline (median, worst of 200)")
for name, column in zip(("surrogate OB", "COMA"), ratio.T, strict=True):
    print(f"{name:13} {column.median():6.3f} {column.max():8.2f}")

# %% Picture
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
left.bar(list(toy), list(toy.values()))
left.set(title="toy game", ylabel="variance of the gradient")
for name, row in growth.items():
    middle.plot(range(1, MAX_AGENTS + 1), row, marker="o", label=name)
middle.set(title="agent 0 in a team of n", xlabel="number of agents", ylim=(0, None))
middle.legend()
for name, column in zip(("surrogate OB", "COMA"), ratio.T, strict=True):
    right.plot(column.sort().values, torch.linspace(0, 1, 200), label=name)
right.set(title="variance over the exact baseline's", xlabel="ratio", ylabel="share of games")
right.set_xscale("log")
right.legend()
PICTURE.parent.mkdir(exist_ok=True)
figure.savefig(PICTURE, dpi=120)
print(f"\npicture: {PICTURE}")
