"""The optimal baseline."""

from __future__ import annotations

from tensordict import TensorDictBase
from torch import Tensor

from torchrl_ob.advantages.base import JointAdvantage

__all__ = ["ObAdvantage"]


class ObAdvantage(JointAdvantage):
    r"""Advantage with the optimal baseline, which gives the gradient the smallest variance.

    .. math::
        X^i = G^i - b^{*,i}, \qquad
        b^{*,i}(s, a^{-i}) = \frac{E_{a^i \sim \pi^i}[Q^i(s, a)\,w(a^i)]}{E_{a^i \sim \pi^i}[w(a^i)]},
        \qquad w(a^i) = \|\nabla_{\psi^i} \log \pi^i(a^i | \psi^i)\|^2

    Here :math:`G` is the λ-return of Q,

    .. math::
        G_t = r_t + \gamma (1 - d_t) \big[(1 - \lambda) Q(s_{t+1}, a') + \lambda G_{t+1}\big],

    with :math:`a'` from the current policy, :math:`d_t = 1` where the episode terminated and :math:`\lambda = 0` at
    the last step of a trajectory that was cut by a time limit. The parameters of agent i's distribution are
    :math:`\psi^i`, and the minimized variance is that of the gradient in :math:`\psi^i`. They are the logits of a
    categorical policy, even if it was built from ``probs`` or the scores of an ``Ordinal``; the loc and scale of a
    Gaussian policy, before squashing or truncation and after ``tanh_loc``, as the option ``psi`` says; and for every
    other distribution the parameters that the network outputs. (arXiv:2108.08612, section 4: the surrogate.) The
    baseline uses the parameters of the policy that acted, which the actor left in the batch beside the action; if the
    batch does not have them, it uses those of the current actor.

    Args:
        actor_network: the agents' policies, such as a :class:`~torchrl.modules.ProbabilisticActor`;
            its distribution has batch shape ``[*B, T, n]``.
        value_network: the critic: a :class:`~torchrl_ob.JointQCritic`, or any module that reads the joint
            action and writes ``[*B, T, n, 1]``.
        gamma: discount.
        lmbda: trace decay λ of the return.

    Keyword Args:
        signal: ``"lambda_return"`` for :math:`X = G - b` (the paper's code) or ``"critic"`` for
            :math:`X = Q - b` (the paper's equations).
        bootstrap: the next action in the return is ``"sampled"`` from the policy, or the agent's own next action is
            averaged over its candidates while the others' are sampled: ``"expected"``. With ``"control_variate"``,
            what Q explains of later actions is subtracted from the return, see
            :func:`~torchrl_ob.functional.control_variate`; use it with a critic that explains the effect of actions.
        rule: rule of the expectation over an agent's own continuous action: ``"gauss"`` or ``"monte_carlo"``.
            Discrete actions are always enumerated.
        num_points: size of the rule: nodes in each dimension (``"gauss"``: 2 or 3, in all combinations; by default 3
            in one or two dimensions, 2 in three or four, and ``2d + 1`` points on the axes in more), or samples in
            all (``"monte_carlo"``: 1,000, as in the paper's code).
        psi: for Gaussians, the parameters in which the variance is minimized: ``"loc_scale"``, ``"loc_log_scale"`` or
            ``"loc"``.
        chunk_size: number of steps times agents that are processed at a time, by default 9,000 on a CPU, and
            on a GPU as many as fit in a quarter of its memory, or half of what is free; whole trajectories are kept together.
        time_dim: the time dimension of the input; by default the one named ``"time"``, or else the last.
        other_actors: the policies of other groups of agents, whose actions the critic reads too; their
            next actions are sampled. See :func:`~torchrl_ob.group_critics`.
        device: accepted because TorchRL's losses pass it; everything runs on the input's device.

    Keys that ``set_keys`` accepts: ``advantage``, ``value_target``, ``value`` (by default the first output of the
    critic), ``reward``, ``done``, ``terminated``, ``action`` (by default the actor's output), ``baseline`` and
    ``mask`` (by default ``"baseline"`` and ``"mask"`` in the action's group), and ``valid`` (by default
    ``("collector", "mask")``). A loss passes its own keys to the advantage when ``loss.set_keys`` is called *after*
    ``loss.make_value_estimator``; ``baseline``, ``mask``, ``valid`` and ``action`` are set on the advantage itself.
    If no reward key was set, a ``"reward"`` at the root is refused where the batch also has one beside the action.
    Flags may be booleans or the numbers 0 and 1.

    If the batch has a ``mask``, ``[*B, T, n]``, it says which agents take part. Agents that are dead or have no
    choice get an advantage of zero, and so do agents whose action mask leaves no action. The content of the state
    after a termination is not used.

    If the batch has ``valid``, ``[*B, T]``, as ``split_trajectories`` and ``split_trajs=True`` write it, a trajectory
    ends with its last valid step. At padded steps, the advantage, the value target and the baseline are zero.
    TorchRL's losses leave these steps out if ``("collector", "mask")`` is in the minibatch; otherwise drop them after
    the advantage: ``td = td[td["collector", "mask"]]``.

    Actors and critic are functions of a step; a hidden state in the batch is an input like any other. A critic that
    remembers encodes the history once for a batch: :class:`~torchrl_ob.RecurrentCritic`. Any other network with a
    memory in time is refused at the first call. Trajectories that are laid end to end in time, as by
    ``MultiSyncCollector(cat_results=-1)``, are refused if ``("collector", "traj_ids")`` shows it. If the collector
    does not number them, this cannot be detected: use ``cat_results=0`` or ``"stack"``.

    In TorchRL's ``PPOTrainer(gae=advantage)``, pass ``reward_key``, ``episode_reward_key``, which is read at each
    batch for its log, ``action_key``, and a ``replay_buffer`` of one batch with ``SamplerWithoutReplacement``;
    without this buffer, an epoch has no end.

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

    def baseline(self, tensordict: TensorDictBase) -> Tensor:
        r""":math:`b^* = \sum_k x_k Q_k` over candidate own actions, ``[*B, n, 1]``."""
        own = self.team.candidates(tensordict, "optimal_weights", acting=True)
        q = self.team.q_candidates(tensordict, own.actions)
        return (own.optimal_weights * q).sum(-1, keepdim=True)
