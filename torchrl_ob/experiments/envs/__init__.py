"""Environments of an experiment, each made by a function that a config names."""
