"""Small teams for the tests: policies of every kind, critics, and random batches."""

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torch import distributions as D
from torchrl.modules import (
    IndependentNormal,
    MaskedCategorical,
    MaskedOneHotCategorical,
    OneHotCategorical,
    ProbabilisticActor,
    TanhNormal,
    TruncatedNormal,
)


class MultiCategorical(D.Independent):
    """Several independent choices of one agent."""

    def __init__(self, logits):
        super().__init__(D.Categorical(logits=logits), 1)


class IndependentLaplace(D.Independent):
    """A distribution that the library has no closed form for."""

    def __init__(self, loc, scale):
        super().__init__(D.Laplace(loc, scale), 1)


DISCRETE = {
    "categorical": D.Categorical,
    "one_hot": OneHotCategorical,
    "torch_one_hot": D.OneHotCategorical,
    "masked": MaskedCategorical,
    "masked_one_hot": MaskedOneHotCategorical,
    "multi_categorical": MultiCategorical,
}
CONTINUOUS = {
    "independent_normal": IndependentNormal,
    "tanh_normal": TanhNormal,
    "truncated_normal": TruncatedNormal,
    "laplace": IndependentLaplace,
}


class Table(torch.nn.Module):
    """A policy that ignores its observation: its parameters are ψ itself."""

    def __init__(self, *psi):
        super().__init__()
        self.psi = torch.nn.ParameterList(psi)

    def forward(self, observation):
        batch = observation.shape[:-2]
        out = tuple(p.expand(*batch, *p.shape) for p in self.psi)
        return out if len(out) > 1 else out[0]


def make_actor(kind, psi, group="agents", **dist_kwargs):
    """An actor with parameters ``psi``: logits ``[n, ...]``, or loc and scale ``[n, d]``."""
    names = ["logits"] if kind in DISCRETE else ["loc", "scale"]
    in_keys = {name: (group, name) for name in names}
    if kind.startswith("masked"):
        in_keys["mask"] = (group, "mask")
    return ProbabilisticActor(
        TensorDictModule(Table(*psi), [(group, "observation")], [(group, name) for name in names]),
        in_keys=in_keys,
        out_keys=[(group, "action")],
        distribution_class={**DISCRETE, **CONTINUOUS}[kind],
        distribution_kwargs=dist_kwargs,
        return_log_prob=True,
    )


class FunctionCritic(TensorDictModuleBase):
    """Any function of the joint action ``[*B, n, *event]`` as a critic with one value an agent."""

    def __init__(self, function, group="agents"):
        super().__init__()
        self.function, self.group = function, group
        self.in_keys = [(group, "action")]
        self.out_keys = [(group, "state_action_value")]

    def forward(self, tensordict):
        value = self.function(tensordict[self.group, "action"])
        return tensordict.set(self.out_keys[0], value.unsqueeze(-1))


def random_batch(batch, action, observation_dim=4, group="agents", dtype=torch.float32, mask=None):
    """Random trajectories whose joint action is given, ``[*batch, n, *event]``."""
    num_agents = action.shape[len(batch)]

    def agents():
        entries = {"observation": torch.randn(*batch, num_agents, observation_dim, dtype=dtype)}
        if mask is not None:
            entries["mask"] = mask.expand(*batch, *mask.shape)
        return TensorDict(entries, batch)

    flag = torch.zeros(*batch, 1, dtype=torch.bool)
    following = {
        group: agents().set("reward", torch.randn(*batch, num_agents, 1, dtype=dtype)),
        "done": flag,
        "terminated": flag.clone(),
    }
    td = TensorDict({group: agents().set("action", action), "next": following}, batch)
    return td


class Plain(TensorDictModuleBase):
    """A critic as a user would write it: forward and nothing else."""

    def __init__(self, critic):
        super().__init__()
        self.critic, self.in_keys, self.out_keys = critic, critic.in_keys, critic.out_keys

    def forward(self, tensordict):
        return self.critic(tensordict)
