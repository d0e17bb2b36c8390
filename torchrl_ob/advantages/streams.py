"""The optimal baseline on what each agent earned of a team's reward."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase, unravel_key
from torchrl.envs import EnvBase

from torchrl_ob._specs import Group
from torchrl_ob.advantages.ob import ObAdvantage
from torchrl_ob.critics.backbones.additive import AdditiveBackbone
from torchrl_ob.critics.reward_streams import RewardStreams

__all__ = ["StreamAdvantage"]


class StreamAdvantage(ObAdvantage):
    r"""The optimal baseline on each agent's own share of the team's reward.

    .. math::
        X^i = G_i - b^{*,i}(s, a^{-i}), \qquad
        G_{i,t} = r_{i,t} + \gamma (1 - d_t) \big[(1 - \lambda) Q_i(s_{t+1}, a') + \lambda G_{i,t+1}\big]

    A team's reward r pays every agent for the actions of n - 1 others. :class:`~torchrl_ob.RewardStreams` splits it
    into a reward :math:`r_i` for each agent, from which the others' part is taken off, and Q is fitted to the returns
    of these. Where the models of the reward are exact and no agent's action changes what the others earn, now or
    later, the gradient has the direction of the team's; otherwise it leaves out what agents do to one another. A
    reward that the agents earn together is not split: the advantage is then that of :class:`~torchrl_ob.ObAdvantage`.

    The critic needs a value for each agent: ``backbone="pooled"`` or ``"concat"``. Arguments, options and keys are
    those of :class:`~torchrl_ob.ObAdvantage`, with one addition.

    Keyword Args:
        streams: splits the reward. The advantage fits it to every batch that it is called with: call it once a batch.

    Example:
        >>> import torch
        >>> from torchrl.envs import ExplorationType, VmasEnv, set_exploration_type  # needs vmas
        >>> from torchrl_ob import JointQCritic, StreamAdvantage, policy_from_env
        >>> env = VmasEnv("navigation", num_envs=4, n_agents=3)
        >>> policy, critic = policy_from_env(env), JointQCritic.from_env(env)
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

    def __init__(self, *, streams: RewardStreams, **options: Any) -> None:
        super().__init__(**options)
        if isinstance(getattr(self.team.head, "backbone", None), AdditiveBackbone):
            raise ValueError(
                'an additive critic has one value for the team, and each stream needs its own: take backbone="pooled" or "concat".'
            )
        self.__dict__["streams"] = streams  # no submodule: the loss must not train it

    @classmethod
    def from_env(
        cls, env: EnvBase, *, group: Group = "agents", hidden_dim: int = 128, **options: Any
    ) -> StreamAdvantage:
        """Build the advantage with streams from an environment's specs.

        Args:
            env: the environment.
            group: name of the group of agents.
            hidden_dim: width of the networks of the streams.
            **options: the other arguments of the class.
        """
        streams = RewardStreams.from_env(env, group=group, hidden_dim=hidden_dim)
        return cls(streams=streams, **options)

    def forward(self, tensordict: TensorDictBase, **params: Any) -> TensorDictBase:
        """Fit the streams to the batch; write advantage, value target and baseline, each ``[*B, T, n, 1]``.

        Arguments and errors are those of :meth:`ObAdvantage.forward() <torchrl_ob.ObAdvantage.forward>`.
        """
        key, batch = self.tensor_keys.reward, self.read(tensordict)
        reward = self.read_reward(batch, torch.Size([*self.team.agents(batch), 1]))
        active, valid = self.team.active(batch), self.team.valid(batch)
        steps = [batch.copy().set("next", self.following(batch)).reshape(-1)]
        steps.append(reward.flatten(0, -3))
        if active is not None:
            steps.append(active.flatten(0, -2))
        self.streams.fit(*(steps if valid is None else [x[valid.flatten()] for x in steps]))
        own = self.streams(*steps).reshape(reward.shape)
        split = batch.copy().set(unravel_key(("next", key)), own)
        super().forward(split, **params)
        for name in self.out_keys:
            tensordict.set(name, split.get(name))
        return tensordict
