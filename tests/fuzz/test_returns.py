"""Returns of any shape, along any dimension, are the loop over each trajectory."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from fuzz import reference
from fuzz.harness import fuzz
from fuzz.strategies import decays, flags, rates, seeds
from torchrl_ob.functional import control_variate, lambda_return


@dataclass(frozen=True)
class Returns:
    shape: tuple[int, ...] = (2, 5, 3, 1)
    time_dim: int = -3
    gamma: float = 0.9
    lmbda: float = 0.8
    ends: float = 0.3
    terminations: float = 0.5
    with_control_variate: bool = False
    double: bool = True
    seed: int = 0


@st.composite
def return_cases(draw):
    shape = draw(st.lists(st.integers(1, 4), min_size=0, max_size=3))
    axis = draw(st.integers(0, len(shape)))
    shape.insert(axis, draw(st.integers(1, 20)))
    return Returns(
        shape=tuple(shape),
        time_dim=axis - draw(st.sampled_from([0, len(shape)])),
        gamma=draw(decays),
        lmbda=draw(decays),
        ends=draw(rates),
        terminations=draw(rates),
        with_control_variate=draw(flags),
        double=draw(flags),
        seed=draw(seeds),
    )


def check_returns(case):
    torch.manual_seed(case.seed)
    dtype = torch.float64 if case.double else torch.float32
    reward, following, value = (3 * torch.randn(case.shape, dtype=dtype) for _ in range(3))
    done, apart = torch.rand(case.shape) < case.ends, torch.rand(case.shape) < case.ends
    # terminated without done, which a batch should not say, ends the trajectory as well
    terminated = (done | apart) & (torch.rand(case.shape) < case.terminations)
    decay = {"gamma": case.gamma, "lmbda": case.lmbda, "time_dim": case.time_dim}
    paid = reward
    if case.with_control_variate:
        paid = reward + control_variate(following, value, done, terminated, **decay)
    found = lambda_return(paid, following, done, terminated, **decay)
    assert found.dtype == dtype
    assert found.shape == reward.shape

    def lines(*tensors):
        moved = [x.movedim(case.time_dim, -1).reshape(-1, x.shape[case.time_dim]) for x in tensors]
        return zip(*(x.tolist() for x in moved), strict=True)

    for got, r, v, q, d, t in lines(found, reward, following, value, done, terminated):
        if case.with_control_variate:
            args = (r, v, q, d, t, case.gamma, case.lmbda)
            expected = reference.return_with_control_variate(*args)
        else:
            expected = reference.lambda_return(r, v, d, t, case.gamma, case.lmbda)
        close = {"rtol": 1e-10, "atol": 1e-10} if case.double else {"rtol": 1e-5, "atol": 1e-4}
        torch.testing.assert_close(got, expected, **close)


test_returns = fuzz(return_cases(), check_returns, short=150)
