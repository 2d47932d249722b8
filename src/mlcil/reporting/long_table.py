"""Results as a data set: a row a run, session and class, for people who plot and test for themselves."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlcil.evaluation.metrics import metrics_of
from mlcil.reporting.tables import csv_cell

Value = str | int | float | bool | None

SPLITS = ("base", "seen", "new", "old")
#: column -> what it holds; empty where a run has no such number. Columns of a session stand in each of its rows.
COLUMNS: dict[str, str] = {
    "run": "name of the run",
    "status": "`done`, or how far the run has come",
    "method": "class of the method",
    "dataset": "name of the data set",
    "protocol": "such as B0-C10",
    "data_hash": "equal for runs of the same data and protocol, whatever their class order",
    "comparison_hash": "equal for runs of the same data, protocol and class order",
    "seed": "of the run",
    "session": "from 0",
    "class": "name of a class seen so far",
    "class_number": "its place in the class order, from 0",
    "class_session": "session that brought it",
    "train_images": "training images that show it",
    "test_images": "test images that show it",
    "AP": "percent, growing test set (many labels an image)",
    "fixed_AP": "percent, fixed test set (many labels an image)",
    "accuracy": "percent of its test images that are recognised (one class an image)",
    **{f"session_mAP_{split}": f"of the session: mAP on the {split} classes, growing test set" for split in SPLITS[:3]},
    **{f"session_fixed_mAP_{split}": f"of the session: mAP on the {split} classes, fixed test set" for split in SPLITS},
    **{f"session_accuracy_{split}": f"of the session: accuracy on the {split} classes" for split in SPLITS},
    **{f"session_top5_{split}": f"of the session: top-5 accuracy on the {split} classes" for split in SPLITS},
    **{f"session_CF1_mean_{at}": f"of the session: CF1 at score {at} (mean of F1s)" for at in ("0.8", "0.5")},
    **{f"session_OF1_{at}": f"of the session: OF1 at score {at}" for at in ("0.8", "0.5")},
    "session_images": "of the session: its new training images",
    "session_exemplars": "of the session: replayed images it trained with",
    "session_memory_bytes": "of the session: bytes kept after it besides the model",
    "session_seconds": "of the session: its time, evaluation included",
}  # fmt: skip


def rows_of(run: Mapping[str, Any]) -> Iterator[dict[str, Value]]:
    """A row a session and class with the keys of :data:`COLUMNS`.

    Args:
        run: content of a results.json.
    """
    images = run.get("images") or {}
    facts = {key: run.get(key) for key in ("status", "method", "dataset", "protocol", "data_hash", "comparison_hash")}
    facts |= {"run": run.get("name"), "seed": (run.get("provenance") or {}).get("seed")}
    brought: list[int] = []
    for session in run["sessions"]:
        count = len(session[metrics_of(session).per_class])
        brought += [int(session["index"])] * (count - len(brought))
        common = {**facts, "session": session["index"], **_session(session)}
        for c in range(count):
            found: dict[str, Value] = {
                "class": str(run["classes"][c]),
                "class_number": c,
                "class_session": brought[c],
                "train_images": _at(images.get("train_positives"), c),
                "test_images": _at(images.get("test_positives"), c),
                "AP": _at(session.get("AP"), c),
                "fixed_AP": _at(session.get("fixed_AP"), c),
                "accuracy": _at(session.get("class_accuracy"), c),
            }
            row = {**common, **found}
            yield {column: row.get(column) for column in COLUMNS}


def _session(session: Mapping[str, Any]) -> dict[str, Value]:
    found: dict[str, Value] = {
        f"session_{key}_{split}": (session.get(key) or {}).get(split)
        for key in ("mAP", "fixed_mAP", "accuracy", "top5")
        for split in SPLITS
    }
    for at, measures in (session.get("f1") or {}).items():
        found |= {f"session_{name}_{at}": measures.get(name) for name in ("CF1_mean", "OF1")}
    kept = (session.get("memory") or {}).get("bytes")
    return {
        **found,
        "session_images": (session.get("train") or {}).get("images"),
        "session_exemplars": (session.get("train") or {}).get("exemplars"),
        "session_memory_bytes": sum(kept.values()) if kept else None,
        "session_seconds": session.get("seconds"),
    }


def _at(values: Sequence[Any] | None, index: int) -> Any:
    return values[index] if values is not None and index < len(values) else None


def as_csv(rows: Sequence[Mapping[str, Value]]) -> str:
    """Comma-separated values with a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: csv_cell(value) if isinstance(value, str) else value for key, value in row.items()})
    return out.getvalue()
