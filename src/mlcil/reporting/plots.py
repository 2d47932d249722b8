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

from mlcil.evaluation.metrics import metrics_of
from mlcil.evaluation.singlelabel import accuracy_matrix
from mlcil.files import write_bytes

COLOURS = {"seen": "tab:blue", "base": "tab:green", "new": "tab:orange"}


def draw_run(folder: Path, results: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> list[Path]:
    """Write the curves of a run into ``folder``; returns their paths.

    With many labels an image ``map_per_session.png`` and ``ap_per_class.png``, with one
    ``accuracy_per_session.png`` and ``accuracy_matrix.png``.
    """
    if metrics_of(results[0]).headline == "accuracy":
        figures = {"accuracy_per_session.png": accuracy_per_session(results), "accuracy_matrix.png": matrix(results)}
    else:
        figures = {"map_per_session.png": map_per_session(results), "ap_per_class.png": ap_per_class(results, classes)}
    files = []
    for name, figure in figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
        plt.close(figure)
        write_bytes(folder / name, buffer.getvalue())
        files.append(folder / name)
    return files


def map_per_session(results: Sequence[Mapping[str, Any]]) -> Figure:
    """MAP on base, seen and new classes, growing test set solid and fixed test set dashed."""
    lines = [
        (f"{split}, {label}", style, colour, [r[key][split] for r in results])
        for split, colour in COLOURS.items()
        for key, label, style in (("mAP", "growing", "o-"), ("fixed_mAP", "fixed", "s--"))
    ]
    return _per_session(results, lines, "mAP (%)", "mAP per session", "classes, test set")


def accuracy_per_session(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy on base, seen and new classes, top-1 solid and top-5 dashed."""
    lines = [
        (f"{split}, {label}", style, colour, [r[key][split] for r in results])
        for split, colour in COLOURS.items()
        for key, label, style in (("accuracy", "top-1", "o-"), ("top5", "top-5", "s--"))
    ]
    return _per_session(results, lines, "accuracy (%)", "accuracy per session", "classes")


def _per_session(
    results: Sequence[Mapping[str, Any]],
    lines: Sequence[tuple[str, str, str, Sequence[float | None]]],
    unit: str,
    title: str,
    legend: str,
) -> Figure:
    """Curves (label, style, colour, values) over the sessions."""
    figure, axes = plt.subplots(figsize=(6.5, 4))
    sessions = [result["index"] for result in results]
    for label, style, colour, values in lines:
        shown = [np.nan if value is None else value for value in values]
        axes.plot(sessions, shown, style, color=colour, alpha=0.6 if "--" in style else 1.0, label=label)
    axes.set(xlabel="session", ylabel=unit, ylim=(0, 101), title=title)
    axes.set_xticks(sessions)
    axes.grid(alpha=0.3)
    axes.legend(title=legend, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, -0.42))
    return figure


def matrix(results: Sequence[Mapping[str, Any]]) -> Figure:
    """Heat map of the accuracy matrix: a row per session whose classes are tested, a column per session reached."""
    table = np.array([[np.nan if v is None else v for v in row] for row in accuracy_matrix(results)]).T
    names = [f"session {result['index']}'s classes" for result in results]
    return _heat_map(table, names, results, "accuracy (%) on each session's classes")


def ap_per_class(results: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> Figure:
    """Heat map of AP on the fixed test set: a row per class, a column per session."""
    rows = len(results[-1]["fixed_AP"])
    table = np.full((rows, len(results)), np.nan)
    for t, result in enumerate(results):
        values = [np.nan if v is None else v for v in result["fixed_AP"]]
        table[: len(values), t] = values
    return _heat_map(table, list(classes[:rows]), results, "AP (%) per class, fixed test set")


def _heat_map(table: np.ndarray, names: Sequence[str], results: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Percentages, with their numbers where there are few: a row per name, a column per session."""
    rows = len(table)
    figure, axes = plt.subplots(figsize=(2.4 + 0.55 * len(results), 1.4 + 0.24 * rows))
    image = axes.imshow(table, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    axes.set_yticks(range(rows), list(names), fontsize=8)
    axes.set_xticks(range(len(results)), [str(r["index"]) for r in results])
    axes.set(xlabel="session", title=title)
    if rows <= 40:
        for (i, j), value in np.ndenumerate(table):
            if not np.isnan(value):
                shade = "black" if value > 60 else "white"
                axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=7, color=shade)
    figure.colorbar(image, ax=axes, fraction=0.08, pad=0.03)
    return figure
