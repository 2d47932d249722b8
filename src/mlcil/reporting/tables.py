"""Results as text and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

SPLITS = ("seen", "base", "new")
Results = Sequence[Mapping[str, Any]]


def session_table(runs: Mapping[str, Results]) -> str:
    """One row per session, columns seen / base / new mAP (percent) for every run, and the averages.

    Args:
        runs: run name -> its sessions' results.
    """
    names = list(runs)
    rows = [["session", "classes", *(f"{name} {split}" for name in names for split in SPLITS)]]
    length = max((len(results) for results in runs.values()), default=0)
    for t in range(length):
        shown = next(results[t] for results in runs.values() if t < len(results))
        row = [str(t), str(len(shown["AP"]))]
        for results in runs.values():
            row += [f"{results[t]['mAP'][split]:.2f}" if t < len(results) else "-" for split in SPLITS]
        rows.append(row)
    average = ["average", ""]
    for results in runs.values():
        for split in SPLITS:
            values = [result["mAP"][split] for result in results]
            average.append(f"{sum(values) / len(values):.2f}" if values else "-")
    rows.append(average)
    return layout(rows) + "\nmAP in percent, the official way: test images showing at least one class of the split."


def layout(rows: Sequence[Sequence[str]]) -> str:
    """Right-aligned columns with a rule under the first row and above the last."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def results_csv(results: Results) -> str:
    """A row per session: mAP base/seen/new on the growing and the fixed test set, and the F1 numbers."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    thresholds = list(results[0]["f1"]) if results else []
    measures = list(results[0]["f1"][thresholds[0]]) if thresholds else []
    header = ["session", "seen_classes", "train_images", "exemplars"]
    header += [f"mAP_{s}" for s in ("base", "seen", "new")] + [f"fixed_mAP_{s}" for s in ("base", "seen", "new")]
    writer.writerow(header + [f"{m}@{t}" for t in thresholds for m in measures] + ["seconds"])
    for result in results:
        row = [result["index"], len(result["AP"]), result["train"]["images"], result["train"]["exemplars"]]
        row += [_number(result[key][s]) for key in ("mAP", "fixed_mAP") for s in ("base", "seen", "new")]
        row += [_number(result["f1"][t][m]) for t in thresholds for m in measures]
        writer.writerow([*row, result["seconds"]])
    return out.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
