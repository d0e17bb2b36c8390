"""Recurrent networks of a team, for TorchRL's collectors and losses: modules, and the equations under them."""

from torchrl_ob.recurrent.networks import MultiAgentGRU, MultiAgentLSTM

__all__ = ["MultiAgentGRU", "MultiAgentLSTM"]
