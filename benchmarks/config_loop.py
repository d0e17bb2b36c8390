"""Is the loop that a config builds as fast as one written by hand?

Both train three agents of VMAS navigation with ``ObAdvantage`` at the tutorial's sizes: 6,000 frames a
batch, 30 epochs of minibatches of 400. They take turns, so that a busy machine slows both; neither
evaluates nor writes checkpoints while the clock runs. ``SMOKE=1`` for a run of seconds.
"""

import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, ReplayBuffer, SamplerWithoutReplacement
from torchrl.objectives import ClipPPOLoss
from training_loop import EPOCHS, FRAMES, LR, MINIBATCH, SMOKE, STEPS, our_loop

from torchrl_ob import JointQCritic, ObAdvantage
from torchrl_ob.experiments.envs.vmas import make_vmas
from torchrl_ob.policies import policy_from_env

warnings.simplefilter("ignore")
ROUNDS = 2 if SMOKE else 8


def by_hand() -> Iterator[None]:
    """The loop of ``tutorials/vmas_navigation_ob.py``; yields after each batch."""
    env = make_vmas(
        "navigation",
        num_envs=FRAMES // STEPS,
        max_steps=STEPS,
        seed=0,
        scenario_kwargs={"n_agents": 3},
    )
    policy, critic = policy_from_env(env), JointQCritic.from_env(env)
    collector = Collector(
        env,
        policy,
        frames_per_batch=FRAMES,
        total_frames=FRAMES * (ROUNDS + 1),
        auto_register_policy_transforms=False,
        device="cpu",
    )
    buffer = ReplayBuffer(
        storage=LazyTensorStorage(FRAMES), sampler=SamplerWithoutReplacement(), batch_size=MINIBATCH
    )
    loss = ClipPPOLoss(
        policy,
        critic,
        entropy_coeff=1e-4,
        normalize_advantage=True,
        normalize_advantage_exclude_dims=(-2,),
    )
    advantage = ObAdvantage(actor_network=policy, value_network=critic, gamma=0.99, lmbda=0.9)
    loss.make_value_estimator(advantage)
    loss.set_keys(value=critic.out_keys[0], reward=env.reward_key, action=env.action_key)
    optimizer = torch.optim.Adam(loss.parameters(), lr=LR)
    for batch in collector:
        advantage(batch)
        buffer.extend(batch.reshape(-1))
        for _ in range(EPOCHS):
            for minibatch in buffer:
                losses = loss(minibatch)
                total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
                optimizer.zero_grad()
                total.backward()
                torch.nn.utils.clip_grad_norm_(loss.parameters(), 1.0)
                optimizer.step()
        collector.update_policy_weights_()
        yield


with tempfile.TemporaryDirectory() as folder:
    loops = {"by hand": by_hand(), "from config": our_loop(Path(folder), [])}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(ROUNDS + 1):
        for name, loop in loops.items():
            start = time.perf_counter()
            next(loop)
            seconds[name].append(time.perf_counter() - start)
ratios = sorted(
    b / a for a, b in zip(seconds["by hand"][1:], seconds["from config"][1:], strict=True)
)
for name, times in seconds.items():
    print(f"{name:12} {statistics.median(times[1:]):.2f} s a batch of {FRAMES:,} frames")
print(
    f"from config / by hand: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
)
