"""What the optimal baseline costs, next to the PPO update of the same batch.

Times one call of each advantage on one batch of the navigation tutorial (3 agents, 6,000 frames),
and the update of that batch by ``ClipPPOLoss`` (30 epochs of minibatches of 400), in one process
and in alternation, and prints medians as ratios. The peer is TorchRL's ``MultiAgentGAE`` with its
tutorial's critic. The metrics of ``torchrl_ob.diagnostics`` are timed beside them.
``python benchmarks/advantage_cost.py``; ``SMOKE=1`` for a run of seconds, ``DEVICE=cuda FRAMES=60000`` for
a GPU, of whose memory the last table then is.
"""

import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import tensordict
import torch
import torchrl
from device import DEVICE, ON_GPU, clock, machine, scaled
from results import record
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule
from torchrl.envs import ExplorationType, set_exploration_type
from torchrl.modules import MultiAgentMLP, NormalParamExtractor, ProbabilisticActor, TanhNormal
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import MultiAgentGAE

from torchrl_ob import ComaAdvantage, JointQCritic, MapgAdvantage, ObAdvantage
from torchrl_ob.diagnostics import variance_metrics

SMOKE = os.environ.get("SMOKE") == "1"
FRAMES, STEPS, MINIBATCH, EPOCHS = (400, 100, 100, 1) if SMOKE else (6_000, 100, 400, 30)
FRAMES, MINIBATCH = scaled(FRAMES, MINIBATCH)
REPEATS = 1 if SMOKE else 7
TEAMS = (2, 4) if SMOKE else (2, 4, 8, 16, 32, 64)
UPDATES_TIMED = 4 if SMOKE else 45  # minibatch updates timed; a batch takes many more
OBSERVATION, ACTION = 18, 2
GAMMA, LMBDA = 0.99, 0.9


def make_networks(agents: int) -> tuple[ProbabilisticActor, JointQCritic, TensorDictModule]:
    """Actor, joint critic, and the state-value critic of TorchRL's tutorial."""

    def mlp(outputs: int, centralized: bool) -> MultiAgentMLP:
        return MultiAgentMLP(
            n_agent_inputs=OBSERVATION,
            n_agent_outputs=outputs,
            n_agents=agents,
            centralized=centralized,
            share_params=True,
            depth=2,
            num_cells=256,
            activation_class=torch.nn.Tanh,
        )

    params = [("agents", "loc"), ("agents", "scale")]
    actor_net = torch.nn.Sequential(mlp(2 * ACTION, centralized=False), NormalParamExtractor())
    actor = ProbabilisticActor(
        TensorDictModule(actor_net, [("agents", "observation")], params),
        in_keys=params,
        out_keys=[("agents", "action")],
        distribution_class=TanhNormal,
        return_log_prob=True,
    )
    state_value = TensorDictModule(
        mlp(1, centralized=True), [("agents", "observation")], [("agents", "state_value")]
    )
    return actor, JointQCritic(agents, ACTION, OBSERVATION), state_value


def make_batch(actor: ProbabilisticActor, agents: int, frames: int) -> TensorDict:
    """A batch as a collector gives it, with random observations and rewards."""
    batch = [frames // STEPS, STEPS]

    def observe() -> TensorDict:
        return TensorDict({"observation": torch.randn(*batch, agents, OBSERVATION)}, batch)

    td = TensorDict({"agents": observe(), "next": {"agents": observe()}}, batch)
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        actor(td)  # writes the action and what it was drawn from
    td["next", "agents", "reward"] = torch.randn(*batch, agents, 1)
    flag = torch.zeros(*batch, 1, dtype=torch.bool)
    td["next", "done"], td["next", "terminated"] = flag, flag.clone()
    return td


def make_update(
    actor: ProbabilisticActor, critic: JointQCritic, td: TensorDictBase
) -> Callable[[], None]:
    """Minibatch updates of the tutorial's loss, ``UPDATES_TIMED`` of them."""
    loss = ClipPPOLoss(actor, critic, clip_epsilon=0.2, entropy_coeff=1e-4)
    loss.set_keys(value=critic.out_keys[0], sample_log_prob=("agents", "action_log_prob"))
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.0)  # same work, networks unchanged
    flat = td.reshape(-1)
    flat["advantage"] = torch.randn_like(flat["next", "agents", "reward"])
    flat["value_target"] = torch.randn_like(flat["advantage"])

    def update() -> None:
        for i in range(UPDATES_TIMED):
            start = i * MINIBATCH % FRAMES
            losses = loss(flat[start : start + MINIBATCH])
            optimizer.zero_grad()
            total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
            total.backward()
            torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
            optimizer.step()

    return update


def make_advantage(name: str, agents: int) -> tuple[Callable[[], object], tuple]:
    """A call of the named advantage on a batch of its own, and what it was built from."""
    torch.manual_seed(0)
    with torch.device(DEVICE):
        actor, critic, state_value = make_networks(agents)
        td = make_batch(actor, agents, FRAMES)
    options = {"actor_network": actor, "value_network": critic, "gamma": GAMMA, "lmbda": LMBDA}
    advantage = {
        "none": lambda: MapgAdvantage(**options),
        "COMA": lambda: ComaAdvantage(**options),
        "OB": lambda: ObAdvantage(**options),
        "variance_metrics": lambda: ObAdvantage(**options),
        "OB, 1,000 samples": lambda: ObAdvantage(**options, rule="monte_carlo"),
        "MultiAgentGAE": lambda: MultiAgentGAE(value_network=state_value, gamma=GAMMA, lmbda=LMBDA),
    }[name]()
    advantage.set_keys(reward=("agents", "reward"))
    if name == "MultiAgentGAE":
        advantage.set_keys(value=("agents", "state_value"))
    call = variance_metrics if name == "variance_metrics" else lambda advantage, td: advantage(td)
    return lambda: call(advantage, td.copy()), (actor, critic, td)


def seconds(function: Callable[[], object]) -> float:
    """Wall-clock time of one call."""
    start = clock()
    function()
    return clock() - start


def compare_times() -> None:
    """Median time of every advantage over that of the PPO update of the batch."""
    names = ["none", "COMA", "OB", "MultiAgentGAE", "variance_metrics"]
    calls = {name: make_advantage(name, agents=3) for name in names}
    update = make_update(*calls["OB"][1])
    per_batch = EPOCHS * (FRAMES // MINIBATCH) / UPDATES_TIMED
    times: dict[str, list[float]] = {name: [] for name in [*names, "update"]}
    for round_ in range(REPEATS + 1):
        for name in names:
            times[name].append(seconds(calls[name][0]))
        times["update"].append(seconds(update) * per_batch)
        if round_ == 0:  # warm-up
            times = {name: [] for name in times}
    slow = seconds(make_advantage("OB, 1,000 samples", agents=3)[0])
    base = statistics.median(times["update"])
    print(
        f"PPO update of {FRAMES:,} frames ({EPOCHS} epochs, minibatches of {MINIBATCH}): {base:.2f} s"
    )
    print(f"{'advantage':20} {'seconds':>8} {'of the update':>14}   spread")
    for name in names:
        middle = statistics.median(times[name])
        low, high = min(times[name]) / base, max(times[name]) / base
        print(f"{name:20} {middle:8.3f} {middle / base:14.1%}   {low:.1%} to {high:.1%}")
    print(f"{'OB, 1,000 samples':20} {slow:8.3f} {slow / base:14.1%}   one run")
    metrics = statistics.median(times["variance_metrics"])
    print(f"variance_metrics every 10 batches: {metrics / (10 * base):.2%} of the updates' time")


def compare_memory(agents: int = 64) -> None:
    """Peak memory added by one call, each in a process of its own."""
    added = {}
    # tensors go back to the system when they are freed, else what malloc keeps is counted, more or less by chance
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    for name in ("OB", "MultiAgentGAE"):
        command = [sys.executable, __file__, "--memory", name, str(agents)]
        run = subprocess.run(command, check=True, capture_output=True, env=environment)
        added[name] = int(run.stdout)
    ratio = added["OB"] / max(added["MultiAgentGAE"], 1)  # the smoke run may add nothing
    print(f"peak memory added with {agents} agents: OB {added['OB'] / 2**20:.0f} MiB, ", end="")
    print(f"MultiAgentGAE {added['MultiAgentGAE'] / 2**20:.0f} MiB, ratio {ratio:.2f}")
    record("ob_memory_over_gae", ratio, agents=agents, frames=FRAMES)


def compare_growth() -> None:
    """Time per agent of one call of OB, for teams of 2 to 64, in turns."""
    calls = {n: make_advantage("OB", agents=n)[0] for n in TEAMS}
    times: dict[int, list[float]] = {n: [] for n in TEAMS}
    for round_ in range(REPEATS + 1):
        for n in TEAMS:
            spent = seconds(calls[n]) / n
            if round_ > 0:  # warm-up
                times[n].append(spent)
    middle = {n: statistics.median(t) for n, t in times.items()}
    print(f"OB, milliseconds per agent, {FRAMES:,} frames: ", end="")
    print(", ".join(f"n={n}: {1e3 * x:.0f}" for n, x in middle.items()))
    growth = max(middle.values()) / middle[TEAMS[0]]
    print(f"largest over that of n={TEAMS[0]}: {growth:.2f}")
    per_agent = {str(n): x for n, x in middle.items()}
    record("ob_time_per_agent_growth", growth, frames=FRAMES, seconds_per_agent=per_agent)


def added_memory(name: str, agents: int) -> int:
    """Peak bytes that one call adds to what was there before it: resident (Linux), or on the GPU."""
    call, _ = make_advantage(name, agents)
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the set-up
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    """A field of the process's status, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", status).group(1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        print(added_memory(sys.argv[2], int(sys.argv[3])))
        sys.exit()
    print(
        f"torch {torch.__version__}, torchrl {torchrl.__version__}, "
        f"tensordict {tensordict.__version__}, {torch.get_num_threads()} threads, "
        f"{machine()}"
    )
    compare_times()
    compare_memory(agents=8 if SMOKE else 64)
    compare_growth()
