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
from mlcil.tagger.check import Tagged, compare, lines, page
from mlcil.tagger.progress import shown
from mlcil.tagger.tagger import load


def main(options: argparse.Namespace) -> int:
    """``check OLD NEW --on LABELS``; 1 when a label falls by more than ``--max-drop`` beyond its interval."""
    if not options.max_drop >= 0:
        raise UserError(f"--max-drop is {options.max_drop}; expected points of AP of at least 0, such as 1.0")
    photos = read_labels(options.on, options.photos, options.reviewed)
    old, new = (tagged(path, photos.files, options.device) for path in (options.old, options.new))
    result = compare(old, new, photos.files, photos.classes, photos.cells_NC, options.max_drop)
    if not result["labels"]:
        raise UserError(
            f"{options.on} has none of the labels of {options.old} and {options.new}; expected photos that are known to "
            "show some of them, so give others with --on"
        )
    if options.json:
        write_text(options.json, json.dumps(plain(result), indent=1) + "\n")
    if options.html:
        write_text(options.html, page(result))
    print("\n".join(lines(result)))
    if result["dropped"]:
        print(
            f"FAILED: AP falls by more than {options.max_drop:g} points beyond its interval: {', '.join(result['dropped'])}"
        )
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
    found = shown(tagger.predict(files), len(files), path.name)
    scores_NC = np.array([list(scores.values()) for _, scores in found]).reshape(len(files), len(tagger.classes))
    return Tagged(path.name, file_sha256(path), tagger.classes, scores_NC, tagger.thresholds)
