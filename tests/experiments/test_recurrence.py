"""Teams that remember, in the command: states are carried from collection to updates, evaluation and resume."""

import pytest
import torch
from short_runs import configure, ignored_warnings, scalars
from tensordict import TensorDict
from torch import nn
from torchrl.modules import recurrent_mode, set_recurrent_mode

from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.config.check import check_config
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.loop import estimate, improve
from torchrl_ob.experiments.metrics import critic_metrics
from torchrl_ob.experiments.run import run
from torchrl_ob.experiments.saved import evaluate_run, load_run
from torchrl_ob.experiments.update import minibatches

pytestmark = ignored_warnings

REMEMBER = ("policy=gru", "critic=pooled_gru", "trainer.sequence_length=5", "env.max_steps=13")
VALUE, FEATURES = ("agents", "state_action_value"), ("agents", "critic_features")


@pytest.fixture
def make(tmp_path):
    made = []

    def make(*overrides, remember=REMEMBER):
        made.append(build(configure(*remember, *overrides), tmp_path / str(len(made))))
        return made[-1]

    yield make
    for parts in made:
        parts.close()


def sequences(learner, steps):
    """Log-probabilities and values of whole sequences in one call, as a loss has them."""
    with set_recurrent_mode(True), torch.no_grad():
        dist = learner.actor.get_dist(steps.clone())
        values = learner.critic(steps.clone())[VALUE]
    return dist.log_prob(steps["agents", "action"]), values


@pytest.mark.parametrize(
    "options",
    [(), ("collector=multi_sync",), ("policy=lstm", "critic.cell=lstm", "env.max_steps=9")],
)
def test_sequences_give_what_the_collector_computed_step_by_step(options, make):
    parts = make(*options, "total_frames=600", "env.continuous_actions=false")
    (learner,) = parts.learners
    team = learner.advantage.team
    for k, batch in enumerate(parts.collector):
        batch, starts = batch.clone(), batch["is_init"].squeeze(-1).clone()
        assert starts[:, 1:].any()
        assert starts[:, 0].all() == (k == 0)  # later ones begin within episodes
        encoded = team.encode(batch)
        torch.testing.assert_close(encoded[FEATURES], batch[FEATURES], atol=1e-5, rtol=0)
        found = encoded["next", *FEATURES][:, :-1][~starts[:, 1:]]
        expected = encoded[FEATURES][:, 1:][~starts[:, 1:]]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        stored = batch["agents", "action_log_prob"], team.q(encoded)
        pieces = zip(*[sequences(learner, x) for x in batch.split(5, 1)], strict=True)
        for found in (sequences(learner, batch), [torch.cat(x, 1) for x in pieces]):
            torch.testing.assert_close(tuple(found), stored, atol=1e-5, rtol=1e-4)
        estimate(parts, batch)
        improve(parts, batch)
        assert not torch.allclose(team.encode(batch)[FEATURES], batch[FEATURES], atol=1e-5)


def test_minibatches_are_pieces_of_trajectories_each_once():
    steps = torch.arange(60).reshape(3, 20)
    batch = TensorDict({"step": steps, "other": steps}, [3, 20])
    pieces = list(minibatches(batch, ["step"], 20, 5))
    assert [x.shape for x in pieces] == [(4, 5)] * 3
    seen = torch.cat([x["step"] for x in pieces])
    assert (seen[:, 1:] - seen[:, :-1] == 1).all()
    assert (seen[:, 0] % 5 == 0).all()
    assert seen.flatten().sort().values.equal(steps.flatten())
    assert not seen.equal(steps.reshape(12, 5))


def test_a_loss_of_pieces_is_the_mean_of_that_of_each(make):
    parts = make("trainer.normalize_advantage=false", "trainer.clip_norm=null")
    batch = next(iter(parts.collector)).clone()
    estimate(parts, batch)
    read = batch.select(*parts.keys, strict=False).reshape(-1, 5)

    def gradient(pieces):
        parts.loss.zero_grad()
        parts.differentiate(pieces)
        return torch.cat([x.grad.flatten() for x in parts.loss.parameters() if x.grad is not None])

    whole = gradient(read)
    each = torch.stack([gradient(piece) for piece in read.split(4)]).mean(0)
    torch.testing.assert_close(each, whole, atol=1e-5, rtol=1e-3)
    forgotten = read.clone()  # the states before the pieces matter
    for key in (("agents", "hidden"), ("agents", "critic_hidden")):
        forgotten[key] = torch.rand_like(forgotten[key])
    assert not torch.allclose(gradient(forgotten), whole, atol=1e-4)


def test_a_resumed_run_ends_in_the_same_numbers(tmp_path):
    overrides = (*REMEMBER, "policy=lstm", "total_frames=600", "env.scenario=balance")
    whole = run(configure(*overrides), tmp_path / "whole")
    run(configure(*overrides), tmp_path / "again")
    newest = sorted((tmp_path / "again" / "checkpoints").iterdir())[-1]
    newest.unlink()
    resumed = run(configure(*overrides, "resume=auto"), tmp_path / "again")
    for one, two in zip(whole.loss.parameters(), resumed.loss.parameters(), strict=True):
        assert torch.equal(one, two)
    assert scalars(tmp_path / "whole") == scalars(tmp_path / "again")


def test_a_trained_team_is_evaluated_and_loaded_from_its_folder(tmp_path):
    parts = run(configure(*REMEMBER), tmp_path)
    estimates = parts.evaluation.estimates()
    for name, found in evaluate_run(tmp_path).items():
        assert torch.equal(found.value, estimates[name].value)
    trained = load_run(tmp_path)
    with torch.no_grad():
        batch = trained.env.rollout(6, trained.policy)
    state = batch["agents", "hidden"]
    assert not state[:, 0].any()
    assert torch.equal(state[:, 1:], batch["next", "agents", "hidden"][:, :-1])


@pytest.mark.parametrize(
    "options",
    [
        ("env.scenario=simple_tag",),
        ("policy=mlp", "advantage=ob_streams", "env.shared_reward=true"),
        ("critic=pooled", "policy.share_params=false", "advantage=coma", "variance_interval=1"),
        ("env.scenario=simple_tag", "advantage=gae", "critic=pooled_value_gru"),
        ("advantage=gae", "critic=pooled_value_gru", "loss=mappo", "value_norm=popart"),
        ("loss=mappo", "value_norm=popart", "critic.backbone=concat", "critic.share_params=false"),
        (
            "loss=reinforce",
            "trainer.num_epochs=1",
            "trainer.minibatch_size=200",
            "critic.cell=lstm",
        ),
    ],
)
def test_every_kind_of_team_trains(options, tmp_path):
    parts = run(configure(*REMEMBER, *options, "total_frames=200"), tmp_path)
    memories = [x for name, x in parts.loss.named_parameters() if "weight_hh" in name]
    assert memories
    for weight in memories:  # gradients have run back through time
        assert parts.optimizer.state[weight]["exp_avg"].abs().sum() > 0
        assert weight.isfinite().all()


class Cumulated(nn.Module):
    """A critic with a history of its own kind, which it can tell of sequences alone."""

    in_keys, out_keys = [("agents", "observation")], [VALUE]

    def encode(self, tensordict):
        raise AssertionError

    def forward(self, tensordict):
        assert recurrent_mode()
        seen = tensordict["agents", "observation"].mean(-1, keepdim=True)
        return tensordict.set(VALUE, seen.cumsum(-3))


def test_the_share_of_the_variance_explained_is_of_the_critic_that_remembers(make):
    parts = make()
    (learner,) = parts.learners
    batch = next(iter(parts.collector)).clone()
    estimate(parts, batch)
    target = batch["value_target"].flatten(0, 1)
    for critic in (learner.critic, Cumulated()):
        learner.critic = critic
        _, values = sequences(learner, batch)
        explained = 1 - (target - values.flatten(0, 1)).var(0) / target.var(0)
        for size in (40, 1000):
            found = critic_metrics(parts.learners, batch, size)["critic/explained_variance"]
            torch.testing.assert_close(found, explained.mean(), atol=1e-5, rtol=1e-4)


def test_updates_are_on_pieces(make):
    parts, shapes = make(), []
    batch = next(iter(parts.collector)).clone()
    estimate(parts, batch)
    differentiate = parts.differentiate
    parts.differentiate = lambda x: shapes.append(x.shape) or differentiate(x)
    improve(parts, batch)
    assert shapes == [(20, 5)] * 4  # two epochs of 200 steps


def test_what_cannot_be_trained_is_told(make):
    with pytest.raises(ExperimentError, match=r"remembers is trained on sequences: .*length=10"):
        make(remember=("policy=gru",))
    with pytest.raises(ExperimentError, match=r"remembers is trained on sequences"):
        make(remember=("critic=pooled_gru",))
    for override, message in (
        (
            "trainer.sequence_length=7",
            "num_envs=20 must be a multiple of trainer.sequence_length=7",
        ),
        ("trainer.minibatch_size=52", "minibatch_size=52 must be a multiple of"),
        ("loss.normalize_advantage_exclude_dims=[1]", "counts from the last dimension"),
        ("critic.cell=rnn", "'gru' or 'lstm'"),
    ):
        with pytest.raises(ExperimentError, match=message):
            check_config(configure(*REMEMBER, override))
