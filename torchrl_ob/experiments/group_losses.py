"""The losses of several groups of agents, as one."""

from __future__ import annotations

from collections.abc import Mapping

from tensordict import TensorDict, TensorDictBase
from tensordict.utils import NestedKey
from torch import nn
from torchrl.objectives import LossModule

from torchrl_ob.experiments.update import keep_agents_apart, mean_over_active

__all__ = ["GroupLosses"]


class GroupLosses(nn.Module):
    """TorchRL's losses, one for each group of agents; their terms are named by the group.

    Args:
        losses: of each group, each with keys of its own.
        active_keys: where it is said which agents of a group take part, ``[N, n]``; ``None`` where all do.
        actor_network: the policies of all groups, which a trainer hands to the workers of a collector.
    """

    def __init__(
        self,
        losses: Mapping[str, LossModule],
        active_keys: Mapping[str, NestedKey | None],
        actor_network: nn.Module,
    ) -> None:
        super().__init__()
        self.losses, self.active_keys = nn.ModuleDict(losses), dict(active_keys)
        self.__dict__["actor_network"] = actor_network  # the losses own its parameters
        for group, loss in losses.items():
            if self.active_keys[group] is not None:
                keep_agents_apart(loss)

    def forward(self, minibatch: TensorDictBase) -> TensorDictBase:
        """The terms of all losses, such as ``loss_objective_adversary``."""
        found = {}
        for group, loss in self.losses.items():
            terms = self._terms(loss, minibatch, self.active_keys[group])
            found.update({f"{name}_{group}": term for name, term in terms.items()})
        return TensorDict(found)

    @staticmethod
    def _terms(
        loss: nn.Module, minibatch: TensorDictBase, active_key: NestedKey | None
    ) -> TensorDictBase:
        if active_key is None:
            return loss(minibatch)
        active = minibatch.get(active_key)
        # where TorchRL's losses look for what to leave out of a normalisation
        seen = minibatch.copy().set("shifted_valid", active.unsqueeze(-1))
        return mean_over_active(loss(seen), active)
