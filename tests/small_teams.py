"""Small teams, discrete and continuous, and batches of theirs."""

import torch
from games import random_batch
from tensordict.nn import TensorDictModule
from torchrl.modules import ProbabilisticActor, TanhNormal

from torchrl_ob import ComaAdvantage, JointQCritic, MapgAdvantage, ObAdvantage

N, OBS = 3, 4
ALL = [ObAdvantage, ComaAdvantage, MapgAdvantage]


def make_team(discrete=False, group="agents", dtype=torch.float32, **critic_options):
    """An actor with an observation and a critic of the same team."""
    if discrete:
        net = TensorDictModule(
            torch.nn.Linear(OBS, 5, dtype=dtype), [(group, "observation")], [(group, "logits")]
        )
        names, dist = ["logits"], torch.distributions.Categorical
        critic_options |= {"action_dim": 5, "action_encoding": "categorical"}
    else:

        class LocScale(torch.nn.Linear):
            def forward(self, x):
                loc, scale = super().forward(x).chunk(2, -1)
                return loc, (scale - 1).exp()

        net = TensorDictModule(
            LocScale(OBS, 4, dtype=dtype),
            [(group, "observation")],
            [(group, "loc"), (group, "scale")],
        )
        names, dist = ["loc", "scale"], TanhNormal
        critic_options |= {"action_dim": 2}
    actor = ProbabilisticActor(
        net,
        in_keys=[(group, name) for name in names],
        out_keys=[(group, "action")],
        distribution_class=dist,
        return_log_prob=True,
    )
    critic = JointQCritic(
        N,
        observation_dim=OBS,
        observation_key=(group, "observation"),
        action_key=(group, "action"),
        hidden_dim=32,
        **critic_options,
    )
    return actor, critic.to(dtype)


def make_batch(*batch, discrete=False, group="agents", dtype=torch.float32):
    action = (
        torch.randint(5, (*batch, N)) if discrete else torch.rand(*batch, N, 2, dtype=dtype) - 0.5
    )
    return random_batch(batch, action, OBS, group, dtype)


def make(module, actor, critic, group="agents", **options):
    options = {"gamma": 0.9, "lmbda": 0.8, **options}
    advantage = module(actor_network=actor, value_network=critic, **options)
    advantage.set_keys(reward=(group, "reward"))
    return advantage
