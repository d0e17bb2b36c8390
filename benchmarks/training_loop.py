"""Frames per second of MAPPO with the optimal baseline, next to TorchRL's own multi-agent PPO.

The peer is the loop of TorchRL's tutorial "Multi-Agent Reinforcement Learning (PPO)", with MAPPO and GAE,
written from its public API: a centralized state value of two layers of 256, ``ClipPPOLoss``, a replay
buffer, Adam. Ours is ``torchrl-ob train`` with ``advantage=ob`` and the joint critic, plain and
compiled, without a baseline, and with GAE and TorchRL's critic. All train three agents of VMAS navigation with the same
actor, 6,000 frames a batch, 30 epochs of minibatches of 400, on the same threads. They take turns batch by batch, so that a
busy machine slows all; the first batch, in which a compiled one compiles, is not counted. At the end
the mean rewards of the last training episodes are compared. ``SMOKE=1`` for a run of seconds;
``DEVICE=cuda FRAMES=60000 ENVS=3000 BATCHES=4`` for a GPU. ``LOOPS="OB; OB, compiled"`` for these alone,
beside TorchRL's. ``BENCHMARL=.venv-benchmarl/bin/python``, the Python of an environment that has it, for BenchMARL's MAPPO as a
second peer.
"""

import math
import os
import statistics
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from device import DEVICE, clock, machine, scaled
from results import record
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer, SamplerWithoutReplacement
from torchrl.envs import RewardSum, TransformedEnv, VmasEnv
from torchrl.modules import MultiAgentMLP, NormalParamExtractor, ProbabilisticActor, TanhNormal
from torchrl.objectives import ClipPPOLoss, ValueEstimators

from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.config.overrides import compose_config
from torchrl_ob.experiments.loop import estimate, improve, measure
from torchrl_ob.experiments.metrics import as_numbers, reward_metrics
from torchrl_ob.train import config_folder

warnings.simplefilter("ignore")
SMOKE = os.environ.get("SMOKE") == "1"
FRAMES, EPOCHS, MINIBATCH = (600, 2, 100) if SMOKE else (6_000, 30, 400)
FRAMES, MINIBATCH = scaled(FRAMES, MINIBATCH)
STEPS = 100  # of an episode
ENVS = int(os.environ.get("ENVS", FRAMES // STEPS))
BATCHES = int(os.environ.get("BATCHES", 2 if SMOKE else 12))
LR = 1e-3
COMPILED = ("trainer.compile=true",)


def torchrl_loop() -> Iterator[float]:
    """TorchRL's tutorial; yields the mean reward of the episodes of each batch."""
    torch.manual_seed(0)
    env = TransformedEnv(
        VmasEnv(
            "navigation",
            num_envs=ENVS,
            max_steps=STEPS,
            n_agents=3,
            seed=0,
            device=DEVICE,
        ),
        RewardSum(in_keys=[("agents", "reward")], out_keys=[("agents", "episode_reward")]),
    )

    def mlp(outputs: int, centralized: bool) -> MultiAgentMLP:
        return MultiAgentMLP(
            n_agent_inputs=env.observation_spec["agents", "observation"].shape[-1],
            n_agent_outputs=outputs,
            n_agents=3,
            centralized=centralized,
            share_params=True,
            depth=2,
            num_cells=256,
            activation_class=nn.Tanh,
            device=DEVICE,
        )

    net = nn.Sequential(mlp(4, centralized=False), NormalParamExtractor())
    params = [("agents", "loc"), ("agents", "scale")]
    policy = ProbabilisticActor(
        TensorDictModule(net, [("agents", "observation")], params),
        in_keys=params,
        out_keys=[env.action_key],
        distribution_class=TanhNormal,
        distribution_kwargs={
            "low": env.full_action_spec_unbatched[env.action_key].space.low,
            "high": env.full_action_spec_unbatched[env.action_key].space.high,
        },
        return_log_prob=True,
    )
    critic = TensorDictModule(
        mlp(1, centralized=True), [("agents", "observation")], [("agents", "state_value")]
    )
    collector = Collector(
        env, policy, frames_per_batch=FRAMES, total_frames=FRAMES * (BATCHES + 1), device=DEVICE
    )
    buffer = ReplayBuffer(
        storage=LazyTensorStorage(FRAMES, device=DEVICE),
        sampler=SamplerWithoutReplacement(),
        batch_size=MINIBATCH,
    )
    loss = ClipPPOLoss(
        policy, critic, clip_epsilon=0.2, entropy_coeff=1e-4, normalize_advantage=False
    )
    loss.set_keys(
        reward=env.reward_key,
        action=env.action_key,
        value=("agents", "state_value"),
        done=("agents", "done"),
        terminated=("agents", "terminated"),
    )
    loss.make_value_estimator(ValueEstimators.GAE, gamma=0.99, lmbda=0.9)
    optimizer = torch.optim.Adam(loss.parameters(), lr=LR)
    for data in collector:
        for name in ("done", "terminated"):
            shape = data["next", "agents", "reward"].shape
            data["next", "agents", name] = data["next", name].unsqueeze(-1).expand(shape)
        with torch.no_grad():
            loss.value_estimator(
                data,
                params=loss.critic_network_params,
                target_params=loss.target_critic_network_params,
            )
        buffer.extend(data.reshape(-1))
        for _ in range(EPOCHS):
            for _ in range(FRAMES // MINIBATCH):
                losses = loss(buffer.sample())
                total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
                total.backward()
                nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
        collector.update_policy_weights_()
        done = data["next", "agents", "done"]
        yield data["next", "agents", "episode_reward"][done].mean().item()


def benchmarl_loop(python: str) -> Iterator[float]:
    """BenchMARL's, which trains for a batch at each line that it gets; of versions that do not fit in this process."""
    sizes = map(str, (FRAMES, ENVS, STEPS, EPOCHS, MINIBATCH, LR, BATCHES + 1))
    command = [python, str(Path(__file__).with_name("benchmarl_loop.py")), *sizes]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **pipes) as process:
        while True:
            print(file=process.stdin, flush=True)
            answer = next(x for x in process.stdout if x.startswith("reward "))
            yield float(answer.split()[1])


def our_loop(folder: Path, shares: list[float], *options: str) -> Iterator[float]:
    """The loop of ``experiment=navigation``, batch by batch; ``shares`` gets the advantage's."""
    overrides = [
        "experiment=navigation",
        f"device={DEVICE}",
        "progress_bar=false",
        f"optimizer.lr={LR}",
        "scheduler=constant",
        f"env.num_envs={ENVS}",
        f"collector.frames_per_batch={FRAMES}",
        f"trainer.num_epochs={EPOCHS}",
        f"trainer.minibatch_size={MINIBATCH}",
        f"total_frames={FRAMES * (BATCHES + 1)}",
        f"evaluation.interval={FRAMES * 1000}",
        f"checkpoint.interval={FRAMES * 1000}",
        *options,
    ]
    parts = build(compose_config(overrides, config_folder()), folder)
    start = clock()
    for batch in parts.collector:  # what the loop does for each batch
        rewards = as_numbers(reward_metrics(batch, parts.evaluation.reward_keys))
        collected = clock()
        estimate(parts, batch)
        advantage = clock() - collected
        parts.progress.frames += batch.numel()
        metrics = as_numbers(measure(parts, batch) | improve(parts, batch))
        parts.log.log_metrics(rewards | metrics, step=parts.progress.frames)
        shares.append(advantage / (clock() - start))
        yield rewards.get("train/episode_reward", math.nan)  # none has ended yet
        start = clock()


def ratio(peer: list[float], times: list[float]) -> tuple[float, float, float]:
    """Median, lowest and highest speed over a peer's, batch by batch, without the first."""
    ratios = sorted(a / b for a, b in zip(peer[1:], times[1:], strict=True))
    return statistics.median(ratios), ratios[0], ratios[-1]


if __name__ == "__main__":
    settings: dict[str, tuple[str, ...]] = {
        "torchrl_ob, OB": (),
        "torchrl_ob, no baseline": ("advantage=mapg",),
        "torchrl_ob, GAE": ("advantage=gae",),
        "torchrl_ob, OB, compiled": COMPILED,
        "torchrl_ob, GAE, compiled": ("advantage=gae", *COMPILED),
    }
    if SMOKE:  # each compiles for half a minute
        settings = {name: x for name, x in settings.items() if "compiled" not in name}
    if "LOOPS" in os.environ:
        names = [f"torchrl_ob, {name.strip()}" for name in os.environ["LOOPS"].split(";")]
        settings = {name: settings[name] for name in names}
    shares: dict[str, list[float]] = {name: [] for name in settings}
    with tempfile.TemporaryDirectory() as folder:
        loops = {"TorchRL, MAPPO with GAE": torchrl_loop()}
        if "BENCHMARL" in os.environ:
            loops["BenchMARL, MAPPO"] = benchmarl_loop(os.environ["BENCHMARL"])
        for name, options in settings.items():
            loops[name] = our_loop(Path(folder) / name, shares[name], *options)
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        rewards: dict[str, float] = {}
        for _ in range(BATCHES + 1):
            for name, loop in loops.items():
                start = clock()
                rewards[name] = next(loop)
                seconds[name].append(clock() - start)
    peer = next(iter(loops))
    print(
        f"{DEVICE} ({machine()}), {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{BATCHES} batches of {FRAMES:,} frames of {ENVS:,} environments each"
    )
    print(
        f"{'':33} {'frames/s':>9} {'over TorchRL':>21} {'advantage':>10} {'first batch':>12} "
        f"{'reward':>7}"
    )
    for name, times in seconds.items():
        middle, low, high = ratio(seconds[peer], times)
        share = statistics.median(shares[name][1:]) if name in shares else float("nan")
        print(
            f"{name:33} {FRAMES / statistics.median(times[1:]):9.0f} "
            f"{middle:5.2f} ({low:.2f} to {high:.2f}) {share:10.1%} {times[0]:10.1f} s "
            f"{rewards[name]:7.2f}"
        )
        if "LOOPS" in os.environ:
            continue  # the figures are of all loops in turns
        spread = {"low": low, "high": high, "batches": BATCHES, "frames": FRAMES}
        if name == "torchrl_ob, OB, compiled":
            record("fps_over_torchrl", middle, options=COMPILED, **spread)
            record("ob_share_of_compiled_iteration", share, options=COMPILED, frames=FRAMES)
        elif name == "torchrl_ob, OB":
            record("plain_fps_over_torchrl", middle, **spread)
            record("ob_share_of_iteration", share, frames=FRAMES)
            middle, low, high = ratio(seconds["torchrl_ob, no baseline"], times)
            record("ob_fps_over_no_baseline", middle, **spread | {"low": low, "high": high})
