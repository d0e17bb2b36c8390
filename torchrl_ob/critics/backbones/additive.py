"""A sum of one term per agent."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from torchrl_ob.critics.backbones.layers import AgentLinear, TailedBackbone
from torchrl_ob.critics.backbones.protocol import Sizes

__all__ = ["AdditiveBackbone"]


class AdditiveBackbone(TailedBackbone):
    r"""One value for the team: the mean of one term per agent.

    .. math::
        Q(s, a) = \tfrac{1}{n} \textstyle\sum_j q(o_j, a_j, c(s), j), \qquad
        c(s) = \tfrac{1}{n} \textstyle\sum_j \sigma\big(\phi(o_j)\big) + S s

    All agents get the same value, so the reward must be the team's. A candidate changes one term:
    :math:`Q(s, a^{-i}, a^i_k) = Q(s, a) + \tfrac{1}{n}[q(o_i, a^i_k) - q(o_i, a^i)]`. (Value decomposition: Sunehag
    et al., "Value-Decomposition Networks For Cooperative Multi-Agent Learning", AAMAS 2018, section 3; here the terms
    share a context of all observations.)

    Inputs and output are those of every backbone.
    """

    def __init__(
        self, sizes: Sizes, *, share_params: bool = True, activation: type[nn.Module] = nn.Tanh
    ) -> None:
        super().__init__()
        linear = partial(AgentLinear, num_agents=sizes.num_agents, share_params=share_params)
        width = sizes.hidden_dim
        self.embedding = nn.Sequential(
            linear(sizes.observation_dim, width), activation(), linear(width, width), activation()
        )
        self.observation = linear(sizes.observation_dim, width, identity=True)
        self.context = linear(width, width, bias=False)
        self.state = linear(sizes.state_dim, width, bias=False)
        self.own = linear(sizes.action_dim, width, bias=False)
        self.tail = nn.Sequential(
            activation(), linear(width, width), activation(), linear(width, sizes.out_dim)
        )
        self.every_action = sizes.out_dim > 1

    def candidates(
        self, observation: Tensor, state: Tensor, action: Tensor, own: Tensor | None
    ) -> Tensor:
        """Values of own actions, ``[B, n, K, out_dim]``, or of the action taken if none are given."""
        observation, taken = observation.unsqueeze(-2), action.unsqueeze(-2)
        context = self.context(self.embedding(observation).mean(1, keepdim=True))
        if state.shape[-1]:
            context = context + self.state(state[:, None, None])
        observed = self.observation(observation) + context
        if self.every_action:  # one output for each action; those taken are looked up
            terms = self.tail(observed)
            term = (terms * taken).sum(-1, keepdim=True)
        else:
            term = self.tail(observed + self.own(taken))
            terms = term if own is None else self.tail(observed + self.own(own))
        return term.mean(1, keepdim=True) + (terms - term) / action.shape[1]
