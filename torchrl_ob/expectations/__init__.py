"""Expectations over an agent's own action: candidates, their probabilities and OB weights."""

from torchrl_ob.expectations.quadrature import Candidates

__all__ = ["Candidates"]
