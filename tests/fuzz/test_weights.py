"""Weights of the optimal baseline, of any log-probabilities in any precision."""

from dataclasses import dataclass
from math import inf

import torch
from hypothesis import strategies as st

from fuzz import reference
from fuzz.harness import fuzz
from torchrl_ob.functional import categorical_optimal_weights, optimal_weights

DTYPES = ("float64", "float32", "bfloat16", "float16")
LOGITS = st.sampled_from([0.0, -inf, -1e10, -1e9, -1e8, -1e4, -87.0, -50.0, -20.0, 1.0, 1e-6, 1e4])


@dataclass(frozen=True)
class Logits:
    logits: tuple[float, ...] = (0.0, 1.0)
    dtype: str = "float64"


@st.composite
def logit_cases(draw):
    entries = draw(st.lists(LOGITS | st.floats(-30, 30), min_size=1, max_size=6))
    entries.insert(draw(st.integers(0, len(entries))), draw(st.floats(-30, 30)))
    return Logits(tuple(entries), draw(st.sampled_from(DTYPES)))


def check_categorical_weights(case):
    dtype = getattr(torch, case.dtype)
    logits = torch.tensor(case.logits, dtype=torch.float64).to(dtype)
    log_probs = logits.log_softmax(-1)
    x = categorical_optimal_weights(log_probs)
    eps = torch.finfo(dtype).eps
    assert x.dtype == dtype
    assert (x >= 0).all(), x
    assert abs(x.double().sum().item() - 1) <= 4 * eps * len(x), x
    finite = logits[logits > -inf]
    size = (finite.max() - finite.min()).item()  # what rounding does to a log-probability
    digits = 16 * eps * max(1.0, size)
    if digits < 0.1:
        _, expected = reference.policy_and_optimal_weights([logits.tolist()])
        torch.testing.assert_close(
            x.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=digits
        )


test_categorical_weights = fuzz(logit_cases(), check_categorical_weights, short=150)


@dataclass(frozen=True)
class Scored:
    mass: tuple[float, ...] = (1.0,)
    scores: tuple[float, ...] = (1.0,)
    dtype: str = "float64"


@st.composite
def scored_cases(draw):
    size = draw(st.integers(1, 6))
    positive = st.sampled_from([0.0, 1.0, 1e-30, 1e-12, 1e12]) | st.floats(0, 10).map(
        lambda x: round(x, 6)
    )
    mass = draw(st.lists(st.floats(0.01, 1), min_size=size, max_size=size))
    scores = draw(st.lists(positive, min_size=size, max_size=size))
    return Scored(tuple(mass), tuple(scores), draw(st.sampled_from(DTYPES[:2])))


def check_optimal_weights(case):
    dtype = getattr(torch, case.dtype)
    mass, scores = torch.tensor(case.mass, dtype=dtype), torch.tensor(case.scores, dtype=dtype)
    mass = mass / mass.sum()
    x = optimal_weights(mass, scores)
    product = [p * w for p, w in zip(mass.tolist(), scores.tolist(), strict=True)]
    total = sum(product)
    expected = [v / total for v in product] if total else mass.tolist()
    digits = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        x.double(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=digits
    )


test_optimal_weights = fuzz(scored_cases(), check_optimal_weights, short=60)
