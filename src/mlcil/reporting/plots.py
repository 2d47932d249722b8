"""Curves of a run as PNG files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from mlcil.files import write_bytes


def draw_run(folder: Path, results: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> list[Path]:
    """Write ``map_per_session.png`` and ``ap_per_class.png`` into ``folder``; returns their paths."""
    files = []
    for name, figure in (
        ("map_per_session.png", map_per_session(results)),
        ("ap_per_class.png", ap_per_class(results, classes)),
    ):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
        plt.close(figure)
        write_bytes(folder / name, buffer.getvalue())
        files.append(folder / name)
    return files


def map_per_session(results: Sequence[Mapping[str, Any]]) -> Figure:
    """MAP on base, seen and new classes, growing test set solid and fixed test set dashed."""
    figure, axes = plt.subplots(figsize=(6.5, 4))
    sessions = [result["index"] for result in results]
    for split, colour in (("seen", "tab:blue"), ("base", "tab:green"), ("new", "tab:orange")):
        axes.plot(sessions, [r["mAP"][split] for r in results], "o-", color=colour, label=f"{split}, growing")
        fixed = [np.nan if r["fixed_mAP"][split] is None else r["fixed_mAP"][split] for r in results]
        axes.plot(sessions, fixed, "s--", color=colour, alpha=0.6, label=f"{split}, fixed")
    axes.set(xlabel="session", ylabel="mAP (%)", ylim=(0, 101), title="mAP per session")
    axes.set_xticks(sessions)
    axes.grid(alpha=0.3)
    axes.legend(title="classes, test set", fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, -0.42))
    return figure


def ap_per_class(results: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Figure:
    """Heat map of AP on the fixed test set: a row per class, a column per session."""
    rows = len(results[-1]["fixed_AP"])
    table = np.full((rows, len(results)), np.nan)
    for t, result in enumerate(results):
        values = [np.nan if v is None else v for v in result["fixed_AP"]]
        table[: len(values), t] = values
    figure, axes = plt.subplots(figsize=(2.4 + 0.55 * len(results), 1.4 + 0.24 * rows))
    image = axes.imshow(table, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    axes.set_yticks(range(rows), list(classes[:rows]), fontsize=8)
    axes.set_xticks(range(len(results)), [str(r["index"]) for r in results])
    axes.set(xlabel="session", title="AP (%) per class, fixed test set")
    if rows <= 40:
        for (i, j), value in np.ndenumerate(table):
            if not np.isnan(value):
                shade = "black" if value > 60 else "white"
                axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color=shade)
    figure.colorbar(image, ax=axes, fraction=0.08, pad=0.03)
    return figure
