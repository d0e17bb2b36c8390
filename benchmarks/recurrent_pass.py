"""What a recurrent pass over whole sequences costs: ours, TorchRL's, PyTorch's own, and a step at a time.

Times forward, and forward and backward, over ``[B=60, T=100, n, h=128]`` on one thread, with a reset at one step in a
hundred and with none in the midst. Beside :class:`MultiAgentGRU`: TorchRL's single-agent ``GRUModule`` over the
flattened team ``[B n, T, h]`` (``pad``, its default, and ``scan``, of the GRU alone), ``torch.nn.GRU``, which knows no
resets, and the module itself a step at a time. Of separate parameters, a Python loop over ``n`` networks of PyTorch's is the peer.
On a CPU it is the process' own time that is taken, so that others on the machine count less.
``python benchmarks/recurrent_pass.py``; ``SMOKE=1`` for a run of seconds, ``DEVICE=cuda`` for a GPU.
"""

import os
import time
from collections.abc import Callable

import torch
from device import DEVICE, ON_GPU, clock, machine
from results import record
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.modules import GRUModule, LSTMModule, set_recurrent_mode

from torchrl_ob.recurrent import MultiAgentGRU, MultiAgentLSTM

SMOKE = os.environ.get("SMOKE") == "1"
B, T, H = (4, 10, 16) if SMOKE else (60, 100, 128)
TEAMS = (3,) if SMOKE else (3, 8)
REPEATS = 1 if SMOKE else 3
FEATURES = ("agents", "features")
Pass = Callable[[Tensor], Tensor]
torch.set_num_threads(1)


def timed(function: Callable[[], object]) -> float:
    """The shortest of several calls after one that warms up, in milliseconds."""
    now = clock if ON_GPU else time.process_time
    function()
    times = []
    for _ in range(REPEATS):
        start = now()
        function()
        times.append(1e3 * (now() - start))
    return min(times)


def make_batch(net: MultiAgentGRU | MultiAgentLSTM, n: int, resets: float) -> TensorDict:
    """Sequences that start from a state of zeros."""
    agents = {
        key[-1]: torch.zeros(B, T, n, net.num_layers, H, device=DEVICE) for key in net.state_keys
    }
    agents["observation"] = torch.randn(B, T, n, H, device=DEVICE)
    starts = torch.rand(B, T, 1, device=DEVICE) < resets
    return TensorDict({"agents": agents, "is_init": starts}, [B, T])


def ours(net: nn.Module, batch: TensorDict) -> Pass:
    """The sequence pass."""

    def run(x: Tensor) -> Tensor:
        with set_recurrent_mode("recurrent"):
            return net(batch.clone(recurse=False).set(("agents", "observation"), x))[FEATURES]

    return run


def step_by_step(net: MultiAgentGRU | MultiAgentLSTM, batch: TensorDict) -> Pass:
    """The same module, one step after the other."""

    def run(x: Tensor) -> Tensor:
        features, step = [], batch[:, 0].clone(recurse=False)
        for t in range(T):
            step = step.clone(recurse=False).set(("agents", "observation"), x[:, t])
            step = net(step.set("is_init", batch["is_init"][:, t]))
            features.append(step[FEATURES])
            for key in net.state_keys:
                step.set(key, step["next"].get(key))
        return torch.stack(features, 1)

    return run


def torchrl(net: nn.Module, batch: TensorDict, n: int, backend: str) -> Pass:
    """TorchRL's module of a single agent over the flattened team."""
    lstm = isinstance(net, MultiAgentLSTM)
    states = ["h", "c"] if lstm else ["h"]
    keys = {
        "in_keys": ["x", *states],
        "out_keys": ["y", *[("next", state) for state in states]],
        "recurrent_backend": backend,
    }
    module = (LSTMModule if lstm else GRUModule)(H, H, **keys).to(DEVICE)
    (module.lstm if lstm else module.gru).load_state_dict(net.state_dict())
    starts = batch["is_init"].repeat_interleave(n, 0)
    zeros = torch.zeros(B * n, T, 1, H, device=DEVICE)

    def run(x: Tensor) -> Tensor:
        flat = x.transpose(1, 2).flatten(0, 1)
        data = {"x": flat, "is_init": starts, **dict.fromkeys(states, zeros)}
        with set_recurrent_mode("recurrent"):
            y = module(TensorDict(data, [B * n, T]))["y"]
        return y.unflatten(0, (B, n)).transpose(1, 2)

    return run


def pytorch(net: nn.Module, n: int) -> Pass:
    """PyTorch's network over the flattened team, or one for each agent in a Python loop."""
    cls = nn.LSTM if isinstance(net, MultiAgentLSTM) else nn.GRU
    networks = [cls(H, H, batch_first=True).to(DEVICE) for _ in range(1 if net.share_params else n)]
    for i, network in enumerate(networks):
        state = net.state_dict()
        network.load_state_dict(
            state if net.share_params else {name: value[i] for name, value in state.items()}
        )

    def run(x: Tensor) -> Tensor:
        if not net.share_params:
            return torch.stack([f(x[:, :, i])[0] for i, f in enumerate(networks)], 2)
        flat = x.transpose(1, 2).flatten(0, 1)
        return networks[0](flat)[0].unflatten(0, (B, n)).transpose(1, 2)

    return run


def measure(name: str, run: Pass, x: Tensor, reference: Tensor | None) -> dict[str, float]:
    """Prints and returns forward, forward and backward, and the largest difference from ours."""
    with torch.no_grad():
        features = run(x)
        forward = timed(lambda: run(x))
    leaf = x.clone().requires_grad_()
    both = timed(lambda: run(leaf).square().mean().backward())
    error = 0.0 if reference is None else (features - reference).abs().max().item()
    print(f"  {name:<44} {forward:8.1f} {both:8.1f} {error:10.1e}", flush=True)
    return {"forward_ms": round(forward, 1), "forward_backward_ms": round(both, 1)}


def main() -> None:
    """Print the tables."""
    print(machine())
    results = {}
    for cls in (MultiAgentGRU, MultiAgentLSTM):
        for n in TEAMS:
            for share, resets in ((True, 0.01), (True, 0.0), (False, 0.01), (False, 0.0)):
                torch.manual_seed(0)
                net = cls(n, H, H, share_params=share, device=DEVICE)
                batch = make_batch(net, n, resets)
                x = batch["agents", "observation"]
                case = (
                    f"{cls.__name__}, n={n}, {'shared' if share else 'separate'}, resets {resets}"
                )
                print(f"{case:<46} forward  +backward  difference (ms, ms)")
                passes = {"one call for whole sequences": ours(net, batch)}
                if share:
                    passes["TorchRL over the flattened team, pad"] = torchrl(net, batch, n, "pad")
                    if cls is MultiAgentGRU:
                        passes["TorchRL over the flattened team, scan"] = torchrl(
                            net, batch, n, "scan"
                        )
                if resets == 0:
                    passes["PyTorch" + ("" if share else ", a loop over agents")] = pytorch(net, n)
                passes["a step at a time"] = step_by_step(net, batch)
                with torch.no_grad():
                    reference = passes["one call for whole sequences"](x)
                results[case] = {
                    name: measure(name, run, x, reference) for name, run in passes.items()
                }
    first = list(next(iter(results.values())).values())
    ratio = first[0]["forward_backward_ms"] / first[1]["forward_backward_ms"]
    record("recurrent_pass_over_torchrl", ratio, sequences=B, steps=T, hidden=H, cases=results)


if __name__ == "__main__":
    main()
