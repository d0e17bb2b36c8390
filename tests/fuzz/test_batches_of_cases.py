"""Batches as simulators and pipelines leave them: the right value, or a refusal by name."""

from dataclasses import dataclass, fields, replace

import torch
from hypothesis import strategies as st

from fuzz.discrete_teams import Discrete, Team, discrete_cases, require_expected
from fuzz.harness import fuzz, require_refusal

FLAG_DTYPES = (torch.uint8, torch.int64, torch.float32, torch.float64)
RIGHT = ("nan_after", "unavailable_after", "dead")
REFUSED = ("nan_reward", "flat", "time_dim", "several_steps")
EITHER = ("drop", "transpose", "flags", "nan_now", "integer_reward", "double_reward")


@dataclass(frozen=True)
class Batch(Discrete):
    damage: str = "drop"
    which: int = 0


@st.composite
def batch_cases(draw, damages):
    case, damage = draw(discrete_cases()), draw(st.sampled_from(damages))
    case = replace(case, spread=min(case.spread, 3.0))
    if damage in ("unavailable_after", "dead"):
        case = replace(case, kind=draw(st.sampled_from(["masked", "masked_one_hot"])), factors=1)
        case = replace(case, choices=max(case.choices, 2), some_active=damage == "dead")
    if damage == "padded":
        case = replace(case, batch=case.batch or (2,), time_at=len(case.batch or (2,)))
        case = replace(
            case, spread=1e3
        )  # all draws are alike: padding repeats a state, its number as well
    values = {x.name: getattr(case, x.name) for x in fields(Discrete)}
    return Batch(**values, damage=damage, which=draw(st.integers(0, 99)))


def check_batch(case):
    team = Team(case)
    td, original, options, where = team.td.clone(), team.td, {}, True
    leaves = sorted(td.keys(True, True), key=str)
    ended = td["next", *(() if case.team_flags else ("agents",)), "terminated"]
    ended = ended if case.team_flags else ended.all(-2)  # [*shape, 1]
    if case.damage == "drop":
        key = leaves[case.which % len(leaves)]
        del td[key]
        acting, active = key != ("agents", "logits"), key != ("agents", "mask")
        team.case = replace(
            case, acting=case.acting and acting, some_active=case.some_active and active
        )
    elif case.damage == "transpose":
        wide = [
            key
            for key in leaves
            if key[-1]
            not in ("observation", "action")  # read by networks that are not the library's
            and td[key].ndim > td.ndim + 1
            and td[key].shape[-1] != td[key].shape[-2]
        ]
        key = wide[case.which % len(wide)] if wide else ("agents", "observation")
        td[key] = td[key].transpose(-1, -2).contiguous() if wide else td[key]
    elif case.damage == "flags":
        for name in ("done", "terminated"):
            key = ("next", *(() if case.team_flags else ("agents",)), name)
            td[key] = td[key].to(FLAG_DTYPES[case.which % len(FLAG_DTYPES)])
    elif case.damage == "nan_now":
        td["agents", "observation"][..., 3:] = torch.nan
    elif case.damage == "nan_after":
        observation = td["next", "agents", "observation"]
        for feature in (0, 1, *range(3, observation.shape[-1])):  # all but the state's number
            observation[..., feature].masked_fill_(ended, torch.nan)
    elif case.damage == "unavailable_after":
        td["next", "agents", "action_mask"] &= ~ended.unsqueeze(-1)
    elif case.damage == "dead":
        td["agents", "action_mask"] &= td["agents", "mask"].unsqueeze(-1)
        where = td["agents", "mask"].unsqueeze(-1)
    elif case.damage in ("nan_reward", "integer_reward", "double_reward"):
        key = ("next", *(() if case.team_reward else ("agents",)), "reward")
        if case.damage == "nan_reward":
            td[key][..., 0] = torch.nan
        else:
            td[key] = td[key].long() if case.damage == "integer_reward" else td[key].double()
        team.td[key] = td[key].to(team.dtype)
    elif case.damage == "flat":
        td = td.reshape(-1)
        options["time_dim"] = None
    elif case.damage == "time_dim":
        options["time_dim"] = (td.ndim + case.which % 3, -td.ndim - 1)[case.which % 2]
    elif case.damage == "several_steps":
        td["steps_to_next_obs"] = torch.ones(*td.batch_size, 1, dtype=torch.long)
    elif case.damage == "padded":
        where, original = pad(td, case)
    try:
        team.advantage(**options)(td)
    except Exception as error:
        require_refusal(error)
        if case.damage in RIGHT:
            raise
        return
    assert case.damage not in REFUSED
    require_expected(team, original, td, where)
    if case.damage == "nan_after":  # nor does a value that is handed over
        shape = (*team.shape, case.agents, 1)
        over = td["next", *(() if case.team_flags else ("agents",)), "terminated"]
        over = over.unsqueeze(-2).expand(shape) if case.team_flags else over
        values = torch.zeros(shape, dtype=team.dtype).masked_fill(over, torch.nan)
        assert team.advantage().value_estimate(td, next_value=values).isfinite().all()


def pad(td, case):
    """The last steps of some trajectories as ``split_trajectories`` leaves them; where they are valid, and their ends."""
    lengths = torch.randint(1, case.steps + 1, case.batch)
    valid = torch.arange(case.steps) < lengths.unsqueeze(-1)  # [*batch, T]
    for key in td.keys(True, True):
        x = td[key]
        inside = valid.reshape(*valid.shape, *[1] * (x.ndim - valid.ndim))
        td[key] = torch.where(inside, x, torch.zeros_like(x))
    for where in (td["agents"], td["next", "agents"]):
        if "action_mask" in where:
            where["action_mask"] |= ~valid[..., None, None]
    last = torch.arange(case.steps) == (lengths - 1).unsqueeze(-1)
    key = ("next", *(() if case.team_flags else ("agents",)), "done")
    ended = td.clone()
    ended[key] |= last.reshape(*last.shape, *[1] * (td[key].ndim - last.ndim))
    if case.which % 2:  # the last step before padding is an end, whether the batch says so or not
        td[key] = ended[key]
    td["collector", "mask"] = valid
    return valid[..., None, None], ended


test_batch = fuzz(batch_cases(EITHER), check_batch, short=70)
test_padded_batch = fuzz(batch_cases(("padded",)), check_batch, short=40)
test_right_batch = fuzz(batch_cases(RIGHT), check_batch, short=60)
test_refused_batch = fuzz(batch_cases(REFUSED), check_batch, short=40)
