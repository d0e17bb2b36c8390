"""The reward that each agent earned itself within a team's reward, learned from the batches."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase, unravel_key
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.envs import EnvBase
from torchrl.modules import RunningValueNorm

from torchrl_ob._specs import Group
from torchrl_ob.critics._inputs import read_sizes
from torchrl_ob.critics.backbones.independent import IndependentBackbone
from torchrl_ob.critics.joint import JointQCritic
from torchrl_ob.critics.state_value import StateValue

__all__ = ["RewardStreams"]

FEATURES = "features"


class RewardStreams(nn.Module):
    r"""Splits a team's reward into a stream for each agent, its own share of that reward, and values every stream.

    A model of the immediate reward is a sum of one term per agent,

    .. math::
        r(s, a, s') \approx r_0 + \tfrac{1}{n} \textstyle\sum_j f(o_j, a_j, o'_j, j),

    fitted to each batch by least squares. Agent i's own reward is the team's reward less the others' terms,

    .. math::
        r_i = r - \tfrac{1}{n} \textstyle\sum_{j \ne i} f(o_j, a_j, o'_j, j),

    so that the part that the model does not explain stays in every agent's reward. :math:`V_i(s)` is fitted to the
    λ-returns of these rewards. (A difference reward with a learned model: Wolpert and Tumer, "Optimal Payoff
    Functions for Members of Collectives", 2001; Castellini et al., "Difference Rewards Policy Gradients", 2021.)

    :class:`~torchrl_ob.StreamAdvantage` fits it and uses it. Its ``state_dict`` holds the networks, the units and the
    optimizers.

    Args:
        num_agents: number of agents n.
        action_dim: size of a continuous action, or number of discrete ones.
        observation_dim: size of an agent's observation.

    Keyword Args:
        known: whether the environment pays each agent for its own actions. These rewards are then the streams, the
            team's reward is their mean, and no model is fitted.
        hidden_dim: width of the hidden layers.
        lr: learning rate of the model.
        num_steps: number of minibatches of the model in each batch.
        minibatch_size: number of steps in each minibatch of the model.
        value_lr: learning rate of V.
        value_epochs: passes of V over each batch.
        value_minibatch_size: number of steps in each minibatch of V.
        observation_key: where the observations are, ``[*B, n, observation_dim]``.
        action_key: where the joint action is.
        action_encoding: as in :class:`~torchrl_ob.JointQCritic`, and so is ``nvec``.
        nvec: choices of each factor of a multi-categorical action.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl_ob import RewardStreams
        >>> _ = torch.manual_seed(0)
        >>> def agents():
        ...     return {"observation": torch.randn(500, 3, 2), "action": torch.randn(500, 3, 1)}
        >>> td = TensorDict({"agents": agents(), "next": {"agents": agents()}}, [500])
        >>> paid = td["agents", "action"].square() / 3  # each for its own action
        >>> streams = RewardStreams(num_agents=3, action_dim=1, observation_dim=2)
        >>> streams.fit_rewards(td, paid.sum(-2, keepdim=True).expand(-1, 3, 1))
        >>> own = streams.own_rewards(td, paid.sum(-2, keepdim=True).expand(-1, 3, 1))
        >>> bool(torch.corrcoef(torch.stack([own.flatten(), paid.flatten()]))[0, 1] > 0.9)
        True
    """

    def __init__(
        self,
        num_agents: int,
        action_dim: int,
        observation_dim: int,
        *,
        known: bool = False,
        hidden_dim: int = 128,
        lr: float = 2e-3,
        num_steps: int = 300,
        minibatch_size: int = 1024,
        value_lr: float = 1e-3,
        value_epochs: int = 10,
        value_minibatch_size: int = 400,
        observation_key: NestedKey = ("agents", "observation"),
        action_key: NestedKey = ("agents", "action"),
        **action: Any,
    ) -> None:
        super().__init__()
        self.known = known
        self.observation_key = unravel_key(observation_key)
        self.action_key = unravel_key(action_key)
        self.model = JointQCritic(
            num_agents,
            action_dim,
            2 * observation_dim,
            backbone=IndependentBackbone,
            hidden_dim=hidden_dim,
            activation=nn.ReLU,
            observation_key=FEATURES,
            action_key=self.action_key,
            **action,
        )
        self.value = StateValue(
            num_agents, observation_dim, observation_key=self.observation_key, hidden_dim=hidden_dim
        )
        self.reward_norm, self.value_norm = RunningValueNorm(shape=1), RunningValueNorm(shape=1)
        self.num_steps, self.minibatch_size = num_steps, minibatch_size
        self.value_epochs, self.value_minibatch_size = value_epochs, value_minibatch_size
        self.report: dict[str, Tensor] = {}
        self._optimizers = {
            "model": torch.optim.Adam(self.model.parameters(), lr=lr),
            "value": torch.optim.Adam(self.value.parameters(), lr=value_lr),
        }

    @classmethod
    def from_env(cls, env: EnvBase, *, group: Group = "agents", **options: Any) -> RewardStreams:
        """Build the streams of a group of agents from an environment's specs.

        Args:
            env: the environment, with ``(group, "observation")`` ``[n, o]`` and ``(group, "action")``.
            group: name of the group of agents.
            **options: the other arguments of the class.
        """
        sizes = read_sizes(env, group, {"state_dim": None})
        for name in ("state_dim", "state_key"):
            sizes.pop(name, None)
        if sizes["observation_dim"] is None:
            raise KeyError(
                "reward streams read what each agent observes, and the environment has a state alone."
            )
        return cls(**{**sizes, **options}).to(env.device)

    def team_reward(self, reward: Tensor) -> Tensor:
        """The reward of the team, ``[*B, n, 1]``, from what the environment pays."""
        if self.known:
            return reward.mean(-2, keepdim=True).expand_as(reward)
        torch._assert_async(
            (reward == reward[..., :1, :]).all(),
            "the agents' rewards differ: reward streams split one reward of the team. Pay every agent the team's "
            "(env.shared_reward=true), or take known=True where each is paid for its own actions.",
        )
        return reward

    def fit_rewards(
        self, batch: TensorDictBase, reward: Tensor, active: Tensor | None = None
    ) -> None:
        """Fit the model to a batch.

        Args:
            batch: steps with the observations, the actions and the next observations, ``[N]``.
            reward: of the team, ``[N, n, 1]``, the same for every agent.
            active: which agents take part, ``[N, n]``; the others have no term.
        """
        if self.known:
            return
        inputs, team = self._features(batch), reward[:, 0]
        self.reward_norm.update(team)
        target = self.reward_norm.normalize(team)
        with torch.enable_grad():
            for _ in range(self.num_steps):
                index = torch.randint(len(target), (self.minibatch_size,), device=target.device)
                terms = self._terms(inputs[index], None if active is None else active[index])
                self._step("model", terms.mean(-2) - target[index])
        with torch.no_grad():
            left = target - self._terms(inputs, active).mean(-2)
        self.report["critic/reward_explained"] = 1 - left.var() / target.var()

    def own_rewards(
        self, batch: TensorDictBase, reward: Tensor, active: Tensor | None = None
    ) -> Tensor:
        """The team's reward less the others' terms, ``[N, n, 1]``; the arguments are those of the fit."""
        if self.known:
            return reward / reward.shape[-2]
        with torch.no_grad():
            terms = self._terms(self._features(batch), active) * self.reward_norm.scale()
        return reward - (terms.sum(-2, keepdim=True) - terms) / terms.shape[-2]

    def values(self, tensordict: TensorDictBase) -> Tensor:
        """V of every agent's own stream, ``[*B, n, 1]``."""
        return self.value_norm.denormalize(self._values(tensordict))

    def fit_values(self, batch: TensorDictBase, returns: Tensor) -> None:
        """Fit V to returns ``[N, n, 1]`` of the streams.

        Args:
            batch: steps with the observations, ``[N]``.
            returns: λ-returns of the agents' own rewards.
        """
        with torch.no_grad():
            left = returns - self.values(batch)
        self.report["critic/own_value_explained"] = 1 - left.var() / returns.var()
        self.value_norm.update(returns)
        target, steps = self.value_norm.normalize(returns), batch.select(self.observation_key)
        with torch.enable_grad():
            for _ in range(self.value_epochs):
                order = torch.randperm(len(target), device=target.device)
                for index in order.split(self.value_minibatch_size):
                    self._step("value", self._values(steps[index]) - target[index])

    def forward(self, batch: TensorDictBase) -> dict[str, Tensor]:
        """Shares that the model explained of the last batch's rewards, and V of its returns before the fit."""
        return self.report

    def get_extra_state(self) -> dict[str, Any]:
        """The optimizers'."""
        return {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The optimizers'."""
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state[name])

    def _terms(self, inputs: TensorDictBase, active: Tensor | None) -> Tensor:
        terms = self.model(inputs.copy()).get(self.model.out_keys[0])
        return terms if active is None else terms * active.unsqueeze(-1)

    def _values(self, tensordict: TensorDictBase) -> Tensor:
        found: Tensor = self.value(tensordict.select(self.observation_key)).get(
            self.value.out_keys[0]
        )
        return found

    def _features(self, batch: TensorDictBase) -> TensorDictBase:
        now = batch.get(self.observation_key)
        change = batch.get("next").get(self.observation_key) - now
        entries = TensorDict({FEATURES: torch.cat([now, change], -1)}, batch.batch_size)
        return entries.set(self.action_key, batch.get(self.action_key))

    def _step(self, name: str, error: Tensor) -> None:
        optimizer = self._optimizers[name]
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()
