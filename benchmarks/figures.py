"""The picture of the variance on VMAS, drawn from ``docs/benchmarks/data``.

``python benchmarks/figures.py`` draws it to ``runs/figures``, in seconds; that of the site is in ``docs/images``. The data
are what ``gradient_variance.py`` writes.
"""

import csv
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np

DATA = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "data"
FOLDER = Path("runs") / "figures"
SIGNALS = {"λ = 0.9": "the λ-return, λ = 0.9", "Q": "the critic's Q"}


def read(name: str) -> list[dict[str, str]]:
    """The rows of a data file."""
    with (DATA / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def gradient_variance() -> plt.Figure:
    """V's variance over OB's of every team, with the pooled critic, for two signals."""
    rows = [row for row in read("gradient_variance") if row["critic"] == "pooled"]
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))
    figure, panels = plt.subplots(1, 2, figsize=(10, 5), layout="constrained", sharey=True)
    for panel, (signal, title) in zip(panels, SIGNALS.items(), strict=True):
        shown = [row for row in rows if row["what"] == f"{signal}: v/ob"]
        for color, reward in (("tab:blue", "individual"), ("tab:orange", "team")):
            of_kind = [row for row in shown if row["reward"] == reward]
            shift = 0.0 if reward == "individual" else 0.4
            y = [
                scenarios.index(row["scenario"]) + shift + (np.log2(int(row["agents"])) - 4) / 11
                for row in of_kind
            ]
            value, low, high = np.array(
                [[float(row[x]) for x in ("value", "low", "high")] for row in of_kind]
            ).T
            panel.errorbar(
                value,
                y,
                xerr=[value - low, high - value],
                fmt=".",
                color=color,
                label=f"{reward} reward",
            )
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set(
            title=f"signal: {title}", xscale="log", xlabel="variance under V over that under OB"
        )
        ticks = [0.4, 0.6, 1, 2, 4]
        panel.set_xticks(ticks, map(str, ticks))
        panel.minorticks_off()
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(scenarios)), scenarios)
    panels[0].invert_yaxis()
    panels[0].legend(loc="center right")
    return figure


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "gradient_variance.png"
    gradient_variance().savefig(path, dpi=100)
    print(path)
