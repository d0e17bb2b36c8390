"""The update of the networks: TorchRL's own, the same when it is compiled."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from torchrl.trainers import DefaultOptimizationStepper

from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.config.optimizers import register_optimizers
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.train import config_folder

pytestmark = [
    pytest.mark.usefixtures("graphs_run_eagerly"),
    pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
]


compile_with_inductor = torch.compile


def experiment(folder, *overrides):
    names = ("experiment=smoke", "progress_bar=false", "device=cpu", *overrides)
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return build(compose("train", list(names)), folder)


def trained(folder, *overrides):
    parts = experiment(folder, *overrides)
    parts.trainer.train()
    return torch.cat([x.detach().flatten() for x in parts.trainer.loss_module.parameters()])


def test_the_plain_update_is_torchrls(tmp_path):
    ours = trained(tmp_path / "ours")
    parts = experiment(tmp_path / "theirs")
    stepper = parts.trainer.optimization_stepper
    parts.trainer.optimizer = stepper.optimizer
    theirs = DefaultOptimizationStepper()
    stepper.step = lambda trainer, minibatch: theirs.step(trainer, minibatch).detach()
    parts.trainer.train()
    theirs = torch.cat([x.detach().flatten() for x in parts.trainer.loss_module.parameters()])
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("env.continuous_actions=false",),
        ("loss=mappo", "critic=concat"),
        ("advantage=gae", "loss=ippo"),
        ("advantage=coma", "loss=a2c", "trainer.num_epochs=1", "trainer.minibatch_size=200"),
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
    trainer = experiment(tmp_path, "trainer.compile=true").trainer
    stepper, loss = trainer.optimization_stepper, trainer.loss_module
    minibatch = trainer._process_optim_batch_hook(
        trainer._process_batch_hook(next(iter(trainer.collector)))
    )
    gradients = []
    for total in (stepper._total, stepper._compiled_total):
        loss.zero_grad()
        value, losses = total(minibatch)
        value.backward()
        gradients.append([x.grad.clone() for x in loss.parameters() if x.numel()])
        gradients[-1].append(losses["loss_objective"])
        gradients[-1].append(losses["loss_critic"])
    for plain, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)


def test_two_compiled_runs_in_one_process_keep_apart(tmp_path):
    runs = [
        experiment(tmp_path / critic, "trainer.compile=true", f"critic={critic}").trainer
        for critic in ("pooled", "concat")
    ]
    batches = [run._process_batch_hook(next(iter(run.collector))) for run in runs]
    for _ in range(2):
        for run, batch in zip(runs, batches, strict=True):
            minibatch = run._process_optim_batch_hook(batch)
            expected = run.loss_module(minibatch)["loss_critic"].detach()
            run.optimization_stepper.step(run, minibatch)
            found = run.optimization_stepper.means()["loss_critic"]
            torch.testing.assert_close(found, expected)


def test_fused_and_plain_adam_agree(tmp_path):
    one_batch = "total_frames=200"
    fused = trained(tmp_path / "fused", "optimizer.fused=true", one_batch)
    plain = trained(tmp_path / "plain", one_batch)
    torch.testing.assert_close(fused, plain, rtol=1e-3, atol=1e-4)


def test_metrics_are_means_over_all_minibatches_of_a_batch(tmp_path):
    trainer = experiment(tmp_path, "trainer.num_epochs=2").trainer
    batch, seen = trainer._process_batch_hook(next(iter(trainer.collector))), []
    look = trainer._process_loss_hook
    trainer._process_loss_hook = lambda minibatch, losses: (
        seen.append(float(losses["loss_critic"])) or look(minibatch, losses)
    )
    trainer.optim_steps(batch)
    assert len(seen) > 2
    assert float(trainer._log_dict["loss_critic"][-1]) == pytest.approx(sum(seen) / len(seen))


def test_networks_that_cannot_be_compiled_are_told(tmp_path):
    with pytest.raises(ExperimentError, match=r"cannot compile.*share_params=true"):
        trained(tmp_path, "trainer.compile=true", "policy.share_params=false")


def test_an_update_reads_nothing_of_the_next_steps(tmp_path):
    trainer = experiment(tmp_path).trainer
    batch = trainer._process_batch_hook(next(iter(trainer.collector)))
    minibatch = trainer._process_optim_batch_hook(batch)
    assert "next" not in minibatch.keys()  # noqa: SIM118
    assert set(trainer.loss_module(minibatch).keys()) >= {"loss_objective", "loss_critic"}
