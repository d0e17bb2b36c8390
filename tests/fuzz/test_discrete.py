"""Every advantage of a team with discrete actions is the slow loop over states, agents and choices."""

from fuzz import reference
from fuzz.discrete_teams import Discrete, Team, discrete_cases, require_expected
from fuzz.harness import fuzz

__all__ = ["Discrete"]


def check_discrete(case):
    team = Team(case)
    td = team.td.clone()
    team.advantage()(td)
    expected = require_expected(team, team.td, td)
    reference.require_drawn(expected.draws)
    for key in team.td.keys(True, True):
        assert td[key].equal(team.td[key])


test_discrete = fuzz(discrete_cases(), check_discrete, short=60)
