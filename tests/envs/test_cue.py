"""The game of the cue: its specs, its reward, and that nothing but the first step tells the answer."""

import torch
from torchrl.envs import check_env_specs

from torchrl_ob.envs.cue import RememberTheCue


def play(env, answer):
    td = env.reset()
    cue, rewards = td["agents", "observation"][..., 0], []
    while True:
        td["agents", "action"] = answer(cue, td["agents", "observation"])
        td = env.step(td)
        rewards.append(td["next", "reward"])
        if td["next", "done"].any():
            return torch.stack(rewards)
        td = td["next"].clone()


def test_specs():
    check_env_specs(RememberTheCue(4, num_agents=2, delay=3, seed=0))


def test_who_remembers_is_right_and_who_does_not_is_right_by_chance():
    env = RememberTheCue(500, num_agents=3, delay=10, seed=0)
    right = play(env, lambda cue, seen: (cue > 0).long())
    assert len(right) == 11
    assert right[:-1].abs().sum() == 0
    assert (right[-1] == 1).all()
    assert (play(env, lambda cue, seen: (cue < 0).long())[-1] == 0).all()
    for answer in (0, 1):
        share = play(env, lambda cue, seen, x=answer: torch.full(cue.shape, x))[-1]
        assert abs(share.mean() - 0.5) < 0.05


def test_the_cue_is_seen_at_the_first_step_alone_and_differs_by_episode():
    env = RememberTheCue(20, delay=4, seed=0)
    td = env.rollout(10, break_when_any_done=False)
    cue, last = td["agents", "observation"].unbind(-1)
    starts = torch.arange(10) % 5 == 0
    assert (cue[:, starts].abs() == 1).all()
    assert (cue[:, ~starts] == 0).all()
    assert (last[:, 4::5] == 1).all()
    assert last.sum() == 2 * 20 * 3
    assert not cue[:, 0].equal(cue[:, 5])
    again = RememberTheCue(20, delay=4, seed=0).rollout(10, break_when_any_done=False)
    assert again["agents", "observation"].equal(td["agents", "observation"])


def test_episodes_begin_apart():
    env = RememberTheCue(4, delay=3, seed=0)
    td = env.rand_step(env.reset())["next"]
    td["_reset"] = torch.tensor([[True], [False], [False], [True]])
    begun = env.reset(td)["agents", "observation"][..., 0].abs().amax(-1)
    assert begun.tolist() == [1, 0, 0, 1]
