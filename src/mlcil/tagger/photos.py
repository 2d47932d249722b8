"""What a session of added labels learns from: the user's photos, and what stands for photos without the new labels.

Legend: N photos of the session, L its new labels, O old labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mlcil.datasets.labels import LabelledPhotos, fold
from mlcil.datasets.table import ImageTable
from mlcil.engine.checkpoint import StageCheckpoint
from mlcil.errors import UserError
from mlcil.images import Fit
from mlcil.tagger import versions
from mlcil.tagger.nothing import files_of_nothing

FOLDS = 5


@dataclass(frozen=True)
class Extras:
    """What else there is beside the photos of the new labels.

    Attributes:
        keep: photos with old labels.
        unlabelled: files that nobody has looked at.
        refine: labels of the tagger that these photos say more of.
    """

    keep: LabelledPhotos | None = None
    unlabelled: Sequence[Path] = ()
    refine: Sequence[str] = ()


@dataclass(eq=False)
class Photos:
    """What the session learns from: photos, then unlabelled ones, the keep-set, and images of nothing.

    Attributes:
        files, ids: N images.
        cells_NL: what is known of the new labels, with what counts as absent.
        old_NO: of the old ones, as far as they are trained on.
        own: how many are the user's photos; the rest follows behind them.
        nothing: how many at the end are images of nothing.
    """

    files: list[Path]
    ids: list[str]
    cells_NL: np.ndarray
    old_NO: np.ndarray
    own: int
    nothing: int = 0
    notes: list[str] = field(default_factory=list)


def check_spellings(classes: Sequence[str], labels: LabelledPhotos) -> None:
    """Refuse a label that the tagger has under another spelling.

    Raises:
        UserError: names both.
    """
    spelt = {fold(name): name for name in classes}
    for name in labels.classes:
        there = spelt.get(fold(name), name)
        if there != name:
            raise UserError(
                f"{labels.source} has the label {name!r}, and the tagger has it as {there!r}; write it the same way, "
                "or rename it with `mlcil rename` if they differ"
            )


def gather(
    stage: StageCheckpoint | None,
    labels: LabelledPhotos,
    new: Sequence[str],
    extras: Extras,
    statistics: bool,
    by_rows: bool,
) -> Photos:
    """Photos of the session with their cells, and what stands for photos without the new labels.

    Args:
        stage: the tagger, or ``None``.
        labels: the user's photos.
        new: L labels to learn.
        extras: see :class:`Extras`.
        statistics: the method has statistics of earlier photos, which stand for photos without a new label.
        by_rows: old labels are not trained.

    Raises:
        UserError: a label has no photo, nothing tells it from others, or the keep-set has no old label.
    """
    columns = [labels.classes.index(name) for name in new]
    cells_NL = labels.cells_NC[:, columns]
    rows = np.flatnonzero((cells_NL >= 0).any(1))
    cells_NL = cells_NL[rows]
    old = [] if stage is None else list(stage.classes)
    files, ids = [labels.files[row] for row in rows], [labels.ids[row] for row in rows]
    found = Photos(files, ids, cells_NL, np.full((len(rows), len(old)), -1, np.int8), len(rows))
    for name, present in zip(new, (cells_NL == 1).sum(0), strict=True):
        if not present:
            raise UserError(f"{labels.source}: no photo shows {name!r}; expected some, so add photos or leave it out")
    alone = [name for name, absent in zip(new, (cells_NL == 0).sum(0), strict=True) if not absent]
    sources = ["what is kept of the photos of earlier sessions"] if statistics else []
    if extras.unlabelled:
        sources.append(f"{len(extras.unlabelled)} unlabelled photos")
        _behind(found, extras.unlabelled, "unlabelled", np.zeros((len(extras.unlabelled), len(new)), np.int8))
    if extras.keep is not None:
        _add_keep(found, extras.keep, old, new, by_rows)
        sources.append(f"{len(extras.keep)} photos of the keep-set")
    if alone:
        if not sources:
            raise UserError(
                f"{labels.source}: no photo is known to lack {', '.join(map(repr, alone[:3]))}"
                f"{f' and {len(alone) - 3} more' if len(alone) > 3 else ''}, so there is nothing to tell it from; say "
                "what was looked for on every photo with --reviewed all, or give other photos with --unlabelled FOLDER"
            )
        found.notes.append(f"no photo is known to lack {', '.join(alone)}: taken instead are {' and '.join(sources)}")
    elif sources:
        found.notes.append(f"photos without the new labels: those of {labels.source.name}, and {' and '.join(sources)}")
    blank = files_of_nothing()
    _behind(found, blank, "nothing", np.zeros((len(blank), len(new)), np.int8))
    found.nothing = len(blank)
    return found


def _behind(found: Photos, files: Sequence[Path], word: str, cells_NL: np.ndarray) -> None:
    there = {file.absolute() for file in found.files}
    rows = [row for row, file in enumerate(files) if file.absolute() not in there]
    found.files += [files[row] for row in rows]
    found.ids += [f"{word}/{files[row]}" for row in rows]
    found.cells_NL = np.concatenate([found.cells_NL, cells_NL[rows]])
    nothing = np.full((len(rows), found.old_NO.shape[1]), -1, np.int8)
    found.old_NO = np.concatenate([found.old_NO, nothing])


def _add_keep(found: Photos, keep: LabelledPhotos, old: Sequence[str], new: Sequence[str], by_rows: bool) -> None:
    shared = [name for name in keep.classes if name in old]
    if not shared:
        raise UserError(
            f"the keep-set {keep.source} has none of the tagger's {len(old)} labels; expected photos with old labels, "
            "so give others or leave --keep out"
        )
    cells_NL = np.zeros((len(keep), len(new)), np.int8)
    for column, name in enumerate(new):
        if name in keep.classes:
            cells_NL[:, column] = keep.cells_NC[:, keep.classes.index(name)]
    before = len(found.files)
    _behind(found, keep.files, "keep", cells_NL)
    if not by_rows:
        place = {file: row for row, file in enumerate(keep.files)}
        for row in range(before, len(found.files)):
            for name in shared:
                cell = keep.cells_NC[place[found.files[row]], keep.classes.index(name)]
                found.old_NO[row, old.index(name)] = cell


def folds_of(cells_NL: np.ndarray, ids: Sequence[str], folds: int = FOLDS) -> np.ndarray:
    """A fold for each photo (N,), so that every label's photos are spread; the names decide, not the order."""
    rarest = np.argsort((cells_NL == 1).sum(0), kind="stable")
    keys = []
    for row, name in enumerate(ids):
        shows = next((int(place) for place, column in enumerate(rarest) if cells_NL[row, column] == 1), len(rarest))
        keys.append((shows, hashlib.sha256(name.encode()).hexdigest(), row))
    fold_N = np.empty(len(ids), np.int64)
    fold_N[[row for *_, row in sorted(keys)]] = np.arange(len(ids)) % folds
    return fold_N


def table_of(
    photos: Photos, old: Sequence[str], new: Sequence[str], by_rows: bool, all_old: Sequence[str], fit: Fit
) -> ImageTable:
    """Columns of the method's own old labels and the new ones."""
    where = [list(all_old).index(name) for name in old]
    labels_NC = np.concatenate([photos.old_NO[:, where], photos.cells_NL], 1).astype(np.int8)
    names = [*old, *(versions.more(name) if name in old else name for name in new)]
    return ImageTable(
        "photos", tuple(names), tuple(photos.ids), tuple(photos.files), labels_NC, labels_NC >= 0, fit=fit
    )
