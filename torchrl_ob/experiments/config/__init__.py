"""The config of an experiment: what it holds, how it is checked, and what it builds."""
