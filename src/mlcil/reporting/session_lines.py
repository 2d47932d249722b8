"""Accuracy after every session in one line, in the layout of DKT's README, with the published lines below ours.

All published numbers are of class order 1, top-1 accuracy on the classes seen so far in percent, after balanced
fine-tuning. A line's average is the one that its source prints.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlcil.reporting.tables import as_text, markdown

Run = Mapping[str, Any]  # content of a results.json

README = "README and log of the release"


@dataclass(frozen=True)
class Line:
    """A published line: what is not known of a session is ``None``."""

    source: str
    sessions: tuple[float | None, ...]
    average: float


def _whole(source: str, average: float, sessions: str) -> Line:
    """A line of which every session is known."""
    return Line(source, tuple(float(value) for value in sessions.split()), average)


def _quoted(sessions: int, average: float, last: float) -> Line:
    """A line of which only average and end are known."""
    return Line("paper, as quoted in DRDN's Tables II to IV", (*[None] * (sessions - 1), last), average)


METHOD = "DKT"  # whose lines these are
#: experiment -> published lines
LINES: dict[str, tuple[Line, ...]] = {
    "dkt_cifar100_20-20": (_whole(README, 76.91, "88.3 80.2 76.92 71.95 67.17"), _quoted(5, 76.88, 66.46)),
    "dkt_cifar100_10-10": (
        _whole(f"{README}, 1 x 512 images", 75.69, "94.2 86.95 83.0 77.53 74.12 74.05 70.53 67.9 65.12 63.45"),
        _whole("log of the release, 2 x 256 images", 75.54, "94.1 87.8 83.33 77.3 74.78 73.45 69.64 68.04 64.96 62.02"),
        _quoted(10, 75.83, 63.04),
    ),
    "dkt_cifar100_5-5": (
        _whole(
            README,
            74.37,
            "97.8 94.0 90.27 87.3 84.16 81.67 78.54 75.38 73.91 72.42 "
            "70.36 70.42 67.82 66.46 65.45 64.8 63.96 62.48 61.03 59.2",
        ),
        _quoted(20, 74.08, 58.56),
    ),
    "dkt_imagenet100_10-10": (
        _whole(README, 77.62, "91.6 85.8 81.53 79.35 77.28 76.57 73.49 71.6 70.2 68.74"),
        _quoted(10, 78.2, 68.66),
    ),
    "dkt_imagenet1000_100-100": (
        _whole("README of the release (no log)", 70.52, "85.02 80.12 76.5 73.7 70.26 68.36 66.35 64.1 61.81 58.93"),
        _quoted(10, 70.44, 58.26),
    ),
}


def session_lines(title: str, found: Mapping[str, Sequence[Run]], experiment: str | None = None) -> str:
    """Markdown with a line a row of runs, and its published lines below it.

    Args:
        title: heading.
        found: finished runs by label; several are averaged, session by session.
        experiment: of :data:`LINES`, or ``None`` for ours alone. They stand below the first label that is
            :data:`METHOD` up to a comma.
    """
    published = list(LINES.get(experiment or "", ()))
    note = "Accuracy in percent among all classes seen so far, after each session; AVG is the mean over the sessions."
    note += " Published lines: class order 1." if published else ""
    lines: list[tuple[str, Sequence[float | None], float | None]] = []
    for label, runs in found.items():
        if runs:
            seen = [[session["accuracy"]["seen"] for session in run["sessions"]] for run in runs]
            name = label if len(runs) == 1 else f"{label} (mean of {len(runs)} runs)"
            average = _mean([run["summary"]["average_accuracy"] for run in runs])
            lines.append((name, [_mean(values) for values in zip(*seen, strict=True)], average))
        if label.split(",")[0] == METHOD:
            lines += [(f"{METHOD}, {line.source}", line.sessions, line.average) for line in published]
            published = []
    count = max((len(values) for _, values, _ in lines), default=0)
    rows = [["", *(str(index + 1) for index in range(count)), "AVG"]]
    for name, values, average in lines:  # joint training stands below the last session
        rows.append([name, *[""] * (count - len(values)), *map(as_text, values), as_text(average)])
    return f"# {title}\n\n{markdown(rows)}\n\n{note}\n"


def _mean(values: Sequence[float | None]) -> float | None:
    kept = [value for value in values if value is not None]
    return statistics.fmean(kept) if kept else None
