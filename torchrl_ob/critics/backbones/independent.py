"""One term per agent."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from torchrl_ob.critics.backbones.layers import AgentLinear, TailedBackbone
from torchrl_ob.critics.backbones.protocol import Sizes

__all__ = ["IndependentBackbone"]


class IndependentBackbone(TailedBackbone):
    r"""Each agent's value from its own observation and action alone: :math:`Q_i = f(o_i, a_i, s, i)`."""

    def __init__(
        self, sizes: Sizes, *, share_params: bool = True, activation: type[nn.Module] = nn.Tanh
    ) -> None:
        super().__init__()
        linear = partial(AgentLinear, num_agents=sizes.num_agents, share_params=share_params)
        width = sizes.hidden_dim
        self.observation = linear(sizes.observation_dim, width, identity=True)
        self.state = linear(sizes.state_dim, width, bias=False)
        self.own = linear(sizes.action_dim, width, bias=False)
        self.tail = nn.Sequential(
            activation(), linear(width, width), activation(), linear(width, sizes.out_dim)
        )

    def candidates(
        self, observation: Tensor, state: Tensor, action: Tensor, own: Tensor | None
    ) -> Tensor:
        """Values of own actions, ``[B, n, K, out_dim]``, or of the action taken if none are given."""
        own = action.unsqueeze(-2) if own is None else own
        observed = self.observation(observation.unsqueeze(-2)) + self.own(own)
        if state.shape[-1]:
            observed = observed + self.state(state[:, None, None])
        return self.tail(observed)
