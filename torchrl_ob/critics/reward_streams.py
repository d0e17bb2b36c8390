"""The share of a team's reward that each agent earned, learned from the batches."""

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

__all__ = ["RewardStreams"]

TRANSITION, ACTIVE = "transition", "active"


class RewardStreams(nn.Module):
    r"""Splits a team's reward r into a stream for each agent, what the agent earned of it.

    Models of the immediate reward are fitted to each batch. Each has one term per agent, a function of what agent j
    observes before and after its action (before it alone, where the episode terminates), such as
    :math:`u_j = u(o_j, a_j, o'_j, j)`:

    .. math::
        \min_u E\big|r - \tfrac{1}{n} \textstyle\sum_j u_j\big|, \qquad
        \min_v E\big[(r - \tfrac{1}{n} \textstyle\sum_j f_j)^2\big], \quad f_j = u_j + v_j, \qquad
        \min_g \textstyle\sum_j E\big[(r - g_j)^2\big]

    Here u is what most steps pay, fitted by least absolute deviations, so that rare large rewards (collisions) do not
    hide it; v is what the rare rewards add, fitted to the rest by least squares; and g is what one agent's observations alone say
    of the team's reward. Agent i's reward is

    .. math::
        r_i = r + w\, \big(f_i - \tfrac{1}{n} \textstyle\sum_j f_j\big), \qquad
        w = \begin{cases} 1 & R^2(g) < \tfrac{1}{2} R^2(\tfrac{1}{n} \sum_j f_j) \\ 0 & \text{otherwise} \end{cases}

    so that the mean over agents is r for any model. If r is the mean of independent rewards of the agents, these are
    the streams, and R²(g) is 1/n of what all agents explain together. If each agent's observations explain half of
    that or more, the agents earn the reward together (they carry one load); such a reward cannot be split, and every
    agent keeps it. (Models of the reward for credit: Wolpert and Tumer, "Optimal Payoff Functions for Members of
    Collectives", 2001; Castellini et al., "Difference Rewards Policy Gradients", 2021.)

    :class:`~torchrl_ob.StreamAdvantage` fits the models and uses the streams. The ``state_dict`` holds the networks,
    the averages of both R² and the optimizer.

    Args:
        num_agents: number of agents n.
        action_dim: size of a continuous action, or number of discrete ones.
        observation_dim: size of an agent's observation.

    Keyword Args:
        hidden_dim: width of the hidden layers.
        lr: learning rate of Adam.
        num_epochs: passes over each batch.
        num_minibatches: into how many minibatches a pass is cut.
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
        ...     return {"observation": torch.randn(2_000, 3, 2), "action": torch.randn(2_000, 3, 1)}
        >>> streams = RewardStreams(num_agents=3, action_dim=1, observation_dim=2)
        >>> for _ in range(3):  # the first batch is not split: nothing is explained yet
        ...     td = TensorDict({"agents": agents(), "next": {"agents": agents()}}, [2_000])
        ...     earned = td["agents", "action"].square()  # by each agent
        ...     reward = earned.mean(-2, keepdim=True).expand(-1, 3, 1)  # of the team
        ...     streams.fit(td, reward)
        >>> own = streams(td, reward)
        >>> bool(torch.corrcoef(torch.stack([own.flatten(), earned.flatten()]))[0, 1] > 0.9)
        True
    """

    explained: Tensor

    def __init__(
        self,
        num_agents: int,
        action_dim: int,
        observation_dim: int,
        *,
        hidden_dim: int = 128,
        lr: float = 2e-3,
        num_epochs: int = 10,
        num_minibatches: int = 30,
        observation_key: NestedKey = ("agents", "observation"),
        action_key: NestedKey = ("agents", "action"),
        **action: Any,
    ) -> None:
        super().__init__()
        self.observation_key = unravel_key(observation_key)
        self.action_key = unravel_key(action_key)
        self.usual, self.rare, self.alone = (
            JointQCritic(
                num_agents,
                action_dim,
                2 * observation_dim,
                backbone=IndependentBackbone,
                hidden_dim=hidden_dim,
                activation=nn.ReLU,
                observation_key=TRANSITION,
                action_key=self.action_key,
                **action,
            )
            for _ in range(3)
        )
        self.reward_norm = RunningValueNorm(shape=1)
        self.input_norm = RunningValueNorm(shape=2 * observation_dim)
        self.num_epochs, self.num_minibatches = num_epochs, num_minibatches
        self.register_buffer("explained", torch.zeros(2))  # R² of g, and of the mean of f
        self._optimizer = torch.optim.Adam(self.parameters(), lr=lr)

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

    def fit(self, batch: TensorDictBase, reward: Tensor, active: Tensor | None = None) -> None:
        """Fit the models to a batch.

        Args:
            batch: steps with the observations, the actions and the next observations, ``[N]``.
            reward: of the team, ``[N, n, 1]``, the same for every agent.
            active: which agents take part, ``[N, n]``; the others earn nothing.
        """
        torch._assert_async(
            (reward == reward[..., :1, :]).all(),
            "the agents' rewards differ: reward streams split one reward of the team. Pay every agent the team's "
            "(env.shared_reward=true); where each is paid for its own actions, its reward is its stream: take advantage=ob.",
        )
        with torch.no_grad():
            inputs, target = self._inputs(batch, active), self.reward_norm.normalize(reward)
            left = self._losses(inputs, target)[1:] / target[:, 0].var(correction=0).clamp(min=1e-8)
            self.found = (1 - left).clamp(min=0).to(self.explained)
            self.explained.lerp_(self.found, 0.3)
        self.reward_norm.update(reward[:, 0])
        self.input_norm.update(self._transitions(batch))
        inputs, target = self._inputs(batch, active), self.reward_norm.normalize(reward)
        with torch.enable_grad():
            for _ in range(self.num_epochs):
                order = torch.randperm(len(target), device=target.device)
                for index in order.chunk(self.num_minibatches):
                    self._optimizer.zero_grad()
                    self._losses(inputs[index], target[index]).sum().backward()
                    self._optimizer.step()

    def forward(
        self, batch: TensorDictBase, reward: Tensor, active: Tensor | None = None
    ) -> Tensor:
        """The streams, ``[N, n, 1]``; the arguments are those of :meth:`fit`."""
        with torch.no_grad():
            usual, rare, _ = self._terms(self._inputs(batch, active))
            terms = (usual + rare) * self.reward_norm.scale()
            apart = (terms - terms.mean(-2, keepdim=True)).to(reward.dtype)
        return reward + torch.where(self.splits, apart, 0)

    @property
    def splits(self) -> Tensor:
        """Whether w is 1: agents alone explained less than half of what all explained together."""
        alone, together = self.explained
        return 2 * alone < together

    @property
    def report(self) -> dict[str, Tensor]:
        """Both R² of the last batch, before the fit to it, and whether its reward was split."""
        alone, together = self.found
        return {
            "critic/reward_explained": together,
            "critic/reward_explained_alone": alone,
            "critic/reward_split": self.splits.to(together),
        }

    def get_extra_state(self) -> dict[str, Any]:
        """The optimizer's."""
        return self._optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The optimizer's."""
        self._optimizer.load_state_dict(state)

    def _losses(self, inputs: TensorDictBase, target: Tensor) -> Tensor:
        """Mean absolute error of the mean of u, mean squared ones of g, over the agents that take part, and of the mean of f, ``[3]``."""
        usual, rare, alone = self._terms(inputs)
        active, team = inputs.get(ACTIVE), target[:, 0]
        by_one = ((alone - target) * active).square().sum() / active.sum().clamp(min=1)
        together = (usual.detach() + rare).mean(-2) - team
        return torch.stack([(usual.mean(-2) - team).abs().mean(), by_one, together.square().mean()])

    def _terms(self, inputs: TensorDictBase) -> list[Tensor]:
        """The terms u, v and g of every agent, ``[N, n, 1]`` each; 0 for agents that take no part."""
        models = self.usual, self.rare, self.alone
        values = [x(inputs.copy()).get(x.out_keys[0]) for x in models]
        return [value * inputs.get(ACTIVE) for value in values]

    def _inputs(self, batch: TensorDictBase, active: Tensor | None) -> TensorDictBase:
        """What the models read of N steps: observations and how they change, of unit scale, and actions."""
        seen = self.input_norm.normalize(self._transitions(batch))
        taking_part = torch.ones_like(seen[..., 0]) if active is None else active.to(seen)
        entries = {TRANSITION: seen, ACTIVE: taking_part.unsqueeze(-1)}
        inputs = TensorDict(entries, batch.batch_size)
        return inputs.set(self.action_key, batch.get(self.action_key))

    def _transitions(self, batch: TensorDictBase) -> Tensor:
        """Observations and how they change, ``[N, n, 2o]``."""
        now = batch.get(self.observation_key)
        return torch.cat([now, batch.get("next").get(self.observation_key) - now], -1)
