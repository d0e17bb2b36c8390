"""The theorem by enumeration of all joint actions: one mean gradient, the least variance at OB."""

import itertools
from dataclasses import replace

import torch
from hypothesis import strategies as st

from fuzz.discrete_teams import ADVANTAGES, MASKED, Discrete, Team, discrete_cases
from fuzz.harness import fuzz

__all__ = ["Discrete"]


@st.composite
def small_cases(draw):
    case = draw(discrete_cases())
    choices = case.choices if case.factors == 1 else min(case.choices, 2)
    return replace(
        case,
        signal="critic",
        double=True,
        choices=choices,
        factors=min(case.factors, 2),
        some_active=False,
        spread=min(case.spread, 3.0),
    )


def enumerated(case):
    """A team in one state, all of whose joint actions ``[J, n, factors]`` are the batch."""
    joint = list(itertools.product(range(case.choices), repeat=case.agents * case.factors))
    case = replace(case, batch=(len(joint),), steps=1, time_at=1)
    team = Team(case)
    team.critic.asked = None  # nobody looks
    index = torch.tensor(joint).reshape(-1, 1, case.agents, case.factors)
    team.td["agents"] = team.td["agents"][:1].expand(len(joint), 1).clone()
    team.td["agents", "action"] = team.as_action(index)
    return team, index[:, 0]


def list_others(index, agent, choices):
    """A number for what all but an agent do, of joint actions ``[J, n, factors]``."""
    others = torch.cat([index[:, :agent], index[:, agent + 1 :]], 1).flatten(1)
    return (others * choices ** torch.arange(others.shape[1])).sum(-1)


def check_theorem(case):
    team, index = enumerated(case)
    psi = (
        team.td["agents", "logits"]
        if case.acting
        else team.logits(team.td["agents", "observation"])
    )
    psi = psi[0, 0].reshape(case.agents, case.factors, case.choices)
    if case.kind in MASKED:
        psi = psi.masked_fill(~team.td["agents", "action_mask"][0, 0].unsqueeze(1), -torch.inf)
    pi = psi.softmax(-1)
    taken = torch.nn.functional.one_hot(index, case.choices).double()
    score = (taken - pi).flatten(2)  # [J, n, factors * choices]
    probability = (taken * pi).sum(-1).prod(-1)  # of every agent's own choice
    joint = probability.prod(-1)
    means, variances, found = {}, {}, {}
    for name, module in ADVANTAGES.items():
        team.case = replace(team.case, advantage=name)
        assert isinstance(team.advantage(), module)
        signal = team.advantage()(team.td.clone())["advantage"][:, 0]  # [J, n, 1]
        gradient = signal * score
        mean = (joint[:, None, None] * gradient).sum(0)
        means[name], found[name] = mean, signal.squeeze(-1)
        second = (joint[:, None, None] * gradient.square()).sum((0, 2))
        variances[name] = second - mean.square().sum(-1)
    for name in ("ob", "coma"):
        torch.testing.assert_close(means[name], means["mapg"], rtol=1e-9, atol=1e-9)
        assert (variances["ob"] <= variances[name] + 1e-9).all()
    assert (variances["ob"] <= variances["mapg"] + 1e-9).all()
    # for every joint action of the others: E[w X] = 0 of OB, E[X] = 0 of COMA
    weight = score.square().sum(-1)
    for agent in range(case.agents):
        group = list_others(index, agent, case.choices)
        for name, measure in (("ob", probability * weight), ("coma", probability)):
            sums = torch.zeros(int(group.max()) + 1, dtype=torch.float64)
            sums.index_add_(0, group, (measure * found[name])[:, agent])
            torch.testing.assert_close(sums, torch.zeros_like(sums), rtol=0, atol=1e-9)


test_theorem = fuzz(small_cases(), check_theorem, short=40)


def check_own_action(case):
    """The baseline of an agent does not move with its own action, and does with another's."""
    team, index = enumerated(case)
    baseline = team.advantage()(team.td.clone())["agents", "baseline"][:, 0, :, 0]  # [J, n]
    for agent in range(case.agents):
        group = list_others(index, agent, case.choices)
        values = [baseline[group == k, agent] for k in range(int(group.max()) + 1)]
        for same in values:
            assert (same - same[0]).abs().max() < 1e-9
        if case.advantage != "mapg" and len(values) > 1:
            assert max(abs(v[0] - values[0][0]) for v in values) > 1e-9


test_own_action = fuzz(small_cases(), check_own_action, short=40)
