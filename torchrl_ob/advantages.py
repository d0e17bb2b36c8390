"""The advantages: the optimal baseline, COMA's baseline, and none.

All three estimate each agent's gradient signal ``X^i = (return or Q) - b^i``, with a baseline
``b^i`` that does not depend on agent i's own action and so leaves the expected gradient unchanged.
"""

from __future__ import annotations

from torchrl_ob.joint_advantage import JointAdvantage

__all__ = ["ComaAdvantage", "MapgAdvantage", "ObAdvantage"]


class ObAdvantage(JointAdvantage):
    r"""Advantage with the optimal baseline, the one of least gradient variance.

    .. math::
        X^i = G^i - b^{*,i}, \qquad
        b^{*,i}(s, a^{-i}) = \frac{E_{a^i \sim \pi^i}[Q^i(s, a)\,w(a^i)]}{E_{a^i \sim \pi^i}[w(a^i)]},
        \qquad w(a^i) = \|\nabla_{\psi^i} \log \pi^i(a^i | \psi^i)\|^2

    where :math:`\psi^i` are the parameters of agent i's distribution: the variance minimised is that
    of the gradient in :math:`\psi^i`. (arXiv:2108.08612, theorem 3 and the surrogate of section 4.)

    Arguments, options and keys are those of :class:`~torchrl_ob.joint_advantage.JointAdvantage`.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import TensorDictModule
        >>> from torchrl.modules import ProbabilisticActor
        >>> from torchrl_ob import JointQCritic, ObAdvantage
        >>> num_agents, num_actions = 3, 5
        >>> logits = TensorDictModule(
        ...     torch.nn.Linear(4, num_actions), [("agents", "observation")], [("agents", "logits")]
        ... )
        >>> policy = ProbabilisticActor(
        ...     logits,
        ...     in_keys=[("agents", "logits")],
        ...     out_keys=[("agents", "action")],
        ...     distribution_class=torch.distributions.Categorical,
        ... )
        >>> critic = JointQCritic(
        ...     num_agents, num_actions, observation_dim=4, action_encoding="categorical"
        ... )
        >>> advantage = ObAdvantage(
        ...     actor_network=policy, value_network=critic, gamma=0.99, lmbda=0.9
        ... )
        >>> batch = [2, 10]  # trajectories, time
        >>> def observe():
        ...     return TensorDict({"observation": torch.randn(*batch, num_agents, 4)}, batch)
        >>> td = TensorDict({"agents": observe(), "next": {"agents": observe()}}, batch)
        >>> td["agents", "action"] = torch.randint(num_actions, (*batch, num_agents))
        >>> td["next", "reward"] = torch.randn(*batch, 1)  # of the team
        >>> td["next", "done"] = td["next", "terminated"] = torch.zeros(*batch, 1, dtype=torch.bool)
        >>> advantage(td)["advantage"].shape
        torch.Size([2, 10, 3, 1])
    """

    _weights = "optimal_weights"


class ComaAdvantage(JointAdvantage):
    r"""Advantage with COMA's counterfactual baseline, the expectation of Q over the own action.

    .. math::
        X^i = G^i - E_{a^i \sim \pi^i}[Q^i(s, a^{-i}, a^i)]

    (Foerster et al., "Counterfactual Multi-Agent Policy Gradients", AAAI 2018, equation 4.)

    Arguments, options and keys are those of :class:`~torchrl_ob.joint_advantage.JointAdvantage`; see
    :class:`ObAdvantage` for an example.
    """

    _weights = "probabilities"


class MapgAdvantage(JointAdvantage):
    r"""No baseline: :math:`X^i = G^i`, the plain multi-agent policy gradient, to compare with.

    (arXiv:2108.08612, equation 2.) Arguments, options and keys are those of
    :class:`~torchrl_ob.joint_advantage.JointAdvantage`; the baseline is written as zeros. See
    :class:`ObAdvantage` for an example.
    """

    _weights = None
