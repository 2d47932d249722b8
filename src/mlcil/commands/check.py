"""Two taggers on labelled photos: what changed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from mlcil.datasets.labels import read_labels
from mlcil.errors import UserError
from mlcil.files import write_text
from mlcil.interop.pretrained import file_sha256
from mlcil.system.bar import bar
from mlcil.tagger.check import Tagged, compare, lines, page
from mlcil.tagger.outputs import THRESHOLD, find_tagger
from mlcil.tagger.tagger import load


def main(options: argparse.Namespace) -> int:
    """``check OLD NEW --on LABELS``; 1 when a label falls by more than ``--max-drop`` beyond its interval."""
    if not options.max_drop >= 0:
        raise UserError(f"--max-drop is {options.max_drop}; expected points of AP of at least 0, such as 1.0")
    photos = read_labels(options.on, options.photos, options.reviewed, options.form)
    if photos.test_N is not None:
        photos = photos.part(test=True)
        print(f"{options.on}: the {len(photos)} photos that are for testing")
    old, new = (tagged(find_tagger(path), photos.files, options.device) for path in (options.old, options.new))
    result = compare(old, new, photos.files, photos.classes, photos.cells_NC, options.max_drop)
    if not result["labels"]:
        raise UserError(
            f"{options.on} has none of the labels of {options.old} and {options.new}; expected photos known to "
            "show some of them, so give others with --on"
        )
    if options.json:
        write_text(options.json, json.dumps(plain(result), indent=1) + "\n")
    if options.html:
        write_text(options.html, page(result))
    print("\n".join(lines(result)))
    if result["dropped"]:
        names = ", ".join(result["dropped"])
        print(f"FAILED: AP falls by more than {options.max_drop:g} points beyond its interval: {names}")
    return int(bool(result["dropped"]))


def plain(value: Any) -> Any:
    """Numbers that are none as ``null``."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value


def tagged(path: Path, files: Any, device: str) -> Tagged:
    """A tagger's scores of the photos, with a bar."""
    tagger = load(path, device)
    scores_NC = np.empty((len(files), len(tagger.classes)))
    with bar(path.name, len(files)) as show:
        for row, (_, scores) in enumerate(tagger.predict(files)):
            scores_NC[row] = list(scores.values())
            show(row + 1)
    thresholds_C = np.array([np.nan] * len(tagger.classes) if tagger.thresholds is None else tagger.thresholds)
    thresholds_C = np.where(np.isnan(thresholds_C), THRESHOLD, thresholds_C)
    return Tagged(path.name, file_sha256(path), tagger.classes, scores_NC, thresholds_C)
