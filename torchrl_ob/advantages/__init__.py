"""The advantages: the optimal baseline, COMA's baseline, and none."""
