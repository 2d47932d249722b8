"""Images that a method has made of old classes, by class: what its old network takes them for.

Legend: N images, H x W pixels.
"""

from __future__ import annotations

import base64
import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mlcil.reporting.markup import Content, details, element
from mlcil.reporting.report_runs import ReportRun
from mlcil.reporting.report_tables import FOLDED, Section, named, section

SIDE = 64  # shown pixels of an image
PER_CLASS = 6
CLASSES = 100  # classes that a session's sheet shows


def made_images(runs: Sequence[ReportRun]) -> Section | None:
    """A sheet for every later session of runs that made images; ``None`` when none did."""
    shown = [(run, files) for run in runs if (files := _files(run.folder / "made"))]
    if not shown:
        return None
    text = (
        "Made before the session without any stored image, by an inversion of the old network or a generator. A row a "
        "class that the old network sees in them; classes without a row are lost to the session's replay. The numbers "
        "of the synthesis are under the reports of the methods."
    )
    sheets = [
        details(named(run), [_sheet(run, t, path) for t, path in files.items()], unfolded=len(runs) <= FOLDED)
        for run, files in shown
    ]
    return section("made", "Made images", element("p", text), sheets)


def _files(folder: Path) -> dict[int, Path]:
    """Session -> file."""
    found = {re.fullmatch(r"session_(\d+)\.npz", path.name): path for path in folder.glob("*.npz")}
    return dict(sorted((int(match[1]), path) for match, path in found.items() if match is not None))


def _sheet(run: ReportRun, t: int, path: Path) -> Content:
    try:
        with np.load(path, allow_pickle=False) as file:
            images_NHW3, labels_N = file["images"], file["labels"]
        assert images_NHW3.dtype == np.uint8, "images are uint8"
        assert images_NHW3.shape == (len(labels_N), *images_NHW3.shape[1:3], 3), "one class an image"
    except (OSError, ValueError, KeyError, EOFError, AssertionError, zipfile.BadZipFile) as error:
        return element("p", f"No images of session {t}: {path} cannot be read ({error}).", class_="note warning")
    old = run.ranges[t][0] if t < len(run.ranges) else int(labels_N.max(initial=-1)) + 1
    present = sorted({int(c) for c in labels_N})
    rows: list[Content] = []
    for c in present[:CLASSES]:
        name = run.classes[c] if c < len(run.classes) else str(c)
        strip = np.concatenate(list(images_NHW3[labels_N == c][:PER_CLASS]), axis=1)
        alt = f"made images of {name}"
        picture = element("img", src=f"data:image/png;base64,{_png(strip)}", alt=alt, height=str(SIDE), class_="made")
        rows.append(element("tr", element("th", name, scope="row", class_="t"), element("td", picture)))
    lost = [run.classes[c] for c in range(old) if c not in present and c < len(run.classes)]
    words: list[Content] = [f"{len(present)} of {old} old classes are seen in them."]
    if lost:
        words.append(f" Not seen: {', '.join(lost[:10])}{', ...' if len(lost) > 10 else ''}.")
    body = element("div", element("p", words), element("table", element("tbody", rows)))
    return details(f"Before session {t}", body, unfolded=t == 1)


def _png(pixels_HW3: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HW3).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
