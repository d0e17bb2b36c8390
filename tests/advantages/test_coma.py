"""COMA, and OB in its place: the experiments and what they compute."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from short_runs import scalars

from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.config.check import check_config
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.loop import estimate, improve
from torchrl_ob.experiments.run import run
from torchrl_ob.experiments.update import minibatches
from torchrl_ob.functional import categorical_optimal_weights
from torchrl_ob.train import config_folder

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]
SHORT = (
    "progress_bar=false",
    "device=cpu",
    "env.num_envs=10",
    "env.max_steps=20",
    "collector.frames_per_batch=100",
    "total_frames=400",
    "evaluation.interval=200",
    "evaluation.num_envs=5",
    "checkpoint.interval=200",
)


def configure(name, *overrides):
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("train", [f"experiment={name}", *SHORT, *overrides])
    check_config(config)
    return config


@pytest.fixture(params=["coma", "coma_ob"])
def name(request):
    return request.param


def test_the_objective_is_the_score_times_q_less_its_baseline(name, tmp_path):
    parts = build(configure(name), tmp_path)
    (loss,) = parts.loss
    batch = next(iter(parts.collector))
    estimate(parts, batch)
    minibatch = next(minibatches(batch, parts.keys, parts.config.trainer.minibatch_size))
    assert len(minibatch) == 100  # the whole batch: one step of the policy that collected it
    with torch.no_grad():
        log_probs = parts.actor.get_dist(minibatch).logits.log_softmax(-1)
        actions = torch.arange(log_probs.shape[-1]).expand_as(log_probs)
        values = parts.critic.candidate_values(minibatch, actions)
        weights = log_probs.exp() if name == "coma" else categorical_optimal_weights(log_probs)
        taken = minibatch["agents", "action"].unsqueeze(-1)
        q = values.gather(-1, taken).squeeze(-1)
        expected = q - (weights * values).sum(-1)
        score = log_probs.gather(-1, taken).squeeze(-1)
    torch.testing.assert_close(minibatch["advantage"].squeeze(-1), expected, atol=1e-5, rtol=1e-4)
    losses = loss(minibatch)
    torch.testing.assert_close(losses["loss_actor"], -(score * expected).mean())
    error = (q - minibatch["value_target"].squeeze(-1)).square().mean()
    torch.testing.assert_close(losses["loss_value"], error)


def test_returns_bootstrap_from_the_slow_critic_and_baselines_do_not(name, tmp_path):
    parts = build(configure(name), tmp_path)
    (loss,) = parts.loss
    batch = next(iter(parts.collector))

    def found_by_estimate():
        torch.manual_seed(0)
        found = batch.clone()
        estimate(parts, found)
        return found["value_target"], found["advantage"]

    first = found_by_estimate()
    assert all(torch.equal(a, b) for a, b in zip(first, found_by_estimate(), strict=True))
    for x in parts.critic.parameters():
        x.data.mul_(1.5)
    quick = found_by_estimate()
    assert torch.equal(first[0], quick[0])
    assert not torch.allclose(first[1], quick[1])
    for x in loss.target_critic_network_params.values(True, True):
        x.data.mul_(1.5)
    slow = found_by_estimate()
    assert not torch.allclose(slow[0], quick[0])
    assert torch.equal(slow[1], quick[1])


def test_the_slow_critic_moves_by_its_share(tmp_path):
    parts = build(configure("coma", "trainer.target_tau=0.25"), tmp_path)
    (loss,) = parts.loss
    slow = loss.target_critic_network_params.flatten_keys().clone()
    batch = next(iter(parts.collector))
    estimate(parts, batch)
    improve(parts, batch)
    quick = loss.critic_network_params.flatten_keys()
    moved = 0
    for key, value in loss.target_critic_network_params.flatten_keys().items():
        torch.testing.assert_close(value, 0.75 * slow[key] + 0.25 * quick[key].detach())
        moved += (value != slow[key]).sum()
    assert moved > 100


def test_a_run_that_stopped_goes_on_to_the_same_numbers(name, tmp_path, capsys):
    run(configure(name), tmp_path)
    whole = scalars(tmp_path)
    newest = sorted((tmp_path / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    run(configure(name, "resume=auto"), tmp_path)
    assert "resumed from" in capsys.readouterr().out
    assert whole == scalars(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("trainer.num_epochs=2",), "ReinforceLoss has no ratio of policies"),
        (("trainer.target_tau=0",), "target_tau must be greater than 0"),
        (("advantage=gae",), "target critic.*advantage=coma"),
    ],
)
def test_what_does_not_fit_is_told(overrides, message, tmp_path):
    with pytest.raises(ExperimentError, match=message):
        build(configure("coma", *overrides), tmp_path)
