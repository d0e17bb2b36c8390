"""Environments that TorchRL does not wrap."""
