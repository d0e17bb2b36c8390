"""Runs with several groups of agents: an actor, a loss and an advantage for each, one critic over all."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from short_runs import configure, ignored_warnings, scalars
from tensordict import TensorDict
from torchrl.envs import ExplorationType, set_exploration_type

from torchrl_ob.critics.groups import GroupQCritic
from torchrl_ob.experiments.build import build, build_evaluation
from torchrl_ob.experiments.envs.vmas import make_vmas
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.loop import estimate, improve, train
from torchrl_ob.experiments.metrics import reward_metrics
from torchrl_ob.experiments.run import run
from torchrl_ob.experiments.update import minibatches

pytestmark = [*ignored_warnings, pytest.mark.filterwarnings("ignore:.*should not be instantiated")]
TAG = "env.scenario=simple_tag"
GROUPS = ("adversary", "agent")
WHOLE = ("trainer.num_epochs=1", "trainer.minibatch_size=200")  # for a loss of one step a batch


def rows(folder, name):
    text = scalars(folder)[Path(f"{name}.csv")]
    return [float(line.split(",")[1]) for line in text.splitlines()]


def test_metrics_are_of_each_group_and_of_all_agents(tmp_path):
    parts = run(configure(TAG, "variance_interval=2"), tmp_path)
    assert [x.group for x in parts.learners] == list(GROUPS)
    for name in ("train/reward", "train/episode_reward", "eval/deterministic_reward"):
        all_agents, adversary, agent = (
            rows(tmp_path, f"{name}{end}") for end in ("", "_adversary", "_agent")
        )
        for mean, hunters, prey in zip(all_agents, adversary, agent, strict=True):
            assert mean == pytest.approx((3 * hunters + prey) / 4, abs=1e-5)
    for group in GROUPS:
        assert len(rows(tmp_path, f"loss/objective_{group}")) == 2
        assert len(rows(tmp_path, f"{group}/variance/ob/agent_0")) == 1
    found = scalars(tmp_path)
    assert Path("adversary/variance/ob/agent_2.csv") in found
    assert Path("agent/variance/ob/agent_1.csv") not in found
    numbers = json.loads((tmp_path / "evaluation.json").read_text())
    assert {"stochastic_reward", "stochastic_reward_agent"} <= numbers.keys()


def test_rewards_are_told_apart_by_group_and_only_of_episodes_that_end():
    sums = {"a": [[1.0, 3.0], [5.0, 7.0]], "b": [[10.0], [20.0]]}  # two steps; the second ends
    following = {
        name: {
            "reward": torch.tensor(x).reshape(1, 2, -1, 1) / 2,
            "episode_reward": torch.tensor(x).reshape(1, 2, -1, 1),
        }
        for name, x in sums.items()
    }
    following["done"] = torch.tensor([False, True]).reshape(1, 2, 1)
    keys = {name: (name, "reward") for name in sums}
    found = reward_metrics(TensorDict({"next": following}, [1, 2]), keys)
    expected = {"reward": 46 / 12, "reward_a": 2.0, "reward_b": 7.5}
    expected |= {"episode_reward": 32 / 3, "episode_reward_a": 6.0, "episode_reward_b": 20.0}
    assert found == pytest.approx({f"train/{name}": x for name, x in expected.items()})


@pytest.mark.parametrize(
    "overrides",
    [
        ("loss=mappo", "value_norm=popart", "policy.share_params=false"),
        ("advantage=coma", "loss=reinforce", "env.continuous_actions=false", *WHOLE),
        ("advantage=ob_streams", "advantage.hidden_dim=8", "env.shared_reward=true"),
    ],
)
def test_a_run_that_is_resumed_ends_in_the_same_numbers(overrides, tmp_path):
    config = configure(
        TAG, "env.num_envs=20", "evaluation.num_envs=3", "total_frames=400", *overrides
    )
    run(config, tmp_path)
    first = scalars(tmp_path)
    sorted((tmp_path / "checkpoints").iterdir())[-1].unlink()  # as if it had been killed
    config.resume = "auto"
    run(config, tmp_path)
    assert scalars(tmp_path) == first


def trained(folder, *overrides):
    parts = build(configure(TAG, *overrides), folder)
    train(parts)
    return parts


def test_the_losses_train_the_very_networks_that_act_and_value(tmp_path):
    parts = build(configure(TAG, "loss=mappo", "value_norm=popart"), tmp_path)
    critics = [x.critic for x in parts.learners]
    assert all(isinstance(critic, GroupQCritic) for critic in critics)
    first, second = parts.learners
    assert first.advantage.team.other_actors == (second.actor,)  # the very actor, not a copy
    assert second.advantage.team.other_actors == (first.actor,)
    expected = {*parts.actor.parameters(), *critics[0].parameters()}
    optimized = [*parts.loss.parameters()]
    assert set(optimized) == expected
    assert len(optimized) == len(expected)
    before = {name: x.clone() for name, x in parts.actor.state_dict().items()}
    valued = {name: x.clone() for name, x in critics[0].state_dict().items()}
    train(parts)
    assert all(not x.equal(before[name]) for name, x in parts.actor.state_dict().items())
    after = critics[0].state_dict()
    still = {name for name, x in after.items() if x.numel() and x.equal(valued[name])}
    assert not {name for name in still if "value_norm" not in name}
    batch = parts.evaluation.env.rollout(5, parts.actor)
    for learner in parts.learners:
        live = learner.critic(batch.clone())[learner.critic.out_keys[0]]
        with learner.loss.critic_network_params.to_module(learner.loss.critic_network):
            of_loss = learner.loss.critic_network(batch.clone())[learner.critic.out_keys[0]]
        assert of_loss.equal(live)


def test_each_loss_has_a_slow_copy_of_the_critic_of_its_own(tmp_path):
    parts = trained(tmp_path, "advantage=coma", "loss=reinforce", *WHOLE)
    copies = [list(x.loss.target_critic_network_params.values(True, True)) for x in parts.learners]
    current = list(parts.learners[0].loss.critic_network_params.values(True, True))
    pairs = [(a, b, c) for a, b, c in zip(*copies, current, strict=True) if a.numel()]
    for first, second, now in pairs:
        assert first.data_ptr() != second.data_ptr()
        torch.testing.assert_close(first, second)  # of the same critic, as slow
        assert first.data_ptr() != now.data_ptr()
    assert any(not first.equal(now) for first, _, now in pairs)


def test_a_compiled_update_has_the_same_numbers(tmp_path, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    parts = [
        build(configure(TAG, "policy.depth=0", f"trainer.compile={x}"), tmp_path / x)
        for x in ("false", "true")
    ]
    found = []
    for part in parts:
        torch.manual_seed(0)
        batch = next(iter(part.collector))
        estimate(part, batch)
        losses = part.differentiate(next(minibatches(batch, part.keys, 100)))
        gradient = torch.cat([x.grad.flatten() for x in part.actor.parameters()])
        found.append((gradient, losses["loss_objective_agent"], losses["loss_critic_adversary"]))
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-4)


def test_workers_act_on_the_newest_weights_of_every_group(tmp_path):
    config = configure(TAG, "collector=multi_sync", "optimizer.lr=0.003")
    untrained, seen = build_evaluation(config).policy, []
    parts = build(config, tmp_path)

    def comes_from(batch, policy, group):
        (actor,) = (x for x in policy if (group, "action") in x.out_keys)
        action, found = batch[group, "action"], batch[group, "action_log_prob"]
        with torch.no_grad():
            expected = actor.get_dist(batch.clone()).log_prob(action)
        exact = action.abs().amax(-1) < 0.99  # at its bounds the inverse of the tanh is not
        return torch.allclose(expected[exact], found[exact], atol=1e-2)

    try:
        for batch in parts.collector:
            for group in GROUPS:
                seen.append(
                    (comes_from(batch, parts.actor, group), comes_from(batch, untrained, group))
                )
            estimate(parts, batch)
            improve(parts, batch)
    finally:
        parts.close()
    assert seen == [(True, True)] * 2 + [(True, False)] * 2


def test_groups_are_those_of_the_config():
    make = partial(make_vmas, "simple_tag", num_envs=2, max_steps=5, seed=0)
    named = {"left": ["adversary_0"], "right": ["adversary_1", "adversary_2"], "prey": ["agent_0"]}
    assert make(group_map=named).group_map == named
    assert len(make(group_map="one_group_per_agent").group_map) == 4
    mixed = {"a": ["adversary_0", "agent_0"], "b": ["adversary_1", "adversary_2"]}
    with pytest.raises(
        ExperimentError, match=r"group 'a' .*one_group_per_agent.*\[adversary_0\], "
    ):
        make(group_map=mixed)
    with pytest.raises(ExperimentError, match=r"VMAS refuses .*group_map"):
        make(group_map={"a": ["nobody"]})


@pytest.mark.parametrize("kind", ["deterministic", "stochastic"])
def test_evaluation_follows_the_exploration_in_every_group(kind, tmp_path):
    evaluation = build_evaluation(configure(TAG))
    exploration = {"deterministic": ExplorationType.DETERMINISTIC}.get(kind, ExplorationType.RANDOM)
    with set_exploration_type(exploration), torch.no_grad():
        first, second = (evaluation.policy(evaluation.env.reset()) for _ in range(2))
        again = evaluation.policy(first.clone())
    for group in GROUPS:
        same = again[group, "action"].equal(first[group, "action"])
        assert same == (kind == "deterministic")
        assert not second[group, "action"].equal(first[group, "action"])
