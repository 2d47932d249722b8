"""What is understood of labels, before anything is trained with them."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from mlcil.datasets.labels import LabelledPhotos, read_labels
from mlcil.datasets.loading import find_unreadable
from mlcil.datasets.table import ImageTable
from mlcil.reporting.tables import layout
from mlcil.system.bar import bar

#: photos from which on several processes open them
MANY = 500


def main(options: argparse.Namespace) -> int:
    """``data PATH``; 1 when something stands in the way of training: missing or broken photos, doubtful spellings."""
    found = read_labels(options.path, options.photos, options.reviewed, options.form, strict=False)
    facts = describe(found, unreadable(found))
    print(json.dumps(facts, indent=1, ensure_ascii=False) if options.json else "\n".join(lines(facts)))
    return int(any(facts[key] for key in ("missing", "unreadable", "alike")))


def unreadable(photos: LabelledPhotos) -> dict[str, str]:
    """Open every photo once: name -> why it cannot be read."""
    known = photos.cells_NC == 1
    table = ImageTable("photos", photos.classes, photos.ids, photos.files, photos.cells_NC, known)
    workers = min(8, os.cpu_count() or 1) if len(photos) >= MANY else 0
    with bar("opening photos", len(photos)) as show:
        return {photos.ids[row]: why for row, why in find_unreadable(table, workers, lambda d, _: show(d)).items()}


def describe(photos: LabelledPhotos, broken: dict[str, str]) -> dict[str, Any]:
    """Builtins only."""
    counts = {word: photos.counts(value).tolist() for word, value in (("yes", 1), ("no", 0), ("unknown", -1))}
    return {
        "source": str(photos.source),
        "form": photos.form,
        "photos": len(photos),
        "photos_for_testing": None if photos.test_N is None else int(photos.test_N.sum()),
        "photos_without_a_known_label": int((photos.cells_NC < 0).all(axis=1).sum()),
        "labels": [
            {"label": name, **{word: count[column] for word, count in counts.items()}}
            for column, name in enumerate(photos.classes)
        ],
        "notes": list(photos.notes),
        "same_photo": [[str(file) for file in group] for group in photos.repeated],
        "missing": list(photos.missing),
        "unreadable": broken,
        "alike": [list(pair) for pair in photos.alike],
        "near": [list(pair) for pair in photos.near],
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """The same to be read."""
    labels = facts["labels"]
    total = {word: sum(label[word] for label in labels) for word in ("yes", "no", "unknown")}
    rows = [["label", *total], *([label["label"], *(str(label[word]) for word in total)] for label in labels)]
    text = [
        f"{facts['source']}: {facts['form']}",
        f"{facts['photos']} photos, {len(labels)} label{'s' * (len(labels) != 1)}",
        "",
        layout([*rows, ["all", *map(str, total.values())]]),
        "",
        *facts["notes"],
    ]
    if facts["photos_for_testing"] is not None:
        text.append(f"{facts['photos_for_testing']} photos are for testing")
    if facts["photos_without_a_known_label"]:
        text.append(f"{facts['photos_without_a_known_label']} photos have no known label")
    only = [label["label"] for label in labels if label["yes"] and not label["no"]]
    if only:
        names = ", ".join(only[:5]) + (f" and {len(only) - 5} more" if len(only) > 5 else "")
        text.append(
            f"no photo is known to lack {names}: say which labels somebody has looked for, by a column 'reviewed' or "
            "by --reviewed LABELS (all: every label on every photo)"
        )
    text += _listed(
        "photos that are there more than once, each counts once with the labels of all",
        [" = ".join(group) for group in facts["same_photo"]],
    )
    text += _listed("photos that are missing", facts["missing"])
    text += _listed("photos that cannot be read", list(facts["unreadable"].values()))
    text += _listed("labels that differ by case, blanks or hyphens only", [" / ".join(pair) for pair in facts["alike"]])
    text += _listed("labels that differ by a few letters", [" / ".join(pair) for pair in facts["near"]])
    return text


def _listed(title: str, entries: list[str]) -> list[str]:
    return [f"{title}: {len(entries)}", *(f"  {entry}" for entry in entries)] if entries else []
