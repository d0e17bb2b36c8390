"""Environments that TorchRL has no wrapper for."""
