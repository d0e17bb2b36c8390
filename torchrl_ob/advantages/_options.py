"""The named options of the advantages, and what is refused of them."""

from __future__ import annotations

from numbers import Real
from typing import Literal, get_args

from torch import Tensor

from torchrl_ob._checks.arguments import check_whole_number
from torchrl_ob.expectations.lines import ExpectationRule, check_rule
from torchrl_ob.functional import GaussianPsi

__all__ = ["Bootstrap", "Signal", "check_options"]

Signal = Literal["lambda_return", "critic"]
Bootstrap = Literal["sampled", "expected", "control_variate"]


def check_options(
    *,
    signal: Signal,
    bootstrap: Bootstrap,
    rule: ExpectationRule,
    psi: GaussianPsi,
    gamma: float,
    lmbda: float,
    num_points: int | None,
    chunk_size: int | None,
    time_dim: int | None,
) -> None:
    """Refuse options that :class:`~torchrl_ob.ObAdvantage` does not have.

    Raises:
        ValueError: naming the option and its choices.
        TypeError: for a number of another type.
    """
    for name, value, choices in (
        ("signal", signal, Signal),
        ("bootstrap", bootstrap, Bootstrap),
        ("psi", psi, GaussianPsi),
    ):
        if value not in get_args(choices):
            raise ValueError(f"{name} must be one of {get_args(choices)}, got {value!r}.")
    check_rule(rule)
    for name, decay in (("gamma", gamma), ("lmbda", lmbda)):
        if not isinstance(decay, Real | Tensor) or isinstance(decay, bool):
            raise TypeError(f"{name} must be a number, got {decay!r}.")
        if not 0 <= decay <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {decay}.")
    for name, size in (("num_points", num_points), ("chunk_size", chunk_size)):
        if size is not None:
            check_whole_number(name, size)
    if time_dim is not None:
        check_whole_number("time_dim", time_dim, least=None)
