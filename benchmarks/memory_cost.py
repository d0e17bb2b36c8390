"""What a memory costs in an iteration: a team with GRUs beside one of MLPs, and beside the same on TorchRL's module.

All train three agents of VMAS navigation by the loop of ``experiment=navigation``: 6,000 frames a batch, 30 epochs of
minibatches of 400 steps. ``policy=gru critic=pooled_gru`` does so on pieces of 10 steps; beside it are the default MLPs,
and the same team whose memories are TorchRL's ``GRUModule`` of a single agent, over the flattened team ``[B n, T, h]``,
with its backends ``pad``, the default, and ``scan``. They take turns batch by batch on one thread; the first batch is not
counted. On a CPU it is the process' own time that is taken, so that others on the machine count less.
``python benchmarks/memory_cost.py``; ``SMOKE=1`` for a run of seconds, ``DEVICE=cuda`` for a GPU.
"""

import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from device import DEVICE, ON_GPU, clock, machine
from results import record
from tensordict import TensorDict, TensorDictBase
from torchrl.modules import GRUModule, set_recurrent_mode
from training_loop import EPOCHS, FRAMES, MINIBATCH, SMOKE, our_loop

from torchrl_ob import MultiAgentGRU

warnings.simplefilter("ignore")
torch.set_num_threads(1)
ROUNDS = 1 if SMOKE else 5
REMEMBER = ("policy=gru", "critic=pooled_gru", "trainer.sequence_length=10")
OURS, MLP = "MultiAgentGRU", "MLP"


class OverFlattenedTeam(MultiAgentGRU):
    """The recurrence by TorchRL's module of a single agent."""

    backend, writes_every_state = "pad", False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        module = GRUModule(
            self.input_size,
            self.hidden_size,
            in_keys=["x", "h", "is_init"],
            out_keys=["y", ("next", "h")],
            recurrent_backend=self.backend,
        )
        self.module = [module]  # whose primer, of one agent, is left out
        self.gru = module.gru
        for name in [name for name, _ in self.named_parameters(recurse=False)]:
            setattr(self, name, getattr(self.gru, name))

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """As that of :class:`MultiAgentGRU`."""
        x, (state,), starts = self._read(tensordict)
        lead, n = x.shape[:-2], self.num_agents
        agents = len(lead) - 1 if self.recurrent_mode else len(lead)  # before time
        flat = [
            entry.movedim(len(lead), agents).flatten(0, agents)
            for entry in (x, state, starts.unsqueeze(-2).expand(*lead, n, 1))
        ]
        step = TensorDict(dict(zip(("x", "h", "is_init"), flat, strict=True)), flat[0].shape[:-1])
        out = self.module[0](step)
        for key, name in zip(self.out_keys, ("y", ("next", "h")), strict=True):
            entry = out.get(name).unflatten(0, (*lead[:agents], n))
            tensordict.set(key, entry.movedim(agents, len(lead)))
        return tensordict


class ByScan(OverFlattenedTeam):
    """The same with TorchRL's other backend."""

    backend = "scan"


def require_the_same(other: type[OverFlattenedTeam]) -> None:
    """Stop if a peer computes another thing."""
    ours, theirs = MultiAgentGRU(3, 4, 8), other(3, 4, 8)
    theirs.gru.load_state_dict(ours.state_dict())
    starts = torch.rand(5, 6, 1) < 0.2
    hidden = torch.randn(5, 6, 3, 1, 8).masked_fill(starts[..., None, None], 0)  # as primers do
    agents = {"observation": torch.randn(5, 6, 3, 4), "hidden": hidden}
    td = TensorDict({"agents": agents, "is_init": starts}, [5, 6])
    for mode in (True, False):
        with set_recurrent_mode(mode):
            found, expected = (net(td.clone()).select(*net.out_keys) for net in (theirs, ours))
        if mode:  # TorchRL writes the state after the last step alone
            found, expected = found.exclude("next"), expected.exclude("next")
        for key in expected.keys(True, True):
            torch.testing.assert_close(found[key], expected[key], atol=1e-6, rtol=0)


def main() -> None:
    """Print the table."""
    seconds: dict[str, list[float]] = {}
    peers = {"GRUModule, pad": OverFlattenedTeam, "GRUModule, scan": ByScan}
    now = clock if ON_GPU else time.process_time
    with tempfile.TemporaryDirectory() as folder:
        loops = {
            MLP: our_loop(Path(folder) / "mlp", []),
            OURS: our_loop(Path(folder) / "ours", [], *REMEMBER),
        }
        for name, peer in peers.items():
            require_the_same(peer)
            loops[name] = our_loop(Path(folder) / name, [], *REMEMBER)
        for _ in range(ROUNDS + 1):
            for name, loop in loops.items():
                cell = peers.get(name, MultiAgentGRU)
                with patch("torchrl_ob.recurrent.networks.MultiAgentGRU", cell):  # as it is built
                    start = now()
                    next(loop)
                seconds.setdefault(name, []).append(now() - start)
    print(f"{machine()}, torch {torch.__version__}, {ROUNDS} batches of {FRAMES:,} frames of each")
    about = {"epochs": EPOCHS, "minibatch": MINIBATCH, "frames": FRAMES, "batches": ROUNDS}
    ratios = {}
    for name, times in seconds.items():
        pairs = sorted(b / a for a, b in zip(seconds[MLP][1:], times[1:], strict=True))
        ratios[name] = statistics.median(pairs)
        print(
            f"{name:16} {statistics.median(times[1:]):7.2f} s an iteration; over MLP's {ratios[name]:.2f} "
            f"[{pairs[0]:.2f}, {pairs[-1]:.2f}]"
        )
        if name == OURS:
            spread = {"low": pairs[0], "high": pairs[-1]}
            record("gru_iteration_over_mlp", ratios[OURS], **spread, **about)
    for name in peers:
        key = f"gru_iteration_over_{name.replace(', ', '_').lower()}"
        record(key, ratios[OURS] / ratios[name], **about)


if __name__ == "__main__":
    print(DEVICE)
    main()
