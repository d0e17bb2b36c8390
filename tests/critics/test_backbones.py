"""Backbones of one's own: one that only values the joint action, and what needs more."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn

from torchrl_ob import JointQCritic
from torchrl_ob.critics.backbones import ConcatBackbone, PooledBackbone
from torchrl_ob.critics.groups import join_critics

N, OBS, STATE, D = 3, 4, 2, 2


class Plain(nn.Module):
    """The pooled backbone with nothing but ``forward``."""

    backbone_class = PooledBackbone

    def __init__(self, sizes, **options):
        super().__init__()
        self.whole = self.backbone_class(sizes, **options)

    def forward(self, observation, state, action):
        return self.whole(observation, state, action)


class PlainConcat(Plain):
    backbone_class = ConcatBackbone


def inputs(encoding, batch=(2, 5)):
    action = torch.randn(*batch, N, D)
    if encoding == "categorical":
        action = torch.randint(D, (*batch, N))
    agents = {"observation": torch.randn(*batch, N, OBS), "action": action}
    return TensorDict({"agents": agents, "state": torch.randn(*batch, STATE)}, batch)


@pytest.mark.parametrize("encoding", ["continuous", "categorical"])
@pytest.mark.parametrize("plain", [Plain, PlainConcat])
@pytest.mark.parametrize("chunk_bytes", [None, 1])
@pytest.mark.parametrize("recorded", [False, True])
def test_a_backbone_that_only_evaluates_agrees_with_one_that_has_candidates(
    encoding, plain, chunk_bytes, recorded
):
    options = {"action_encoding": encoding, "hidden_dim": 8, "chunk_bytes": chunk_bytes}
    made = []
    for backbone in ({Plain: "pooled", PlainConcat: "concat"}[plain], plain):
        torch.manual_seed(0)
        made.append(JointQCritic(N, D, OBS, STATE, backbone=backbone, **options))
    fast, slow = made
    assert not hasattr(slow.backbone, "candidates")
    td = inputs(encoding)
    own = torch.randn(2, 5, N, 6, D) if encoding == "continuous" else torch.randint(D, (2, 5, N, 6))
    with torch.set_grad_enabled(recorded):
        values, expected = (x(td.clone())["agents", "state_action_value"] for x in (slow, fast))
        torch.testing.assert_close(values, expected)
        torch.testing.assert_close(slow.candidate_values(td, own), fast.candidate_values(td, own))


def test_groups_need_messages():
    critic = JointQCritic(N, D, OBS, backbone=Plain)
    with pytest.raises(ValueError, match="has a Plain, which takes one group of agents"):
        join_critics({"agents": critic})


@pytest.mark.parametrize(
    ("backbone", "error", "message"),
    [
        (
            "transformer",
            ValueError,
            r"one of \['additive', 'concat', 'pooled'\], or a function of sizes",
        ),
        (3, ValueError, "got 3"),
        (nn.Linear(1, 1), TypeError, "is a Linear itself: give its class, or a function"),
    ],
)
def test_what_makes_no_backbone_is_refused(backbone, error, message):
    with pytest.raises(error, match=message):
        JointQCritic(N, D, OBS, backbone=backbone)
