"""Expectations over an agent's own action: candidates, their probabilities and OB weights."""
