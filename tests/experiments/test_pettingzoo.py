"""Games of PettingZoo: a discrete and a continuous group with rewards of their own, trained on together."""

import sys

import pytest
import torch
from hunt_game import Hunt
from short_runs import configure, ignored_warnings, scalars
from torchrl.envs import check_env_specs

from torchrl_ob.experiments.build import build
from torchrl_ob.experiments.envs.pettingzoo import make_pettingzoo
from torchrl_ob.experiments.errors import ExperimentError
from torchrl_ob.experiments.loop import estimate, train
from torchrl_ob.experiments.update import minibatches

pytestmark = ignored_warnings
HUNT = ("env=pettingzoo", "env.task=hunt_game", "env.num_envs=20", "evaluation.num_envs=5")
LEAVE = {"use_mask": True, "scenario_kwargs": {"leave": True}}


def make(task="hunt_game", num_envs=3, max_steps=30, seed=0, **options):
    return make_pettingzoo(task, num_envs=num_envs, max_steps=max_steps, seed=seed, **options)


@pytest.mark.parametrize("options", [{}, LEAVE, {"group_map": "one_group_per_agent"}])
@pytest.mark.parametrize("max_steps", [7, 30])
def test_a_game_is_the_one_of_pettingzoo(max_steps, options):
    env = make(num_envs=1, max_steps=max_steps, **options)
    check_env_specs(env)
    env.set_seed(3)
    td = env.rollout(25, break_when_any_done=False)[0]
    bare = Hunt(**options.get("scenario_kwargs", {}))
    bare.reset(seed=3)
    seen, _ = bare.reset()  # the first follows the seed, and the episode is another
    sums, left = dict.fromkeys(bare.agents, 0.0), max_steps
    for step in td:
        actions = {
            agent: step[group, "action"][i].numpy()
            for group, agents in env.group_map.items()
            for i, agent in enumerate(agents)
        }
        acting = set(bare.agents)
        for group, agents in env.group_map.items():
            for i, agent in enumerate(agents):
                if agent in acting:
                    assert step[group, "observation"][i].numpy() == pytest.approx(seen[agent])
                if options is LEAVE:
                    assert step[group, "mask"][i].item() == (agent in acting)
        seen, rewards, _, _, _ = bare.step(actions)
        left -= 1
        for group, agents in env.group_map.items():
            for i, agent in enumerate(agents):
                sums[agent] += rewards.get(agent, 0.0)
                found = step["next", group]
                assert found["reward"][i].item() == pytest.approx(rewards.get(agent, 0.0), abs=1e-6)
                assert found["episode_reward"][i].item() == pytest.approx(sums[agent], abs=1e-5)
        assert step["next", "terminated"].item() == (not bare.agents)
        assert step["next", "truncated"].item() == (left == 0)
        if not bare.agents or not left:
            seen, _ = bare.reset()
            sums, left = dict.fromkeys(bare.agents, 0.0), max_steps
    assert td["next", "done"].any()


def test_starts_follow_from_the_seed():
    first, again, other = (make(num_envs=20, seed=seed).reset() for seed in (0, 0, 1))
    assert first["hound", "observation"].equal(again["hound", "observation"])
    assert not first["hound", "observation"].equal(other["hound", "observation"])
    assert first["hound", "observation"][:, 0, 0].unique().tolist() == [-1, 1]


def test_both_groups_learn_to_act_on_what_the_other_does(tmp_path):
    numbers = ("env.max_steps=20", "total_frames=4000", "collector.frames_per_batch=400")
    numbers += ("trainer.num_epochs=8", "policy.num_cells=32", "critic.hidden_dim=32")
    numbers += ("optimizer.lr=0.003", "evaluation.interval=4000", "checkpoint.interval=4000")
    parts = build(configure(*HUNT, *numbers), tmp_path)
    before = parts.evaluation.metrics()
    train(parts)
    after = parts.evaluation.metrics()
    for kind in ("deterministic", "stochastic"):  # at most 10 and 5 where all act right
        assert after[f"eval/{kind}_reward_hound"] > before[f"eval/{kind}_reward_hound"] + 5
        assert after[f"eval/{kind}_reward_hound"] > 7
        assert after[f"eval/{kind}_reward_hare"] > before[f"eval/{kind}_reward_hare"] + 2
        assert after[f"eval/{kind}_reward_hare"] > 3.5


@pytest.mark.parametrize("advantage", ["ob", "gae"])
def test_agents_that_leave_take_no_part(advantage, tmp_path):
    leave = (
        "env.use_mask=true",
        "trainer.clip_norm=null",
        "++env.scenario_kwargs.leave=true",
        f"advantage={advantage}",
    )
    parts = build(configure(*HUNT, *leave), tmp_path)
    train(parts)
    assert len(scalars(tmp_path)) > 10
    hounds, hare = parts.learners
    assert (hounds.group, hare.group) == ("hound", "hare")
    with torch.no_grad():
        batch = parts.evaluation.env.rollout(20, parts.actor, break_when_any_done=False)
    estimate(parts, batch)
    minibatch = next(minibatches(batch, parts.keys, 100))
    gone = ~minibatch["hound", "mask"]
    assert gone.any(0).tolist() == [False, True]

    def gradients(batch):
        parts.loss.zero_grad()
        torch.manual_seed(0)  # the entropy of a squashed Gaussian is that of samples
        losses = parts.differentiate(batch)
        return [x.grad.clone() for x in parts.actor.parameters()], losses

    other = minibatch.clone()
    other["hound", "advantage"][gone] = 1e9
    other["hound", "action_log_prob"][gone] = -7.0
    other["hound", "value_target"][gone] += 1
    (first, losses), (second, others) = gradients(minibatch), gradients(other)
    assert all(a.equal(b) for a, b in zip(first, second, strict=True))
    assert losses["loss_critic_hound"] != others["loss_critic_hound"]
    assert losses["loss_critic_hare"] == others["loss_critic_hare"]


def test_a_shared_reward_is_the_mean_of_a_group_and_not_of_opponents():
    own, shared = (make(shared_reward=x) for x in (False, True))
    td, state = own.rollout(10), shared.reset()
    for t in range(10):
        for group in own.group_map:
            state[group, "action"] = td[:, t][group, "action"]
        state = shared.step(state)["next"]
        reward = td[:, t]["next", "hound", "reward"]
        mean = reward.mean(-2, keepdim=True).expand_as(reward)
        torch.testing.assert_close(state["hound", "reward"], mean)
        assert state["hare", "reward"].equal(td[:, t]["next", "hare", "reward"])
    assert not own.rollout(3)["next", "hound", "reward"].diff(dim=-2).eq(0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "no_such_package.game"}, "no module 'no_such_package'"),
        ({"task": "pettingzoo.mpe.simple_tag_v3"}, "cannot be imported: .*[Mm][Pp][Ee]2"),
        ({"task": "json"}, "env.task=json has no function parallel_env"),
        ({"scenario_kwargs": {"stepz": 2}}, r"scenario_kwargs=\{'stepz': 2\}: .*stepz"),
        ({"group_map": "by_name"}, "one_group_per_agent"),
        ({"group_map": "all_in_one_group"}, r"group 'agents' .*one_group_per_agent"),
    ],
)
def test_what_cannot_work_is_told(options, message):
    with pytest.raises(ExperimentError, match=f"^[^\n]*{message}[^\n]*$"):
        make(**options)


def test_what_is_missing_is_told_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pettingzoo", None)
    with pytest.raises(ExperimentError, match=r"^[^\n]*pip install 'torchrl-ob\[pettingzoo\]'$"):
        make()
