"""Candidates are processed in chunks: what one layer allocates stays within the budget."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch.utils._python_dispatch import TorchDispatchMode

from torchrl_ob import JointQCritic
from torchrl_ob.critics.substitution import substitute_candidates


class LargestTensor(TorchDispatchMode):
    """Records the bytes of the largest storage that any operation returns."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, torch.Tensor):
                self.bytes = max(self.bytes, x.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("budget", [2**20, 2**22])
@pytest.mark.parametrize("encoding", ["continuous", "categorical"])
def test_chunks_of_64_agents_stay_within_the_budget(encoding, budget):
    n, candidates, states = 64, 9, 200
    critic = JointQCritic(
        n, 2 if encoding == "continuous" else 9, 6, action_encoding=encoding, chunk_bytes=budget
    )
    action = (
        torch.randn(states, n, 2) if encoding == "continuous" else torch.zeros(states, n).long()
    )
    td = TensorDict(
        {"agents": {"observation": torch.randn(states, n, 6), "action": action}}, [states]
    )
    own = action.unsqueeze(2).expand(states, n, candidates, *action.shape[2:]).contiguous()
    with torch.no_grad(), LargestTensor() as largest:
        values = critic.candidate_values(td, own)
    batch_sized = 4 * states * n * candidates * critic.action_dim  # the candidates themselves
    assert largest.bytes <= max(budget, batch_sized)
    with LargestTensor() as whole:  # a gradient keeps all activations whatever their chunks
        torch.testing.assert_close(critic.candidate_values(td, own), values)
    assert whole.bytes > budget  # unchunked, it would not have fitted


def test_copies_of_a_users_critic_stay_within_the_budget():
    n, candidates, states, budget = 8, 9, 100, 2**20
    critic = TensorDictModule(
        lambda o, a: (o.sum(-1) + a.sum(-1)).unsqueeze(-1),
        [("agents", "observation"), ("agents", "action")],
        [("agents", "q")],
    )
    agents = {"observation": torch.randn(states, n, 16), "action": torch.randn(states, n, 2)}
    td = TensorDict({"agents": agents}, [states])
    own = torch.randn(states, n, candidates, 2)
    with LargestTensor() as largest:
        substitute_candidates(
            critic,
            td,
            own,
            action_key=("agents", "action"),
            value_key=("agents", "q"),
            chunk_bytes=budget,
        )
    assert largest.bytes <= max(budget, 4 * own.numel())
