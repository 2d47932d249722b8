"""Labels as people have them, read by one function: :func:`read_labels`. N photos, C labels.

A cell is 1 (the photo shows it), 0 (it does not) or -1 (unknown). Unknown is what nobody has looked at: a label that is
not named is *no* only where somebody has reviewed it, or where the form says so by convention (COCO, VOC). Photos with
the same bytes are one photo with the labels of all of them; the same name alone says nothing, because cameras number
their photos alike.
"""

from __future__ import annotations

import difflib
import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path, PureWindowsPath

import numpy as np

from mlcil.datasets.folder import same_content
from mlcil.datasets.label_forms import ALL, Listed, Listing, read_form, without_upload_prefix
from mlcil.datasets.table import ImageTable
from mlcil.errors import UserError
from mlcil.images import images_below
from mlcil.protocols import did_you_mean

#: of names that are listed in a sentence
MOST = 50
#: labels that are compared pair by pair
MOST_COMPARED = 1000


@dataclass(frozen=True)
class LabelledPhotos:
    """Photos with what is known of their labels.

    Attributes:
        source: the file or folder that was read.
        form: its form, in words.
        classes: C labels.
        ids: N names that are the same on every machine: as they are listed, relative to the folder of the photos.
        files: N image files, no two with the same bytes.
        cells_NC: (N, C) int8; 1 yes, 0 no, -1 unknown.
        test_N: (N,) bool, photos that are set aside for testing; ``None`` where nobody says so.
        missing: names that are listed and have no file.
        repeated: groups of files with the same bytes; the first of each is in ``files``.
        alike: pairs of labels that differ by case, blanks or hyphens only.
        near: pairs of labels that differ by a few letters.
        notes: sentences about what was understood.
    """

    source: Path
    form: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    files: tuple[Path, ...]
    cells_NC: np.ndarray
    test_N: np.ndarray | None
    missing: tuple[str, ...]
    repeated: tuple[tuple[Path, ...], ...]
    alike: tuple[tuple[str, str], ...]
    near: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def counts(self, value: int) -> np.ndarray:
        """How many photos have that value, a label: (C,) int64."""
        return (self.cells_NC == value).sum(axis=0)

    def part(self, test: bool) -> LabelledPhotos:
        """The photos that are set aside for testing, or the others; all where nobody says so."""
        if self.test_N is None:
            return self
        rows = np.flatnonzero(self.test_N == test)
        ids, files = (tuple(all_of[row] for row in rows) for all_of in (self.ids, self.files))
        return replace(self, ids=ids, files=files, cells_NC=self.cells_NC[rows], test_N=None)  # type: ignore[arg-type]

    def held_out(self, share: float) -> np.ndarray:
        """Photos for testing: those that are set aside, or else some of each label's.

        Args:
            share: of each label's photos, in (0, 1); at least one where there are two. The rarest label chooses first;
                which photos it takes follows from their names.

        Returns:
            (N,) bool.
        """
        if self.test_N is not None:
            return self.test_N
        digests = [hashlib.sha256(name.encode()).digest() for name in self.ids]
        order = np.array(sorted(range(len(self)), key=digests.__getitem__), np.int64)
        test_N, decided_N = np.zeros((2, len(self)), np.bool_)
        shown_NC = self.cells_NC == 1
        for column in [*np.argsort(shown_NC.sum(axis=0), kind="stable"), None]:
            rows = order[~decided_N[order] if column is None else shown_NC[order, column]]
            wanted = min(max(round(share * len(rows)), 1), len(rows) - 1) - int(test_N[rows].sum())
            test_N[rows[~decided_N[rows]][: max(wanted, 0)]] = True
            decided_N[rows] = True
        return test_N


def read_labels(
    path: str | Path,
    photos: str | Path | None = None,
    reviewed: str | Sequence[str] | None = None,
    form: str | None = None,
    strict: bool = True,
) -> LabelledPhotos:
    """Read labels in any form of :mod:`mlcil.datasets.label_forms`; which one is seen from the contents.

    Args:
        path: a file or folder.
        photos: folder of the photos, when they do not lie where the file says relative to itself.
        reviewed: labels that somebody has looked for on every photo, a list or a text with commas, or ``all``: what
            they do not have is *no*. It takes the place of the convention of COCO and VOC.
        form: ``folders`` or ``keywords``, of a folder that could be both.
        strict: refuse missing photos and labels that differ by case only, instead of reporting them.

    Raises:
        UserError: the path or the folder does not exist, it has no form that is known, it names no photo or no label,
            a reviewed label is not there, or what ``strict`` says.
    """
    path = Path(path)
    folder = None if photos is None else Path(photos)
    if folder is not None and not folder.is_dir():
        raise UserError(f"folder of photos {folder} does not exist; expected the photos of {path} in it, so correct it")
    listing = read_form(path, folder, form)
    classes = _classes(path, listing)
    looked = _reviewed(path, reviewed, classes)
    files, missing = _find(listing, search=folder is not None or listing.by_name)
    alike, near = similar(classes)
    rows = [row for row, file in enumerate(files) if file is not None]
    if not rows:
        raise UserError(
            f"{path}: none of its {len(files)} photos is in {listing.folder}; expected names relative to that "
            "folder, so give the folder of the photos with --photos FOLDER"
        )
    if strict:
        _refuse(path, listing, missing, alike)
    found = [file for file in files if file is not None]
    group_of = same_content(found)
    notes = list(listing.notes)
    column_of = {name: column for column, name in enumerate(classes)}
    own = looked is None or not listing.exhaustive
    listed_NC = np.stack([_cells(listing.photos[row], column_of, own) for row in rows])
    cells_NC, against_NC = _merged(listed_NC, group_of)
    looked_C = np.array([name in (looked or ()) for name in classes])
    cells_NC[(cells_NC < 0) & ~against_NC & looked_C] = 0
    firsts = np.flatnonzero(group_of == np.arange(len(found)))
    if against_NC[firsts].any():
        notes.append(f"{against_NC[firsts].sum()} cells are yes and no on photos with the same bytes; they are unknown")
    groups: dict[int, dict[Path, None]] = defaultdict(dict)
    for file, first in zip(found, group_of.tolist(), strict=True):
        groups[first][file] = None
    return LabelledPhotos(
        source=path,
        form=listing.form,
        classes=classes,
        ids=tuple(_id(listing, found[row]) for row in firsts),
        files=tuple(found[row] for row in firsts),
        cells_NC=cells_NC[firsts],
        test_N=_test([listing.photos[row].split for row in rows], group_of, firsts, notes),
        missing=tuple(missing),
        repeated=tuple(tuple(group) for group in groups.values() if len(group) > 1),
        alike=alike,
        near=near,
        notes=tuple(notes),
    )


def _classes(path: Path, listing: Listing) -> tuple[str, ...]:
    named = {name for photo in listing.photos for name in (*photo.yes, *photo.no, *(photo.reviewed or ()))}
    classes = (*listing.classes, *sorted(named.difference(listing.classes)))
    if not listing.photos or not classes:
        what = "label" if listing.photos else "photo"
        raise UserError(f"{path} ({listing.form}) names no {what}; expected photos with labels, so give another file")
    return classes


def _reviewed(path: Path, reviewed: str | Sequence[str] | None, classes: Sequence[str]) -> frozenset[str] | None:
    """The labels that the caller says were looked for on every photo; ``None`` where he says nothing."""
    if reviewed is None:
        return None
    names = names_of(reviewed)
    if names == [ALL]:
        return frozenset(classes)
    for name in names:
        if name not in classes:
            raise UserError(
                f"reviewed names {name!r}, which is none of the {len(classes)} labels of {path}"
                f"{did_you_mean(name, classes)}; expected labels that it has, or all"
            )
    return frozenset(names)


def names_of(reviewed: str | Sequence[str]) -> list[str]:
    """The labels of a list, or of a text with commas."""
    names = reviewed.split(",") if isinstance(reviewed, str) else list(reviewed)
    return [unicodedata.normalize("NFC", str(name).strip()) for name in names if str(name).strip()]


def _find(listing: Listing, search: bool) -> tuple[list[Path | None], list[str]]:
    """The file of each photo, or ``None`` and its name among the missing ones.

    Args:
        listing: names the photos.
        search: look for a plain name anywhere below the folder when a path leads nowhere.
    """
    below: dict[str, list[Path]] | None = None
    files: list[Path | None] = []
    missing: list[str] = []
    for photo in listing.photos:
        names = (photo.file, PureWindowsPath(photo.file).as_posix())
        file = next((listing.folder / name for name in names if _is_file(listing.folder / name)), None)
        if file is None and search:
            if below is None:
                below = defaultdict(list)
                for there in images_below(listing.folder):
                    below[there.name].append(there)
            plain = names[1].rpartition("/")[2]
            alternatives = (below.get(plain) or below.get(without_upload_prefix(plain)) or []) if plain else []
            file = alternatives[0] if len(alternatives) == 1 else None
        if file is None:
            missing.append(photo.file)
        files.append(file)
    return files, list(dict.fromkeys(missing))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _refuse(path: Path, listing: Listing, missing: Sequence[str], alike: Sequence[tuple[str, str]]) -> None:
    if missing:
        more = f" and {len(missing) - MOST} more (`mlcil data` lists all)" if len(missing) > MOST else ""
        listed, names = len({photo.file for photo in listing.photos}), ", ".join(missing[:MOST])
        raise UserError(
            f"{path}: {len(missing)} of {listed} photos are not in {listing.folder}: {names}{more}; "
            "put them there, give their folder with --photos FOLDER, or remove their entries"
        )
    if alike:
        pairs = ", ".join(f"{one!r} and {other!r}" for one, other in alike[:MOST])
        raise UserError(
            f"{path}: labels differ by case, blanks or hyphens only: {pairs}; expected one spelling of each, "
            "so choose one"
        )


def _cells(photo: Listed, column_of: dict[str, int], own: bool) -> np.ndarray:
    """(C,) int8 of a listed photo, with what it says itself was reviewed or without."""
    reviewed = photo.reviewed if own else frozenset()
    cells_C = np.full(len(column_of), 0 if reviewed is None else -1, np.int8)
    for names, value in ((reviewed or (), 0), (photo.no, 0), (photo.yes, 1)):
        cells_C[[column_of[name] for name in names]] = value
    return cells_C


def _merged(listed_NC: np.ndarray, group_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells of which the first row of each group says what all its rows know; and (N, C) where they contradict."""
    again = np.flatnonzero(group_of != np.arange(len(group_of)))
    yes_NC, no_NC = listed_NC == 1, listed_NC == 0
    for known_NC in (yes_NC, no_NC):
        np.logical_or.at(known_NC, group_of[again], known_NC[again])
    against_NC = yes_NC & no_NC
    return np.select([against_NC, yes_NC, no_NC], [-1, 1, 0], -1).astype(np.int8), against_NC


def _test(splits: Sequence[str], group_of: np.ndarray, firsts: np.ndarray, notes: list[str]) -> np.ndarray | None:
    """Which of the kept photos are for testing; a photo that stands on both sides is."""
    if not any(splits):
        return None
    held = "test" if "test" in splits else "val"
    if held == "test" and "val" in splits:
        notes.append("photos of the split val are used for training, because there is a split test")
    if held not in splits:
        return None
    test_N = np.array([split == held for split in splits])
    tested = np.zeros(len(splits), np.bool_)
    np.logical_or.at(tested, group_of, test_N)
    both = int((tested[firsts] & np.isin(firsts, group_of[~test_N])).sum())
    if both:
        notes.append(f"{both} photos stand in training and test with the same bytes; they are for testing only")
    return tested[firsts]


def _id(listing: Listing, file: Path) -> str:
    return file.relative_to(listing.folder).as_posix() if file.is_relative_to(listing.folder) else file.as_posix()


def similar(classes: Sequence[str]) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Pairs of labels that a person may have meant to be one.

    Returns:
        Those that differ by case, blanks, hyphens or accents' way of writing only, and those that differ by a few
        letters; of more than 1,000 labels the latter are not looked for.
    """
    folded = defaultdict(list)
    for name in classes:
        folded[fold(name)].append(name)
    alike = tuple(pair for names in folded.values() for pair in combinations(names, 2))
    near = []
    for one, other in combinations(folded if len(classes) <= MOST_COMPARED else (), 2):
        if abs(len(one) - len(other)) > 2 or _without_digits(one) == _without_digits(other):
            continue
        pair = difflib.SequenceMatcher(None, one, other, autojunk=False)
        if pair.real_quick_ratio() >= 0.85 and pair.quick_ratio() >= 0.85 and pair.ratio() >= 0.85:
            near.append((folded[one][0], folded[other][0]))
    return alike, tuple(near)


def fold(name: str) -> str:
    """What is the same for all spellings of a label that differ by case, blanks or hyphens only."""
    kept = "".join(sign for sign in unicodedata.normalize("NFKC", name).casefold() if sign.isalnum())
    return kept or name


def _without_digits(name: str) -> str:
    return "".join(sign for sign in name if not sign.isdigit())


class PhotosDataset:
    """Own photos with labels in any form, as a data set; read at the first :meth:`train` or :meth:`test`.

    A label that is unknown on a photo is in no loss and no metric. The column ``split`` (or the folders ``train`` and
    ``test``) says what is for testing, else a part of each label's photos is set aside; a photo that is there twice
    stands on one side.

    Args:
        source: see :func:`read_labels`, as ``photos``, ``reviewed`` and ``form``.
        test_share: without a split: the part of each label's photos that is set aside, in (0, 1).
        name: the name in logs and in the protocol hash; ``None`` is that of the file or folder.

    Raises:
        UserError: ``test_share`` out of range.
    """

    label_cardinality: float | None = None

    def __init__(
        self,
        source: str | Path,
        photos: str | Path | None = None,
        reviewed: str | Sequence[str] | None = None,
        form: str | None = None,
        test_share: float = 0.2,
        name: str | None = None,
    ) -> None:
        if isinstance(test_share, bool) or not isinstance(test_share, (int, float)) or not 0 < test_share < 1:
            raise UserError(f"test_share is {test_share!r}; expected a number between 0 and 1, such as 0.2")
        self.source, self.photos, self.reviewed, self.form = Path(source), photos, reviewed, form
        self.test_share, self.name = test_share, name or self.source.absolute().stem
        self._tables: dict[str, ImageTable] = {}

    def train(self) -> ImageTable:
        """The training photos.

        Raises:
            UserError: as :func:`read_labels`; no photo is left for one of the sides; or a label has no photo that is
                known to lack it.
        """
        return self._both()["train"]

    def test(self) -> ImageTable:
        """The photos for testing, with the same labels. Raises as :meth:`train`."""
        return self._both()["test"]

    def _both(self) -> dict[str, ImageTable]:
        if not self._tables:
            read = read_labels(self.source, self.photos, self.reviewed, self.form)
            test_N = read.held_out(self.test_share)
            never = [read.classes[c] for c in np.flatnonzero(~(read.cells_NC[~test_N] == 0).any(axis=0))]
            if never:
                more = f" and {len(never) - 3} more" if len(never) > 3 else ""
                raise UserError(
                    f"{self.source}: no training photo is known to lack {', '.join(map(repr, never[:3]))}{more}, so "
                    "there is nothing to tell it from; say which labels somebody has looked for, by a column "
                    "'reviewed' in the file or by scenario.dataset.reviewed=all"
                )
            self._tables = {
                split: ImageTable(
                    split,
                    read.classes,
                    tuple(read.ids[row] for row in rows),
                    tuple(read.files[row] for row in rows),
                    read.cells_NC[rows],
                    read.cells_NC[rows] == 1,
                )
                for split, rows in (("train", np.flatnonzero(~test_N)), ("test", np.flatnonzero(test_N)))
            }
        return self._tables
