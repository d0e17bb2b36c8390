"""Measurements of the variance of the gradient on a batch of rollouts."""
