"""The optimal baseline on the toy game of the paper, exactly.

One agent has three actions, of probabilities (.8, .1, .1) and values (2, 1, 100). A policy gradient
samples an action and multiplies its score by the value less a baseline. Any baseline that does
not depend on the sampled action leaves the *mean* of that gradient alone; they differ in its
*variance*, which decides how many samples learning takes.

The game is section 4.1 of Kuba et al., "Settling the Variance of Multi-Agent Policy Gradients",
NeurIPS 2021, arXiv:2108.08612. Run it with ``python tutorials/matrix_game_ob.py``.
"""

import torch
from torch import Tensor

from torchrl_ob.functional import categorical_optimal_weights, weighted_baseline

# %% The game
probabilities = torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64)
values = torch.tensor([2.0, 1.0, 100.0], dtype=torch.float64)

# %% Three baselines
# COMA averages the values with the probabilities of the actions. The optimal baseline averages
# them with weights x(a) ~ pi(a) w(a), where w(a) is the squared length of the score: an action
# that moves the logits further counts for more.
x = categorical_optimal_weights(probabilities.log())
baselines = {
    "no baseline": torch.zeros((), dtype=torch.float64),
    "COMA": weighted_baseline(values, probabilities),
    "optimal": weighted_baseline(values, x),
}
print("weights of the optimal baseline:", [round(w, 4) for w in x.tolist()])

# %% Mean and variance of the gradient, by enumeration
# The score of a softmax policy in its logits is one_hot(a) - pi.
scores = torch.eye(3, dtype=torch.float64) - probabilities


def mean_and_variance(baseline: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [3] and total variance of the gradient estimator, over the three actions."""
    gradients = scores * (values - baseline).unsqueeze(-1)
    mean = probabilities @ gradients
    return mean, probabilities @ (gradients - mean).square().sum(-1)


print(f"{'':12} {'baseline':>9} {'variance':>9}   mean gradient")
for name, baseline in baselines.items():
    mean, variance = mean_and_variance(baseline)
    print(f"{name:12} {baseline:9.2f} {variance:9.1f}   {[round(m, 4) for m in mean.tolist()]}")

# The mean is the same for all three. The paper prints 1321, 1015 and 673: its value for COMA is
# slightly off, as the enumeration shows.
