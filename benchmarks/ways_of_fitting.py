"""The ways of fitting a critic that ``critic_accuracy.py`` compares."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mappo import Apart, InLoss, Way
from torch import Tensor, nn
from torchrl.envs import EnvBase
from torchrl.modules import PopArtValueNorm, ProbabilisticActor

from torchrl_ob import DuelingCritic, JointQCritic
from torchrl_ob.critics.backbones import AgentLinear, PooledBackbone, Sizes
from torchrl_ob.experiments.gae import state_value_from_env


class AttentionBackbone(nn.Module):
    """The pooled backbone with four heads of attention over the team in place of the mean."""

    def __init__(self, sizes: Sizes, **options: Any) -> None:
        super().__init__()
        h = sizes.hidden_dim
        linear = partial(AgentLinear, num_agents=sizes.num_agents, share_params=True)
        self.observation = linear(sizes.observation_dim, h, identity=True)
        self.action = linear(sizes.action_dim, h, bias=False)
        self.hidden = linear(h, h)
        self.attention = nn.MultiheadAttention(h, num_heads=4, batch_first=True)
        self.last = linear(h, sizes.out_dim)

    def forward(self, observation: Tensor, state: Tensor, action: Tensor) -> Tensor:
        """Values of the joint action."""
        embedded = self.observation(observation.unsqueeze(-2)) + self.action(action.unsqueeze(-2))
        mine = self.hidden(embedded.tanh()).squeeze(-2)
        team = mine.tanh()
        seen, _ = self.attention(team, team, team, need_weights=False)
        return self.last((mine + seen).tanh().unsqueeze(-2)).squeeze(-2)


class Ensemble(nn.Module):
    """Three pooled backbones, averaged."""

    def __init__(self, sizes: Sizes, **options: Any) -> None:
        super().__init__()
        self.networks = nn.ModuleList([PooledBackbone(sizes, **options) for _ in range(3)])

    @property
    def last(self) -> nn.Module:
        """The last layer of each."""
        return nn.ModuleList([network.last for network in self.networks])

    def forward(self, *inputs: Tensor) -> Tensor:
        """The mean of their values of the joint action."""
        return torch.stack([network(*inputs) for network in self.networks]).mean(0)

    def candidates(self, *inputs: Tensor) -> Tensor:
        """The mean of their values of own actions."""
        return torch.stack([network.candidates(*inputs) for network in self.networks]).mean(0)


def of_actions(backbone: type[nn.Module]) -> Callable[..., nn.Module]:
    """The backbone for the action part of a dueling critic, whose value part stays pooled."""

    def make(sizes: Sizes, **options: Any) -> nn.Module:
        return (backbone if sizes.action_dim else PooledBackbone)(sizes, **options)

    return make


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

    def apart(backbone: Any = "pooled", *, fit: Any = (), **more: Any) -> Way:
        fit = {"minibatch_size": minibatch_size, **dict(fit)}
        critic = DuelingCritic.from_env(env, backbone=backbone)
        return Apart(policy, critic, env, fit=fit, **options, **more)

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
            "attention": apart(of_actions(AttentionBackbone), **cv),
            "ensemble": apart(of_actions(Ensemble), **cv),
        }
    return ways
