"""Accuracy after every session in one line, in the layout of DKT's README, with the published lines below ours.

All published numbers are of class order 1, top-1 accuracy on the classes seen so far in percent, after balanced
fine-tuning. A line's average is the one that its source prints.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Run = Mapping[str, Any]  # content of a results.json

README = "README and log of the release"
QUOTED = "paper, as quoted in DRDN's Tables II to IV"


@dataclass(frozen=True)
class Line:
    """A published line: what is not known of a phase is ``None``."""

    source: str
    phases: tuple[float | None, ...]
    average: float


def quoted(sessions: int, average: float, last: float) -> Line:
    """A line of which only average and end are known."""
    return Line(QUOTED, (*[None] * (sessions - 1), last), average)


#: experiment -> method -> lines
PHASES: dict[str, dict[str, tuple[Line, ...]]] = {
    "dkt_cifar100_20-20": {
        "DKT": (Line(README, (88.3, 80.2, 76.92, 71.95, 67.17), 76.91), quoted(5, 76.88, 66.46)),
    },
    "dkt_cifar100_10-10": {
        "DKT": (
            Line(
                f"{README}, 1 x 512 images",
                (94.2, 86.95, 83.0, 77.53, 74.12, 74.05, 70.53, 67.9, 65.12, 63.45),
                75.69,
            ),
            Line(
                "log of the release, 2 x 256 images",
                (94.1, 87.8, 83.33, 77.3, 74.78, 73.45, 69.64, 68.04, 64.96, 62.02),
                75.54,
            ),
            quoted(10, 75.83, 63.04),
        ),
    },
    "dkt_cifar100_5-5": {
        "DKT": (
            Line(
                README,
                (
                    *(97.8, 94.0, 90.27, 87.3, 84.16, 81.67, 78.54, 75.38, 73.91, 72.42),
                    *(70.36, 70.42, 67.82, 66.46, 65.45, 64.8, 63.96, 62.48, 61.03, 59.2),
                ),
                74.37,
            ),
            quoted(20, 74.08, 58.56),
        ),
    },
    "dkt_imagenet100_10-10": {
        "DKT": (
            Line(README, (91.6, 85.8, 81.53, 79.35, 77.28, 76.57, 73.49, 71.6, 70.2, 68.74), 77.62),
            quoted(10, 78.2, 68.66),
        ),
    },
    "dkt_imagenet1000_100-100": {
        "DKT": (
            Line(
                "README of the release (no log)",
                (85.02, 80.12, 76.5, 73.7, 70.26, 68.36, 66.35, 64.1, 61.81, 58.93),
                70.52,
            ),
            quoted(10, 70.44, 58.26),
        ),
    },
}


def phase_table(title: str, found: Mapping[str, Sequence[Run]], experiment: str | None = None) -> str:
    """Markdown with a line a row of runs, and its published lines below it.

    Args:
        title: heading.
        found: finished runs by label; several are averaged, phase by phase.
        experiment: of :data:`PHASES`, or ``None`` for ours alone. Its methods are found by the label up to a comma.
    """
    published = PHASES.get(experiment or "", {})
    lines: list[tuple[str, list[float | None], float | None]] = []
    shown: set[str] = set()
    for label, runs in found.items():
        if runs:
            seen = [[session["accuracy"]["seen"] for session in run["sessions"]] for run in runs]
            means = [_mean(phase) for phase in zip(*seen, strict=True)]
            name = label if len(runs) == 1 else f"{label} (mean of {len(runs)} runs)"
            lines.append((name, means, _mean([run["summary"]["average_accuracy"] for run in runs])))
        method = label.split(",")[0]
        if method not in shown:
            shown.add(method)
            theirs = published.get(method, ())
            lines += [(f"{method}, {line.source}", list(line.phases), line.average) for line in theirs]
    count = max((len(phases) for _, phases, _ in lines), default=0)
    header = ["", *(str(index + 1) for index in range(count)), "AVG"]
    rows = []
    for name, phases, average in lines:  # joint training stands below the last session
        rows.append([name, *[""] * (count - len(phases)), *map(_number, phases), _number(average)])
    table = [header, ["---", *["---:"] * (count + 1)], *rows]
    text = "\n".join(f"| {' | '.join(row)} |" for row in table)
    note = "Accuracy in percent among all classes seen so far, after each session; AVG is the mean over the sessions."
    order = " Published lines: class order 1." if published else ""
    return f"# {title}\n\n{text}\n\n{note}{order}\n"


def _mean(values: Sequence[float | None]) -> float | None:
    kept = [value for value in values if value is not None]
    return statistics.fmean(kept) if kept else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
