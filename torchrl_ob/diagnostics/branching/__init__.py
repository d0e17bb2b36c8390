"""The truth, by branching states of the simulator."""
