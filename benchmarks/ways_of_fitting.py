"""The ways of fitting a critic that ``critic_accuracy.py`` compares."""

from typing import Any

import torch
from mappo import Apart, InLoss, Way
from torch import Tensor, nn
from torchrl.envs import EnvBase
from torchrl.modules import PopArtValueNorm, ProbabilisticActor

from torchrl_ob import DuelingCritic, JointQCritic
from torchrl_ob.critics.backbones import AgentLinear, PooledBackbone, Sizes
from torchrl_ob.experiments.state_value import state_value_from_env


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
    env: EnvBase,
    policy: ProbabilisticActor,
    *,
    gamma: float,
    lmbda: float,
    minibatch_size: int,
    everything: bool,
) -> dict[str, Way]:
    """The ways by name; the first trains the policy."""
    options: dict[str, Any] = {"gamma": gamma, "lmbda": lmbda}
    cv = {"bootstrap": "control_variate"}

    def apart(kind: type[DuelingCritic] = DuelingCritic, *, fit: Any = (), **more: Any) -> Way:
        fit = {"minibatch_size": minibatch_size, **dict(fit)}
        return Apart(policy, kind.from_env(env), env, fit=fit, **options, **more)

    norm, own_norm = PopArtValueNorm(shape=1), PopArtValueNorm(shape=1)
    state_value, q = state_value_from_env(env), JointQCritic.from_env(env, value_norm=own_norm)
    ways: dict[str, Way] = {
        "GAE": InLoss(policy, state_value, env, lr=3e-4, value_norm=norm, **options),
        "Q": InLoss(policy, q, env, lr=3e-4, **options),
        "V": apart(fit={"effect_epochs": 0}),
        "dueling": apart(**cv),
    }
    if everything:
        ways |= {
            "no control variates": apart(),
            "λ = 0": apart(fit={"lmbda": 0.0}, **cv),
            "λ = 0.9": apart(fit={"lmbda": 0.9}, **cv),
            "V at 1e-3": apart(fit={"value_lr": 1e-3, "value_epochs": 30}, **cv),
            "V at 3e-3": apart(fit={"value_lr": 3e-3, "value_epochs": 30}, **cv),
            "attention": apart(AttentionCritic, **cv),
            "ensemble": apart(EnsembleCritic, **cv),
        }
    return ways
