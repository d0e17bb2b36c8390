"""The update of the networks: TorchRL's own, the same when it is compiled."""

import warnings
from functools import partial

import pytest
import torch
from hydra import compose, initialize_config_dir
from torchrl.trainers import DefaultOptimizationStepper, Trainer

from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.config.optimizers import register_optimizers
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.learners import all_losses
from torchrl_ob.experiments.loop import estimate, improve, train
from torchrl_ob.experiments.update import make_differentiate, minibatches
from torchrl_ob.train import config_folder

pytestmark = [
    pytest.mark.usefixtures("graphs_run_eagerly"),
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]


compile_with_inductor = torch.compile
REMEMBER = ("policy=gru", "critic=pooled_gru", "trainer.sequence_length=5")


def experiment(folder, *overrides):
    names = ("experiment=smoke", "progress_bar=false", "device=cpu", *overrides)
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return build(compose("train", list(names)), folder)


def trained(folder, *overrides):
    parts = experiment(folder, *overrides)
    train(parts)
    return torch.cat([x.detach().flatten() for x in parts.loss.parameters()])


def test_the_plain_update_is_torchrls(tmp_path):
    ours = trained(tmp_path / "ours", "scheduler=constant")
    parts = experiment(tmp_path / "theirs")
    (loss,), options = parts.loss, parts.config.trainer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            collector=parts.collector,
            total_frames=parts.config.total_frames,
            frame_skip=1,
            optim_steps_per_batch=options.minibatch_size,
            loss_module=loss,
            optimizer=parts.optimizer,
            clip_grad_norm=True,
            clip_norm=options.clip_norm,
            num_epochs=options.num_epochs,
            progress_bar=False,
        )
    for batch in parts.collector:
        estimate(parts, batch)
        for _ in range(options.num_epochs):
            draws = minibatches(batch, parts.keys, options.minibatch_size)
            for minibatch in draws:
                DefaultOptimizationStepper().step(trainer, minibatch)
    theirs = torch.cat([x.detach().flatten() for x in parts.loss.parameters()])
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "overrides",
    [
        ("env.continuous_actions=false", *REMEMBER),
        (
            "advantage=coma",
            "loss=a2c",
            "critic=concat",
            "trainer.num_epochs=1",
            "trainer.minibatch_size=200",
        ),
    ],
)
def test_a_compiled_run_has_the_same_numbers_and_compiles_once(overrides, tmp_path):
    # Adam would magnify the rounding of gradients that are nearly zero; one epoch, since TorchRL
    # draws random numbers for the entropy where it is compiled, and the next permutation is another
    register_optimizers()
    short = ("total_frames=200", "trainer.num_epochs=1", "optimizer=sgd", "optimizer.lr=0.1")
    one_batch = (*overrides, *short)
    plain = trained(tmp_path / "plain", *one_batch)
    compiled = trained(tmp_path / "compiled", "trainer.compile=true", *one_batch)
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
    with torch._dynamo.config.patch(error_on_recompile=True):
        trained(tmp_path / "two batches", "trainer.compile=true", *overrides)


def test_loss_and_gradient_of_inductor_are_the_plain_ones_to_rounding(tmp_path, monkeypatch):
    # with its own tanh, which is exact to 2e-7 and not to the last digit
    monkeypatch.setattr(torch, "compile", compile_with_inductor)
    parts = experiment(tmp_path, "trainer.compile=true", "trainer.clip_norm=0.01", *REMEMBER)
    (loss,), batch = parts.loss, next(iter(parts.collector))
    estimate(parts, batch)
    minibatch = next(minibatches(batch, parts.keys, 100, 5))
    plain = make_differentiate(partial(all_losses, parts.learners), loss.parameters(), 0.01)
    gradients = []
    for differentiate in (plain, parts.differentiate):
        loss.zero_grad()
        losses = differentiate(minibatch)
        assert losses["grad_norm"] > 0.02  # clipped
        gradients.append([x.grad.clone() for x in loss.parameters() if x.numel()])
        gradients[-1].append(losses["loss_objective"])
        gradients[-1] += [losses["loss_critic"], losses["grad_norm"]]
    for plain, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)


def test_what_is_read_is_in_one_order_in_all_processes(tmp_path):
    # what inductor has compiled is found again by the order of its inputs
    parts = experiment(tmp_path)
    (loss,) = parts.loss
    assert len(parts.keys) > 4
    for seen in (set(loss.in_keys), sorted(loss.in_keys, key=str, reverse=True)):
        loss.in_keys = list(seen)
        assert parts.keys == sorted(parts.keys, key=str)


def test_two_compiled_runs_in_one_process_keep_apart(tmp_path):
    runs = [
        experiment(tmp_path / critic, "trainer.compile=true", f"critic={critic}")
        for critic in ("pooled", "concat")
    ]
    batches = [next(iter(parts.collector)) for parts in runs]
    for parts, batch in zip(runs, batches, strict=True):
        estimate(parts, batch)
    for _ in range(2):
        for parts, batch in zip(runs, batches, strict=True):
            minibatch = next(minibatches(batch, parts.keys, 100))
            expected = all_losses(parts.learners, minibatch)["loss_critic"].detach()
            found = parts.differentiate(minibatch)
            parts.optimizer.step()
            torch.testing.assert_close(found["loss_critic"], expected)


def test_fused_and_plain_adam_agree(tmp_path):
    one_batch = "total_frames=200"
    fused = trained(tmp_path / "fused", one_batch)
    plain = trained(tmp_path / "plain", "optimizer.fused=false", one_batch)
    torch.testing.assert_close(fused, plain, rtol=1e-3, atol=1e-4)


def test_metrics_are_means_over_all_minibatches_of_a_batch(tmp_path):
    parts = experiment(tmp_path, "trainer.num_epochs=2")
    batch, seen, differentiate = next(iter(parts.collector)), [], parts.differentiate

    def look(minibatch):
        found = differentiate(minibatch)
        seen.append(float(found["loss_critic"]))
        return found

    parts.differentiate = look
    estimate(parts, batch)
    metrics = improve(parts, batch)
    assert len(seen) > 2
    assert float(metrics["loss/critic"]) == pytest.approx(sum(seen) / len(seen))


def test_networks_that_cannot_be_compiled_are_told(tmp_path):
    with pytest.raises(ExperimentError, match=r"cannot compile.*share_params=true"):
        trained(tmp_path, "trainer.compile=true", "policy.share_params=false")


def test_an_update_reads_nothing_of_the_next_steps(tmp_path):
    parts = experiment(tmp_path)
    batch = next(iter(parts.collector))
    estimate(parts, batch)
    minibatch = next(minibatches(batch, parts.keys, 100))
    assert "next" not in minibatch.keys()  # noqa: SIM118
    (loss,) = parts.loss
    assert set(loss(minibatch).keys()) >= {"loss_objective", "loss_critic"}
