"""Credit for a team's reward by a stream for each agent."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase, unravel_key
from torch import Tensor
from torchrl.envs import EnvBase

from torchrl_ob._checks.batch import per_agent
from torchrl_ob._specs import Group
from torchrl_ob.advantages.ob import ObAdvantage
from torchrl_ob.critics.reward_streams import RewardStreams
from torchrl_ob.functional import lambda_return

__all__ = ["StreamAdvantage"]


class StreamAdvantage(ObAdvantage):
    r"""The advantage of each agent's own reward stream, plus a share of the others' rewards by the optimal baseline.

    .. math::
        X^i = \underbrace{G^i_{\text{own}} - V_i(s)}_{A^i_{\text{own}}}
        + c\, \big( \underbrace{G - b^{*,i}(s, a^{-i})}_{A^i_{\text{OB}}} - A^i_{\text{own}} \big)

    An agent's *reward stream* is its own share of the team's reward, as :class:`~torchrl_ob.RewardStreams` splits it.
    Here :math:`G^i_{\text{own}}` is the λ-return of agent i's stream, and :math:`A_{\text{OB}}` is the advantage of
    :class:`~torchrl_ob.ObAdvantage` on the team's reward, so that the difference in parentheses is the part of the
    others. A team's reward pays every agent for the actions of n - 1 others; the share c of that noise remains:

    - ``share=1`` is :class:`~torchrl_ob.ObAdvantage`: unbiased for any model and any V;
    - ``share=0`` is the split alone, without the others' rewards. It is unbiased if the model is exact and no agent's
      action changes what the others earn, now or later; otherwise it is biased by what the agent does to the others;
    - for 0 < c < 1, the bias is :math:`(1 - c)` times the gradient of what the agent does to the others, and the
      variance of the others' part is :math:`c^2` times as large.

    If agents rarely meet (navigation), a small share learns faster; if one agent carries what all are
    paid for (balance), use ``ObAdvantage``. The ``value_target``, for the joint critic, and the ``baseline`` are
    those of the team's reward.

    Arguments, options and keys are those of :class:`~torchrl_ob.ObAdvantage`, with these additions.

    Keyword Args:
        streams: splits the reward and values the parts. The advantage fits it to every batch that it is called with:
            call it once a batch.
        share: c, between 0 and 1.

    Example:
        >>> import torch
        >>> from torchrl.envs import ExplorationType, VmasEnv, set_exploration_type  # needs vmas
        >>> from torchrl_ob import JointQCritic, StreamAdvantage, policy_from_env
        >>> env = VmasEnv("navigation", num_envs=4, n_agents=3)
        >>> policy, critic = policy_from_env(env), JointQCritic.from_env(env, backbone="additive")
        >>> advantage = StreamAdvantage.from_env(
        ...     env, actor_network=policy, value_network=critic, gamma=0.99, lmbda=0.9
        ... )
        >>> advantage.set_keys(reward=env.reward_key)
        >>> with set_exploration_type(ExplorationType.RANDOM), torch.no_grad():
        ...     td = env.rollout(5, policy)
        >>> reward = td["next", "agents", "reward"]
        >>> td["next", "agents", "reward"] = reward.mean(-2, keepdim=True).expand_as(reward)
        >>> advantage(td)["advantage"].shape
        torch.Size([4, 5, 3, 1])
    """

    def __init__(self, *, streams: RewardStreams, share: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        if not 0 <= share <= 1:
            raise ValueError(f"share must be in [0, 1], got {share}.")
        self.share = share
        self.__dict__["streams"] = streams  # no submodule: the loss must not train it

    @classmethod
    def from_env(
        cls,
        env: EnvBase,
        *,
        group: Group = "agents",
        known: bool = False,
        hidden_dim: int = 128,
        **options: Any,
    ) -> StreamAdvantage:
        """Build the advantage with streams from an environment's specs.

        Args:
            env: the environment.
            group: name of the group of agents.
            known: whether each agent is paid for its own actions, see :class:`~torchrl_ob.RewardStreams`.
            hidden_dim: width of the networks of the streams.
            **options: the other arguments of the class.
        """
        streams = RewardStreams.from_env(env, group=group, known=known, hidden_dim=hidden_dim)
        return cls(streams=streams, **options)

    @property
    def fit(self) -> RewardStreams:
        """What is fitted apart from the loss, with its state and its report."""
        return self.streams

    def forward(self, tensordict: TensorDictBase, **params: Any) -> TensorDictBase:
        """Fit the streams to the batch; write advantage, value target and baseline, each ``[*B, T, n, 1]``.

        Arguments and errors are those of :meth:`ObAdvantage.forward() <torchrl_ob.ObAdvantage.forward>`.
        """
        keys, streams = self.tensor_keys, self.streams
        reward_key = unravel_key(("next", keys.reward))
        batch = self.read(tensordict)
        paid = per_agent(batch, keys.reward, "reward", (*self.team.agents(batch), 1))
        of_team = batch.copy().set(reward_key, streams.team_reward(paid))
        super().forward(of_team, **params)
        advantage = of_team.get(keys.advantage)
        active, valid = self.team.active(batch), self.team.valid(batch)
        team = of_team.get(reward_key).to(advantage.dtype)
        known = paid.to(advantage.dtype) if streams.known else team

        def flat(entries: Any) -> Any:
            return entries.flatten(0, batch.ndim - 1) if valid is None else entries[valid]

        some = None if active is None else flat(active)
        streams.fit_rewards(flat(batch), flat(team), some)
        every = batch.reshape(-1)
        own = streams.own_rewards(
            every, known.flatten(0, -3), None if active is None else active.flatten(0, -2)
        ).reshape(advantage.shape)
        with torch.no_grad():
            value, returns = self._own_returns(batch, own)
        streams.fit_values(flat(batch), flat(returns))
        mine = returns - value
        if active is not None:
            mine = torch.where(active.unsqueeze(-1), mine, 0)
        tensordict.set(keys.advantage, mine + self.share * (advantage - mine))
        for key in (keys.value_target, keys.baseline):
            tensordict.set(key, of_team.get(key))
        return tensordict

    def _own_returns(self, batch: TensorDictBase, own: Tensor) -> tuple[Tensor, Tensor]:
        """V and the λ-returns of the agents' own rewards, ``[*B, T, n, 1]`` each."""
        done, terminated = self.ends(batch)
        value = self.streams.values(batch)
        following = torch.where(terminated, 0, self.streams.values(self.following(batch)))
        decay = {"gamma": self.gamma, "lmbda": self.lmbda}
        time_dim = self._get_time_dim(None, batch)
        return value, lambda_return(own, following, done, terminated, **decay, time_dim=time_dim)
