"""The named options of the advantages, and what is refused of them."""

from __future__ import annotations

from typing import Literal, get_args

from torchrl_ob.cubature import ExpectationRule
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
    chunk_size: int | None,
) -> None:
    """Refuse options that :class:`~torchrl_ob.ObAdvantage` does not have.

    Raises:
        ValueError: naming the option and its choices.
    """
    for name, value, choices in (
        ("signal", signal, Signal),
        ("bootstrap", bootstrap, Bootstrap),
        ("rule", rule, ExpectationRule),
        ("psi", psi, GaussianPsi),
    ):
        if value not in get_args(choices):
            raise ValueError(f"{name} must be one of {get_args(choices)}, got {value!r}.")
    for name, decay in (("gamma", gamma), ("lmbda", lmbda)):
        if not 0 <= decay <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {decay}.")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be 1 or more, got {chunk_size}.")
