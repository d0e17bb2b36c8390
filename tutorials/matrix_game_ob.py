"""The optimal baseline on games small enough to enumerate
=======================================================

A policy gradient samples an action and multiplies its score by its value, less a baseline. A baseline that does not
depend on the agent's own action leaves the *mean* of that gradient unchanged. Baselines differ in the *variance* of
the gradient, which decides how many samples learning needs.

The paper is Kuba et al., "Settling the Variance of Multi-Agent Policy Gradients", NeurIPS 2021,
arXiv:2108.08612. Run this with ``python tutorials/matrix_game_ob.py``; it takes a few seconds and
leaves its picture in ``runs/``.

.. image:: /images/matrix_game_ob.png
   :alt: Variance of the toy game, of its decomposition, of a growing team, and of the surrogate
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
    decentralized_value,
    excess_bound,
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

# %%
# 1. One agent, three actions: the toy game of the paper
# ------------------------------------------------------
#
# COMA averages the values with the probabilities of the actions. The optimal baseline averages them with weights x(a)
# ~ pi(a) w(a), where w(a) is the squared length of the score: an action that moves the logits further counts for
# more.
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

# %%
# 2. Several agents: advantages add up, in any order, and so do variances
# -----------------------------------------------------------------------
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
decompositions = {
    order: variance_decomposition(game, policies, order) for order in permutations(range(3))
}
for order, terms in decompositions.items():
    parts = " + ".join(f"{t:.3f} (agent {i})" for t, i in zip(terms, order, strict=True))
    print(f"Var[A] = {parts} = {terms.sum():.3f}")

# %%
# 3. The noise of the other agents
# --------------------------------
#
# In a team of n agents, each agent plays the toy game, and the team's value is the sum of what they get. A state
# value leaves all of the others' noise in agent 0's gradient, so its variance grows with n. COMA and OB subtract the
# effect of the others' actions, so their variance does not grow.
#
# This noise is the *excess* variance of the centralized estimator, which multiplies the score by Q(s, a), over that
# of the decentralized estimator, which multiplies it by Q^i(s, a^i). It is never larger than the sum of the other
# agents' squared local advantages, weighted with the squared score. In this game the two are equal, because Q is a
# sum. The paper's theorem 1 replaces the factors by their largest values, which gives a far larger bound.
growth: dict[str, list[float]] = {
    name: [] for name in ("V", "COMA", "OB", "excess", "bound", "theorem 1")
}
for n in range(1, MAX_AGENTS + 1):
    team = torch.zeros([3] * n)
    for j in range(n):
        team = team + values.reshape([-1 if i == j else 1 for i in range(n)])
    same = [pi] * n
    variance = {
        name: gradient_moments(signal, same, agent=0).variance.item()
        for name, signal in (
            ("V", team - state_value(team, same)),
            ("COMA", team - coma_baseline(team, same, agent=0)),
            ("OB", team - optimal_baseline(team, same, agent=0)),
            ("centralized", team),
            ("decentralized", decentralized_value(team, same, agent=0)),
        )
    }
    largest_score = (torch.eye(3) - pi).square().sum(-1).max()
    largest_advantage = (values - pi @ values).abs().max()
    for name in ("V", "COMA", "OB"):
        growth[name].append(variance[name])
    growth["excess"].append(variance["centralized"] - variance["decentralized"])
    growth["bound"].append(excess_bound(team, same, agent=0).item())
    growth["theorem 1"].append(((n - 1) * largest_score * largest_advantage.square()).item())
print("\nvariance of agent 0's gradient as the team grows")
print("   n" + "".join(f" {name:>9}" for name in growth))
for n, row in enumerate(zip(*growth.values(), strict=True), start=1):
    print(f"{n:4}" + "".join(f" {v:9.1f}" for v in row))

# %%
# 4. The surrogate and the exact baseline
# ---------------------------------------
#
# The library's baseline minimizes the variance in the logits, which a network outputs. The exact baseline minimizes
# it in the network's parameters and needs the gradient with respect to them for every action. Here the logits are
# random linear functions of 20 parameters, 200 times.
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

# %%
# Picture
# -------
colors = {"none": "tab:gray", "V": "tab:blue", "COMA": "tab:orange", "OB": "tab:green"}
figure, panels = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
(top_left, top_right), (bottom_left, bottom_right) = panels
top_left.bar(list(toy), list(toy.values()), color=[colors[name] for name in toy])
top_left.set(title="1. the toy game", xlabel="baseline", ylabel="variance of the gradient")

labels = ["".join(map(str, order)) for order in decompositions]
bottom = torch.zeros(len(labels))
for agent in range(3):
    heights = torch.stack([terms[order.index(agent)] for order, terms in decompositions.items()])
    top_right.bar(labels, heights, bottom=bottom, label=f"agent {agent}")
    bottom += heights
top_right.set(title="2. Var[A] adds up in every order", xlabel="order of the agents")
top_right.set(ylabel="variance of the advantage", ylim=(0, 1.35 * bottom.max().item()))
top_right.legend(loc="upper center", ncols=3)

for name in ("V", "COMA", "OB", "excess"):
    style = {"color": "tab:red", "linestyle": "--"} if name == "excess" else {"color": colors[name]}
    bottom_left.plot(range(1, MAX_AGENTS + 1), growth[name], label=name, **style)
bottom_left.set(title="3. agent 0 in a growing team", xlabel="number of agents", ylim=(0, None))
bottom_left.set_ylabel("variance of the gradient")
bottom_left.legend()

for name, column in zip(("OB", "COMA"), ratio.T, strict=True):
    shares = torch.linspace(0, 1, len(column))
    bottom_right.plot(column.sort().values, shares, label=name, color=colors[name])
bottom_right.set(title="4. the surrogate OB, and COMA, in 200 games", xscale="log")
bottom_right.set(xlabel="variance over that of the exact baseline", ylabel="share of the games")
bottom_right.legend()
PICTURE.parent.mkdir(exist_ok=True)
figure.savefig(PICTURE, dpi=100)
print(f"\npicture: {PICTURE}")

# sphinx_gallery_thumbnail_path = "images/matrix_game_ob.png"
