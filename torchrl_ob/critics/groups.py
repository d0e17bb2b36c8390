"""One joint critic over several groups of agents, whose observations and actions differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, TensorDictSequential
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.envs import EnvBase

from torchrl_ob.critics.backbones import GroupBackbone, Others
from torchrl_ob.critics.joint import JointQCritic
from torchrl_ob.critics.recurrent import RecurrentCritic

__all__ = ["GroupQCritic", "group_critics", "join_critics"]


class GroupQCritic(TensorDictModuleBase):
    r"""Action value of the joint action of all groups, for the agents of one group.

    .. math::
        z_j = \phi_{g(j)}(o_j, a_j, j), \qquad
        Q_i(s, a) = \rho_g\Big(z_i + M_g\, \tfrac{1}{N}\textstyle\sum_j \sigma(z_j) + S_g s\Big)

    The sum is over the N agents of all groups. Each group embeds its agents with its own network, and the messages to
    the other agents have the same width for all groups. For an alternative action, only the agent itself is embedded
    again; the other groups are read once. It is accepted wherever a :class:`~torchrl_ob.JointQCritic` is.

    Args:
        critics: an ``nn.ModuleDict`` with the critic of each group, shared by the views of all of them.
        group: name of the group whose agents are valued.

    :func:`group_critics` makes it and has an example.
    """

    def __init__(self, critics: Any, group: str) -> None:
        super().__init__()
        self.critics = critics
        self.group = group
        read = [*critics[group].in_keys, *(key for x in critics.values() for key in x.in_keys)]
        self.in_keys: list[NestedKey] = list(dict.fromkeys(read))
        self.out_keys = list(critics[group].out_keys)
        self.action_keys: list[NestedKey] = [x.action_key for x in critics.values()]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write Q of the joint action for the agents of the group, ``[*B, n, 1]``, under ``out_keys[0]``."""
        return self.critics[self.group](tensordict, self._others(tensordict))

    def candidate_values(self, tensordict: TensorDictBase, actions: Tensor) -> Tensor:
        """Q of alternative own actions, with the actions of all other agents as they were taken.

        Args:
            tensordict: as for :meth:`forward`, of batch size ``[*B]``.
            actions: K own actions of every agent of the group, ``[*B, n, K, *event]``.

        Returns:
            ``[*B, n, K]``.
        """
        critic = self.critics[self.group]
        return critic.candidate_values(tensordict, actions, self._others(tensordict))

    def _others(self, tensordict: TensorDictBase) -> Others | None:
        others = [critic for name, critic in self.critics.items() if name != self.group]
        if not others:
            return None
        first, *rest = (critic.messages(tensordict) for critic in others)
        return Others(sum(rest, first), sum(critic.action_shape[0] for critic in others))


def join_critics(critics: Mapping[str, Any]) -> dict[str, Any]:
    """One critic over all groups from a critic for each: its view for each group.

    Args:
        critics: critics with a pooled backbone, or another :class:`GroupBackbone`, of the same ``hidden_dim``, by the
            name of their group; or such critics in separate memories, :class:`~torchrl_ob.RecurrentCritic`.

    Returns:
        The critic of each group. They share all networks.

    Raises:
        ValueError: for critics with another backbone, and of different widths.
    """
    if all(isinstance(critic, RecurrentCritic) for critic in critics.values()):
        memory = TensorDictSequential(*(critic.memory for critic in critics.values()))
        heads = join_critics({name: critic.head for name, critic in critics.items()})
        return {name: RecurrentCritic(memory, head) for name, head in heads.items()}
    for name, critic in critics.items():
        if not isinstance(critic.backbone, GroupBackbone):
            raise ValueError(
                f"the critic of the group {name!r} has a {type(critic.backbone).__name__}, which takes one group of agents: "
                'take backbone="pooled".'
            )
    widths = {name: critic.hidden_dim for name, critic in critics.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"the critics of all groups need the same hidden_dim, got {widths}.")
    shared = nn.ModuleDict(critics)
    return {name: GroupQCritic(shared, name) for name in critics}


def group_critics(
    env: EnvBase, groups: Sequence[str] | None = None, **options: Any
) -> dict[str, GroupQCritic]:
    """Build one critic over the groups of an environment, from its specs.

    Args:
        env: the environment, with ``(group, "observation")`` or a root ``"state"``, and ``(group, "action")``.
        groups: names of the groups; all of ``env.group_map`` by default.
        **options: of :class:`~torchrl_ob.JointQCritic`, for every group.

    Returns:
        The critic of each group. They share all networks, so an optimizer of one has the parameters of all.

    Raises:
        KeyError: if the environment has no such group.
        ValueError: for the concatenating backbone.

    Example:
        >>> from torchrl.envs import VmasEnv  # needs vmas
        >>> from torchrl_ob import group_critics
        >>> env = VmasEnv("simple_tag", num_envs=2)
        >>> critics = group_critics(env, hidden_dim=16)
        >>> td = critics["agent"](critics["adversary"](env.rollout(3)))
        >>> td["adversary", "state_action_value"].shape, td["agent", "state_action_value"].shape
        (torch.Size([2, 3, 3, 1]), torch.Size([2, 3, 1, 1]))
    """
    names = list(env.group_map) if groups is None else list(groups)
    return join_critics({name: JointQCritic.from_env(env, group=name, **options) for name in names})
