"""Images that a method has made of old classes, by class: what its old network takes them for.

Legend: N images, H x W pixels.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mlcil.files import read_arrays
from mlcil.reporting.contact_sheet import is_strip
from mlcil.reporting.report_runs import ReportRun

PER_CLASS = 6
CLASSES = 100  # classes that a session's sheet shows


@dataclass(frozen=True)
class MadeSheet:
    """The images made before a session.

    Attributes:
        session: index.
        error: why there are none, if so.
        strips: (class, PNG of its first images side by side, as base64).
        present, old: classes that are seen in the images, and old classes.
        lost: names of old classes that are not seen.
    """

    session: int
    error: str = ""
    strips: Sequence[tuple[str, str]] = ()
    present: int = 0
    old: int = 0
    lost: Sequence[str] = ()


def made_images(run: ReportRun) -> list[MadeSheet]:
    """A sheet for every session before which the run has made images."""
    found = {re.fullmatch(r"session_(\d+)\.npz", path.name): path for path in (run.folder / "made").glob("*.npz")}
    return [_sheet(run, *pair) for pair in sorted((int(m[1]), path) for m, path in found.items() if m is not None)]


def _sheet(run: ReportRun, t: int, path: Path) -> MadeSheet:
    try:
        images_NHW3, labels_N = read_arrays(path, ("images", "labels")).values()
        if not is_strip(images_NHW3, labels_N):
            raise ValueError("it holds no images of one class each")
    except (OSError, ValueError) as error:
        return MadeSheet(t, error=f"No images of session {t}: {path} cannot be read ({error}).")
    present = sorted({int(c) for c in labels_N})
    old = run.ranges[t][0] if t < len(run.ranges) else max(present, default=-1) + 1
    strips = [(run.class_name(c), _png(images_NHW3[labels_N == c][:PER_CLASS])) for c in present[:CLASSES]]
    lost = [run.classes[c] for c in range(min(old, len(run.classes))) if c not in present]
    return MadeSheet(t, strips=strips, present=len(present), old=old, lost=lost)


def _png(images_NHW3: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(images_NHW3), axis=1)).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
