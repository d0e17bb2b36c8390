"""The gradient noise scale agrees with enumeration, and block gradients with those of the whole batch."""

import itertools

import pytest
import torch
from tensordict.nn import TensorDictModule, TensorDictSequential
from test_measured import NUM_ACTIONS, NUM_AGENTS, NUM_STATES, Game, assert_covers
from torchrl.modules import ProbabilisticActor

from torchrl_ob import MultiAgentGRU, ObAdvantage
from torchrl_ob.diagnostics import (
    coma_baseline,
    gradient_variance,
    noise_scale,
    optimal_baseline,
    parameter_gradient_variance,
    state_value,
)
from torchrl_ob.diagnostics.intervals import Blocks
from torchrl_ob.diagnostics.measured.block_gradients import block_gradients


def enumerated(game, name):
    """Mean and second moment of the team's gradient in θ, over states and joint actions, by enumeration."""
    states = [list(game.each(agent)) for agent in range(NUM_AGENTS)]  # (q, probs, jacobian)
    mean, square = 0, 0
    for s in range(NUM_STATES):
        for joint in itertools.product(range(NUM_ACTIONS), repeat=NUM_AGENTS):
            total, chance = 0, 1.0
            for agent, taken in enumerate(joint):
                q, probs, jacobian = states[agent][s]
                baseline = {
                    "none": lambda *_: torch.zeros(()),
                    "v": lambda q, p, _: state_value(q, p),
                    "coma": coma_baseline,
                    "ob": optimal_baseline,
                }[name](q, probs, agent)
                score = torch.eye(NUM_ACTIONS)[taken] - probs[agent]
                total = total + (q - baseline)[joint] * (score @ jacobian)
                chance = chance * probs[agent][taken]
            mean = mean + chance * total / NUM_STATES
            square = square + chance * total.square().sum() / NUM_STATES
    return mean, square


def test_noise_scale_is_the_enumerated_one():
    game = Game("critic")
    found = noise_scale(game.advantage, game.batch(20_000))
    noises = {}
    for name in ("none", "v", "coma", "ob"):
        mean, square = enumerated(game, name)
        noises[name] = square - mean.square().sum()
        assert_covers(found.frames[name], noises[name] / mean.square().sum(), 0.2)
    for name, noise in noises.items():
        assert_covers(found.saved[name], 1 - noise / noises["v"], 0.3)
    assert "20,000 frames has more signal than noise" in str(found)


def test_v_is_free_of_the_noise_of_its_draws():
    game = Game("critic", team=True)
    batch = game.batch(20_000)
    few, many = (noise_scale(game.advantage, batch, num_draws=k).frames["v"] for k in (2, 16))
    mean, square = enumerated(game, "v")
    exact = square / mean.square().sum() - 1
    assert_covers(few, exact, 0.2)
    assert_covers(many, exact, 0.2)


@pytest.mark.parametrize("size", [1, 3, 21, 40])  # 40 trajectories are in 32 blocks of one or two
def test_blocks_add_up_to_the_gradient_of_the_batch(size):
    game = Game("critic")
    batch = game.batch(size)
    signals = torch.randn(*batch.batch_size, NUM_AGENTS, 2, dtype=torch.float64)
    blocks = block_gradients(
        game.advantage.team, batch, signals, Blocks(batch.batch_size, 1, signals)
    )
    for k in range(2):
        game.actor.zero_grad()
        log_prob = game.actor.get_dist(batch.clone()).log_prob(batch["agents", "action"])
        (log_prob * signals[..., k]).sum(-1).mean().backward()
        whole = torch.cat([p.grad.flatten() for p in game.actor.parameters()])
        torch.testing.assert_close(blocks[:, k].mean(0), whole)


def test_nothing_is_changed():
    game = Game("lambda_return")
    batch, state = game.batch(64), torch.get_rng_state()
    before = batch.clone()
    noise_scale(game.advantage, batch)
    assert (batch == before).all()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in game.actor.parameters())


@pytest.mark.parametrize("measure", [noise_scale, parameter_gradient_variance])
def test_gradients_of_an_actor_that_remembers_are_refused(measure):
    game = Game("critic")
    memory = MultiAgentGRU(
        NUM_AGENTS, NUM_STATES + NUM_AGENTS, 4, out_key=("agents", "features")
    ).double()
    network = TensorDictModule(
        torch.nn.Linear(4, NUM_ACTIONS).double(), [("agents", "features")], [("agents", "logits")]
    )
    actor = ProbabilisticActor(
        TensorDictSequential(memory, network),
        in_keys=[("agents", "logits")],
        out_keys=[("agents", "action")],
        distribution_class=torch.distributions.Categorical,
    )
    advantage = ObAdvantage(actor_network=actor, value_network=game.critic, gamma=0.9, lmbda=0.8)
    advantage.set_keys(reward=("agents", "reward"))
    batch = game.batch(16)
    for entries in (batch, batch["next"]):
        entries["agents", "hidden"] = torch.zeros(16, 1, NUM_AGENTS, 1, 4, dtype=torch.float64)
        entries["is_init"] = torch.ones(16, 1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"one step deep\. Measure with gradient_variance"):
        measure(advantage, batch)
    assert gradient_variance(advantage, batch).variance["ob"].value.isfinite().all()
