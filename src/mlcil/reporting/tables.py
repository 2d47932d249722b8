"""Results as text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlcil.evaluation.metrics import metrics_of

SPLITS = ("seen", "base", "new")
Results = Sequence[Mapping[str, Any]]
#: what stands under a table
FOOTNOTES = {
    "mAP": "mAP in percent, the official way: test images showing at least one class of the split.",
    "accuracy": "accuracy in percent on test images of the split's classes, predictions among all seen classes.",
}


def session_table(runs: Mapping[str, Results], splits: Sequence[str] = SPLITS) -> str:
    """One row per session, columns seen / base / new mAP or accuracy (percent) for every run, and the averages.

    Args:
        runs: run name -> its sessions' results.
        splits: which of the three; one alone is not named in the heading.
    """
    names = list(runs)
    rows = [
        ["session", "classes", *(f"{name} {split}" if len(splits) > 1 else name for name in names for split in splits)]
    ]
    length = max((len(results) for results in runs.values()), default=0)
    footnotes = {}
    for t in range(length):
        shown = next(results[t] for results in runs.values() if t < len(results))
        row = [str(t), str(len(shown[metrics_of(shown).per_class]))]
        for results in runs.values():
            row += [as_text(_main(results[t])[split]) if t < len(results) else "-" for split in splits]
        rows.append(row)
    average = ["average", ""]
    for results in runs.values():
        footnotes.update({metrics_of(result).headline: True for result in results})
        for split in splits:
            values = [_main(result)[split] for result in results]
            kept = [value for value in values if value is not None]
            average.append(as_text(sum(kept) / len(kept)) if kept else "-")
    rows.append(average)
    return "\n".join([layout(rows), *(FOOTNOTES[headline] for headline in footnotes or ("mAP",))])


def _main(result: Mapping[str, Any]) -> Mapping[str, float | None]:
    """The main number of a session, by split."""
    return result[metrics_of(result).headline]  # type: ignore[no-any-return]


def as_text(value: float | None) -> str:
    """Two decimals, or a dash where no number exists."""
    return "-" if value is None else f"{value:.2f}"


def layout(rows: Sequence[Sequence[str]]) -> str:
    """Right-aligned columns with a rule under the first row and above the last."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first row is its header, all columns but the first are aligned to the right."""
    lines = [f"| {' | '.join(map(markdown_cell, row))} |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]])


def markdown_cell(text: str) -> str:
    """A name that neither ends its cell nor its line, and brings no link and no HTML."""
    return " ".join(re.sub(r"([\\|<\[])", r"\\\1", text).split())


def csv_cell(text: str) -> str:
    """A name that a spreadsheet does not take for a formula: one that begins like it gets an apostrophe in front."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def four_decimals(value: float | None) -> str:
    """For CSV: empty where no number exists."""
    return "" if value is None else f"{value:.4f}"
