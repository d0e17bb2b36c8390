"""The ways of fitting a critic that ``critic_that_sees.py`` compares: each with a loss and an optimiser of its own."""

from typing import Any

import torch
from mappo import Way
from torch import Tensor, nn
from torchrl.envs import EnvBase
from torchrl.modules import ProbabilisticActor

from torchrl_ob import DuelingCritic, JointQCritic
from torchrl_ob.backbones import AgentLinear, PooledBackbone, Sizes


class AttentionBackbone(nn.Module):
    """The pooled backbone with four heads of attention over the team in place of the mean."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        h, options = sizes.hidden_dim, {"num_agents": sizes.num_agents, "share_params": True}
        self.observation = AgentLinear(sizes.observation_dim, h, identity=True, **options)
        self.action = AgentLinear(sizes.action_dim, h, bias=False, **options)
        self.own = AgentLinear(h, h, **options)
        self.attention = nn.MultiheadAttention(h, num_heads=4, batch_first=True)
        self.tail = nn.Sequential(nn.Tanh(), AgentLinear(h, sizes.out_dim, **options))

    def forward(
        self, observation: Tensor, state: Tensor, action: Tensor, own: Tensor | None = None
    ) -> Tensor:
        """Values of the own actions, each with the whole team evaluated again, or of the joint action."""
        if own is None:
            embedded = self.observation(observation.unsqueeze(-2))
            embedded = embedded + self.action(action.unsqueeze(-2))
            mine = self.own(embedded.tanh())
            team = mine.tanh().squeeze(-2)
            seen, _ = self.attention(team, team, team, need_weights=False)
            return self.tail(mine + seen.unsqueeze(-2))
        steps, n, candidates, _ = own.shape
        replaced = torch.eye(n, dtype=torch.bool).view(1, n, 1, n, 1)
        joint = torch.where(replaced, own.unsqueeze(-2), action[:, None, None])
        wide = observation[:, None, None].expand(*joint.shape[:-1], -1)
        values = self(wide.flatten(0, 2), state, joint.flatten(0, 2))
        values = values.view(steps, n, candidates, n, -1)
        return values.diagonal(dim1=1, dim2=3).movedim(-1, 1)


class AttentionCritic(DuelingCritic):
    """A dueling critic whose action part attends to the team."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.backbone = AttentionBackbone(self.sizes)


class Ensemble(nn.Module):
    """Three pooled backbones, averaged."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.networks = nn.ModuleList([PooledBackbone(sizes) for _ in range(3)])
        self.own = self.networks[0].own
        self.tail = [nn.ModuleList([network.tail[-1] for network in self.networks])]

    def forward(self, *inputs: Any) -> Tensor:
        """The mean of their values."""
        return torch.stack([network(*inputs) for network in self.networks]).mean(0)


class EnsembleCritic(DuelingCritic):
    """A dueling critic whose action part is the mean of three."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.backbone = Ensemble(self.sizes)


def make_ways(
    env: EnvBase, policy: ProbabilisticActor, *, gamma: float, lmbda: float, everything: bool
) -> dict[str, Way]:
    """The ways by name; the first trains the policy."""

    def way(kind: type[JointQCritic], *, lr: float = 3e-4, **options: Any) -> Way:
        return Way(env, policy, kind, lr=lr, gamma=gamma, lmbda=lmbda, **options)

    cv = {"bootstrap": "control_variate"}
    ways = {
        "Q": way(JointQCritic),
        "V": way(DuelingCritic),
        "V, lr 1e-3": way(DuelingCritic, lr=1e-3),
        "dueling": way(DuelingCritic, effect=0.5),
        "dueling, λ = 0, 3 batches": way(DuelingCritic, effect=0.0, num_batches=3),
        "dueling, lr 1e-3, cv": way(DuelingCritic, effect=0.5, lr=1e-3, **cv),
    }
    if everything:
        ways |= {
            "Q, cv": way(JointQCritic, **cv),
            "dueling, λ = 0": way(DuelingCritic, effect=0.0),
            "dueling, λ = 0.9": way(DuelingCritic, effect=0.9),
            "dueling, cv": way(DuelingCritic, effect=0.5, **cv),
            "dueling, attention": way(AttentionCritic, effect=0.5),
            "dueling, ensemble": way(EnsembleCritic, effect=0.5),
        }
    return ways
