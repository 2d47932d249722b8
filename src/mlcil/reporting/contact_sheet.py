"""Test images with what a run says of them: right, wrong and missed, for the first and the last classes.

Legend: N test images, C classes of the scenario, S classes seen after the last finished session.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from mlcil.errors import UserError
from mlcil.files import write_arrays
from mlcil.images import load_rgb
from mlcil.reporting.report_runs import ReportRun
from mlcil.reporting.saved_scores import arrays_of_scores, saved_scores

PICTURES = "pictures.npz"  # in scores/
FALLEN = 6  # images whose score fell most
PER_KIND = 4  # images of a kind for the first and for the last classes
PIXELS = 160  # longest side of a thumbnail
QUALITY = 72


@dataclass(frozen=True)
class Scores:
    """What ``scores/`` of a run holds for its last finished session.

    Attributes:
        scores_NS: (N, S) float64 in [0, 1]: sigmoids, or shares of 1 where an image shows one class;
            NaN where an image was not predicted.
        targets_NS: (N, S) int8: 1 present, 0 absent, -1 not judged.
        paths: N image files.
        classes: S names.
        shown_N: (N,) bool, images of the growing test set.
        pictures: images (H, W, 3) uint8 by row, for data that has no image files.
    """

    scores_NS: np.ndarray
    targets_NS: np.ndarray
    paths: list[str]
    classes: list[str]
    shown_N: np.ndarray
    pictures: Mapping[int, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Tile:
    """An image of the sheet.

    Attributes:
        row: of the test table.
        focus: class that it was chosen for.
        focus_score: score of that class.
        before: the same before the last session, where the sheet compares the two.
        true: (class, score) of the labels that are there.
        predicted: (class, score, right) of the scores above the threshold, highest first; ``right`` is
            ``None`` for a label that is not judged.
        path: the image file.
        jpeg: thumbnail as base64, or ``None`` where the file cannot be read.
    """

    row: int
    focus: str
    focus_score: float
    true: list[tuple[str, float]]
    predicted: list[tuple[str, float, bool | None]]
    path: str
    jpeg: str | None
    before: float | None = None


def scores_of(run: ReportRun, back: int = 0) -> Scores | None:
    """The scores of a run's last finished session, or of ``back`` sessions before it; see :func:`read_scores`."""
    count = len(run.sessions) - back
    return read_scores(run.folder, count, run.ranges[count - 1][1], run.measure.fixed is None)


def read_scores(folder: Path, sessions: int, seen: int, single: bool = False) -> Scores | None:
    """The score matrix of the last finished session.

    Args:
        folder: the run directory.
        sessions: number of finished sessions.
        seen: S, as results.json has it.
        single: every image shows exactly one class.

    Returns:
        ``None`` when the run saved no scores.

    Raises:
        UserError: the files are damaged or do not belong to these results.
    """
    if not all((folder / "scores" / name).is_file() for name in ("test.npz", f"session_{sessions - 1}.npz")):
        return None
    saved = saved_scores(folder, sessions, seen)
    targets, rows, logits = saved["targets"], saved["rows"], saved["logits"].astype(np.float64)
    scores = np.full((len(targets), seen), np.nan)
    with np.errstate(over="ignore"):
        if single and len(rows):
            shares = np.exp(logits - logits.max(1, keepdims=True))
            scores[rows] = shares / shares.sum(1, keepdims=True)
        else:
            scores[rows] = 1.0 / (1.0 + np.exp(-logits))
    pictures: dict[int, np.ndarray] = {}
    if (file := folder / "scores" / PICTURES).is_file():
        kept = arrays_of_scores(file, {"rows": "iu", "images": "u"})
        if is_strip(kept["images"], kept["rows"]):
            pictures = dict(zip(kept["rows"].tolist(), kept["images"], strict=True))
    names, paths = saved["classes"][:seen].tolist(), saved["paths"].tolist()
    shown_N = np.asarray(saved["selects"][:, :seen].any(1))
    return Scores(scores, targets[:, :seen], paths, names, shown_N, pictures)


def is_strip(images_NHW3: np.ndarray, numbers_N: np.ndarray) -> bool:
    """Whether these are images, and of each a number."""
    sizes = images_NHW3.shape[1:3]
    return (
        images_NHW3.dtype == np.uint8
        and numbers_N.dtype.kind in "iu"
        and numbers_N.ndim == 1
        and images_NHW3.shape == (len(numbers_N), *sizes, 3)
        and all(sizes)
    )


def keep_pictures(run: ReportRun, pixels_NHW3: np.ndarray) -> None:
    """Write the test images that a report will show into ``scores/pictures.npz``, for data without image files.

    Args:
        run: with the scores of its last finished session.
        pixels_NHW3: (N, H, W, 3) uint8, the test images.
    """
    scores = scores_of(run)
    if scores is None:  # somebody has removed them; the run has all that it needs
        return
    shown: set[int] = set()
    for per_kind in range(1, PER_KIND + 1):  # a report of several runs shows fewer
        used: set[int] = set()
        for low, high in dict.fromkeys((run.ranges[0], run.ranges[-1])):
            choose(scores, low, high, run.measure.threshold, per_kind, used)
        shown |= used
    if len(run.sessions) > 1 and (before := scores_of(run, 1)) is not None:
        shown |= {tile.row for tile in fallen(before, scores, FALLEN)}
    rows = np.array(sorted(shown), np.int64)
    write_arrays(run.folder / "scores" / PICTURES, {"rows": rows, "images": pixels_NHW3[rows]})


def choose(scores: Scores, low: int, high: int, threshold: float, count: int, used: set[int]) -> dict[str, list[Tile]]:
    """The images of classes [low, high), ``count`` of each kind, the same for the same scores.

    Right: present and above the threshold, highest scores first. Wrong: absent and above it, highest first. Unknown:
    above it where nobody said whether the image shows the class. Missed: present and not above it, lowest first. Each
    class gives its first choice before any gives its second, and an image is shown once.

    Args:
        scores: of the run.
        low, high: classes to look at.
        threshold: a class is predicted where its score is greater.
        count: images a kind.
        used: rows already on the sheet; chosen ones are added.
    """
    part, targets = scores.scores_NS[:, low:high], scores.targets_NS[:, low:high]
    known = np.isfinite(part)
    predicted = known & (np.nan_to_num(part) > threshold)
    masks = {
        "right": predicted & (targets == 1),
        "wrong": predicted & (targets == 0),
        "unknown": predicted & (targets < 0),
        "missed": known & ~predicted & (targets == 1),
    }
    chosen: dict[str, list[Tile]] = {}
    for kind, mask in masks.items():
        order = part if kind == "missed" else -part
        chosen[kind] = []
        for row, column in _ranked(order, mask):
            if len(chosen[kind]) == count:
                break
            if row not in used:
                used.add(row)
                chosen[kind].append(_tile(scores, row, low + column, threshold))
    return chosen


def fallen(before: Scores, after: Scores, count: int) -> list[Tile]:
    """Images of old classes whose score fell most in the last session, each image once.

    Args:
        before, after: scores of the session before, and of the last one.
        count: images.
    """
    old = len(before.classes)
    drop_NO = np.where(before.targets_NS == 1, before.scores_NS - after.scores_NS[:, :old], -np.inf)
    drop_NO = np.nan_to_num(drop_NO, nan=-np.inf)
    tiles: list[Tile] = []
    for place in np.argsort(-drop_NO, axis=None, kind="stable"):
        row, column = (int(k) for k in np.unravel_index(place, drop_NO.shape))
        if len(tiles) == count or drop_NO[row, column] <= 0:
            break
        if all(tile.row != row for tile in tiles):
            tile = _tile(after, row, column, 1.0)
            tiles.append(replace(tile, before=float(before.scores_NS[row, column])))
    return tiles


def _ranked(order_NK: np.ndarray, mask_NK: np.ndarray) -> list[tuple[int, int]]:
    """(row, column) under the mask: every column's first, then every column's second, ...; lowest order first."""
    pairs: list[tuple[int, float, int, int]] = []
    for column in range(mask_NK.shape[1]):
        rows = np.flatnonzero(mask_NK[:, column])
        rows = rows[np.argsort(order_NK[rows, column], kind="stable")]
        pairs += [(place, float(order_NK[row, column]), int(row), column) for place, row in enumerate(rows)]
    return [(row, column) for _, _, row, column in sorted(pairs)]


def _tile(scores: Scores, row: int, column: int, threshold: float) -> Tile:
    values, targets = scores.scores_NS[row], scores.targets_NS[row]
    above = [int(c) for c in np.argsort(-values, kind="stable") if values[c] > threshold]
    right = {1: True, 0: False}
    return Tile(
        row=row,
        focus=scores.classes[column],
        focus_score=float(values[column]),
        true=[(scores.classes[c], float(values[c])) for c in np.flatnonzero(targets == 1)],
        predicted=[(scores.classes[c], float(values[c]), right.get(int(targets[c]))) for c in above],
        path=scores.paths[row],
        jpeg=thumbnail(scores.pictures.get(row, Path(scores.paths[row]))),
    )


def thumbnail(source: Path | np.ndarray) -> str | None:
    """A file or pixels (H, W, 3) as a base64 JPEG, at most :data:`PIXELS` a side; ``None`` where it cannot be read."""
    try:
        image = load_rgb(source) if isinstance(source, Path) else Image.fromarray(source)
    except UserError:
        return None
    image.thumbnail((PIXELS, PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


@dataclass(frozen=True)
class Sheet:
    """A run's contact sheet.

    Attributes:
        note: (kind ``warning`` or ``info``, sentence) to read first, if any.
        parts: per shown session: its word, its classes, and its tiles by kind.
        fallen: images of old classes whose score fell most in the last session.
        scores: what the sheet was made from.
    """

    note: tuple[str, str] | None = None
    parts: Sequence[tuple[str, Sequence[str], Mapping[str, Sequence[Tile]]]] = ()
    fallen: Sequence[Tile] = ()
    scores: Scores | None = None


def contact_sheet(run: ReportRun, per_kind: int) -> Sheet:
    """The sheet of the first and of the last classes, or the sentence why there is none.

    Args:
        run: of the report.
        per_kind: images of each kind for the first and for the last classes.
    """
    try:
        scores = scores_of(run)
        before = scores_of(run, 1) if len(run.sessions) > 1 else None
    except UserError as error:
        return Sheet(("warning", f"No contact sheet: {error}."))
    if scores is None:
        sentence = "This run saved no scores, so it has no contact sheet; runs trained with this version save them."
        return Sheet(("info", sentence))
    ends = {0: "first", len(run.ranges) - 1: "last"} if len(run.ranges) > 1 else {0: "only"}
    used: set[int] = set()
    parts = []
    for t, word in ends.items():
        low, high = run.ranges[t]
        chosen = choose(scores, low, high, run.measure.threshold, per_kind, used)
        parts.append((word, scores.classes[low:high], chosen))
    fell = fallen(before, scores, min(FALLEN, 2 * per_kind)) if before is not None else []
    tiles = [tile for _, _, chosen in parts for found in chosen.values() for tile in found] + fell
    lost = [tile for tile in tiles if tile.jpeg is None]
    sentence = (
        f"{len(lost)} of {len(tiles)} images cannot be read any more, the first is {lost[0].path}." if lost else ""
    )
    return Sheet(("info", sentence) if lost else None, parts, fell, scores)
