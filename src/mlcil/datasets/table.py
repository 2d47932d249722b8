"""One split of a data set: images in a fixed order, labels, and which class selects which image.

Two rules are kept apart, as in KRT's official behaviour: ``selects_NC`` says whether an image belongs to a
session that owns the class, ``labels_NC`` says what the training target may show. With one class an image
(:class:`SingleLabelTable`) they are the same. Pixels come from files, or from an array in memory. N images, C classes.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from mlcil.errors import DEMO_HINT, UserError
from mlcil.files import stamp
from mlcil.images import SQUARE, Fit, load_rgb
from mlcil.protocols import order_classes

if TYPE_CHECKING:
    from typing_extensions import Self


class KeptImages(Protocol):
    """Images at one size that need no decoding, such as :class:`mlcil.datasets.cache.ImageCache`.

    Attributes:
        size: side in pixels.
        kept_N: (N,) bool; which rows are there.
    """

    size: int
    kept_N: np.ndarray

    def read(self, row: int, file: Path) -> np.ndarray | None:
        """uint8 (size, size, 3), or ``None`` where the file has to be opened."""


class MapsOf(Protocol):
    """Maps by row: an array, or what gives float32 copies of rows that lie elsewhere."""

    shape: tuple[int, ...]

    def __getitem__(self, rows: Any, /) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The images and labels of one split.

    Labels and selections of any integer or bool type are taken and converted.

    Attributes:
        name: the split, for messages.
        classes: names of the C columns.
        ids: N image ids, each once (COCO: its integer id; VOC: the name in the list).
        files: N image files; they are opened by :meth:`image` only. Empty when ``pixels`` are given.
        labels_NC: (N, C) int8; 1 given label, 0 absent, -1 not judged.
        selects_NC: (N, C) bool; the class makes the image part of a session that owns the class.
        pixels: (N, H, W, 3) uint8, the images themselves, or ``None``.
        fit: how an image is brought to the size that the network takes.
        cache: the images at one size, kept on disk (:meth:`cached`), or ``None``.
        maps: (N, K, h, w) float32, a frozen backbone's last maps in the images' place (:meth:`with_maps`), an array or
            what is indexed like one, or ``None``.
        readable_N: (N,) bool, which images can be read (:meth:`without`); ``None`` when all can.

    Raises:
        UserError: an id is there twice, or images, labels and selections do not fit each other or have other values.
    """

    name: str
    classes: tuple[str, ...]
    ids: tuple[str | int, ...]
    files: tuple[Path, ...]
    labels_NC: np.ndarray
    selects_NC: np.ndarray
    pixels: np.ndarray | None = None
    fit: Fit = SQUARE
    cache: KeptImages | None = None
    maps: MapsOf | None = None
    readable_N: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = (len(self.ids), len(self.classes))
        for field, low, dtype in (("labels_NC", -1, np.int8), ("selects_NC", 0, np.bool_)):
            whole = _whole_numbers(self.name, field, getattr(self, field), shape, low, 1)
            object.__setattr__(self, field, whole.astype(dtype, copy=False))
        self._check_images()

    def _check_images(self) -> None:
        """The parts that every table has."""
        twice = next((name for name, count in Counter(self.ids).items() if count > 1), None)
        if twice is not None:
            raise UserError(
                f"split {self.name!r}: the id {twice!r} is there more than once; expected every image once, so give "
                "each an id of its own"
            )
        if self.pixels is None:
            found = f"{len(self.files)} files"
            fits = len(self.files) == len(self.ids)
        else:
            found = f"{len(self.files)} files and pixels of {self.pixels.dtype}, shape {self.pixels.shape}"
            fits = not self.files and self.pixels.dtype == np.uint8 and self.pixels.ndim == 4
            fits = fits and (len(self.pixels), self.pixels.shape[3]) == (len(self.ids), 3)
        if not fits:
            raise UserError(
                f"split {self.name!r} has {len(self.ids)} ids and {found}; expected one file an id, or no files and "
                f"pixels of uint8, shape ({len(self.ids)}, height, width, 3), so correct the table"
            )

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, row: int) -> Image.Image:
        """The image of a row as RGB, in its own size.

        Raises:
            UserError: the file is missing, empty, cut off or no image.
        """
        return load_rgb(self.files[row]) if self.pixels is None else Image.fromarray(self.pixels[row])

    def fitted(self, row: int, size: int) -> np.ndarray:
        """The image of a row at the size that the network takes: uint8 (size, size, 3).

        Raises:
            UserError: as :meth:`image`.
        """
        kept = self.cache.read(row, self.files[row]) if self.cache is not None and self.cache.size == size else None
        return np.asarray(self.fit(self.image(row), size)) if kept is None else kept

    def _changed(self, **values: Any) -> Self:
        table = copy.copy(self)
        for key, value in values.items():
            object.__setattr__(table, key, value)
        return table

    def cached(self, cache: KeptImages | None) -> Self:
        """The same table, which looks into the cache before it opens a file."""
        return self._changed(cache=cache)

    def with_maps(self, maps: MapsOf) -> Self:
        """The same table, whose images come as maps of a frozen backbone where they are not to be augmented."""
        return self._changed(maps=maps)

    def without(self, rows: Collection[int]) -> Self:
        """The same rows, of which these show and select nothing: no session and no test set has them."""
        readable_N = np.isin(np.arange(len(self)), np.setdiff1d(self.readable_rows(), list(rows)))
        return self._changed(readable_N=readable_N, **self._labels_without(~readable_N))

    def _labels_without(self, gone_N: np.ndarray) -> dict[str, np.ndarray]:
        labels_NC, selects_NC = self.labels_NC.copy(), self.selects_NC.copy()
        labels_NC[gone_N], selects_NC[gone_N] = -1, False
        return {"labels_NC": labels_NC, "selects_NC": selects_NC}

    def readable_rows(self) -> np.ndarray:
        """Rows whose image can be read, as far as is known: int64, ascending."""
        return np.arange(len(self)) if self.readable_N is None else np.flatnonzero(self.readable_N)

    def reorder(self, class_order: Sequence[str]) -> ImageTable:
        """The same rows with the columns in another order.

        Args:
            class_order: every class name once.

        Raises:
            UserError: a name is unknown, missing or doubled.
        """
        order = order_classes(self.classes, list(class_order))
        column_of = {name: column for column, name in enumerate(self.classes)}
        columns = [column_of[name] for name in order]
        return replace(
            self, classes=order, labels_NC=self.labels_NC[:, columns], selects_NC=self.selects_NC[:, columns]
        )

    def part(self, rows: np.ndarray, name: str) -> Self:
        """Some rows as a table of that name."""
        return self._changed(
            name=name,
            ids=tuple(self.ids[row] for row in rows),
            files=tuple(self.files[row] for row in rows) if self.files else (),
            pixels=None if self.pixels is None else self.pixels[rows],
            cache=None,
            maps=None,
            readable_N=None if self.readable_N is None else self.readable_N[rows],
            **self._labels_of_part(rows),
        )

    def _labels_of_part(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"labels_NC": self.labels_NC[rows], "selects_NC": self.selects_NC[rows]}

    def divided(self, share: float) -> tuple[Self, Self]:
        """The table without some of its images, and these; which they are follows from the ids alone.

        Args:
            share: of the images, in (0, 1); of each class's where every image shows exactly one.
        """
        digests = [hashlib.sha256(str(name).encode()).digest() for name in self.ids]
        order = np.array(sorted(range(len(self)), key=digests.__getitem__), np.int64)
        taken = [group[: round(share * len(group))] for group in self._groups(order)]
        chosen = np.isin(np.arange(len(self)), np.concatenate(taken))
        rest, held_out = np.flatnonzero(~chosen), np.flatnonzero(chosen)
        return self.part(rest, self.name), self.part(held_out, f"{self.name}, held out")

    def _groups(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows that are divided each for themselves."""
        return [rows]

    def rows_of(self, low: int, high: int) -> np.ndarray:
        """Rows selected by any class of [low, high): int64, ascending, each once."""
        return np.flatnonzero(self.selects_NC[:, low:high].any(axis=1)).astype(np.int64)

    def labels_of(self, rows: np.ndarray, high: int) -> np.ndarray:
        """Labels of rows on the first ``high`` classes: (R, high) int8, a copy."""
        return self.labels_NC[rows, :high]

    def positives(self, rows: np.ndarray | None = None) -> np.ndarray:
        """How many of the rows (``None``: of all) show each class: (C,) int64."""
        return ((self.labels_NC if rows is None else self.labels_NC[rows]) == 1).sum(axis=0)

    def selected(self) -> np.ndarray:
        """Whether any image is selected by each class: (C,) bool."""
        return np.asarray(self.selects_NC.any(axis=0))

    def digest(self) -> str:
        """SHA-256 over ids, labels and selections; paths do not matter."""
        digest = hashlib.sha256(json.dumps(self.ids).encode())
        digest.update(np.ascontiguousarray(self.labels_NC).tobytes())
        digest.update(np.packbits(self.selects_NC).tobytes())
        return digest.hexdigest()

    def image_digest(self) -> str:
        """SHA-256 of the images: of pixels in memory, else of every file's size and time of its last change."""
        if self.pixels is not None:
            return hashlib.sha256(np.ascontiguousarray(self.pixels).tobytes()).hexdigest()
        stamps_N2 = np.array([stamp(file)[:2] for file in self.files], np.int64)
        return hashlib.sha256(stamps_N2.tobytes()).hexdigest()

    def check_files(self, limit: int | None = None) -> None:
        """Look whether the image files are there, without opening them.

        Args:
            limit: look at no more than this many files, spread over the table; ``None`` looks at all.

        Raises:
            UserError: files are missing; says how many, the first one and its folder.
        """
        files: Sequence[Path] = self.files
        if limit is not None and limit < len(files):
            files = [files[row] for row in np.linspace(0, len(files) - 1, max(limit, 1)).astype(int)]
        present: dict[Path, frozenset[str]] = {}
        missing = []
        for file in files:
            folder = file.parent
            if folder not in present:
                present[folder] = _files_in(folder)
            # the second look is for file systems that ignore case
            if file.name not in present[folder] and not _is_file(file):
                missing.append(file)
        if not missing:
            return
        folder = missing[0].parent
        name = missing[0].name
        found = f"lacks {name if len(name) <= 80 else name[:77] + '...'}" if folder.is_dir() else "does not exist"
        raise UserError(
            f"split {self.name!r}: {len(missing)} of {len(files)} image files are missing, the folder "
            f"{folder} {found}; "
            "expected every listed image there, so put or link the images into it; docs/data.md says where to "
            f"get them, and {DEMO_HINT}"
        )


def _whole_numbers(name: str, field: str, given: Any, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """What a split's table was given, as an array of that shape with whole numbers of [low, high]."""
    try:
        values = np.asarray(given)
    except ValueError:  # rows of different lengths
        values = np.asarray(None)
    if not values.size and 0 in shape:
        return np.zeros(shape, np.int8)
    if values.dtype.kind not in "iub":
        found = f"is a {type(given).__name__} of {values.dtype}"
    elif values.shape != shape:
        found = f"has the shape {values.shape}"
    elif values.min() < low or values.max() > high:
        found = f"has values from {values.min()} to {values.max()}"
    else:
        return values
    raise UserError(
        f"split {name!r}: {field} {found}; expected whole numbers from {low} to {high} in an array of the shape "
        f"{shape}, {'images and classes' if len(shape) == 2 else 'images'}, so correct the table"
    )


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # such as a name that is too long for the file system
        return False


def _files_in(folder: Path) -> frozenset[str]:
    """Names of the files of a folder; empty when it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except OSError:
        return frozenset()


class SingleLabelTable(ImageTable):
    """A table of images that show exactly one class each, which makes them part of its session.

    It holds N numbers; the matrices of :class:`ImageTable` are made when they are asked for, which is for small
    tables (ImageNet's would have 1.3 GB each).

    Args:
        name: the split, for messages.
        classes: C names.
        labels_N: (N,) class indices in [0, C).
        files, pixels: one of them, see :class:`ImageTable`.
        ids: N image ids; ``None`` numbers them.
        fit: see :class:`ImageTable`.

    Raises:
        UserError: as :class:`ImageTable`.
    """

    labels_N: np.ndarray

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        labels_N: np.ndarray,
        *,
        files: Sequence[Path] = (),
        pixels: np.ndarray | None = None,
        ids: Sequence[str | int] | None = None,
        fit: Fit = SQUARE,
    ) -> None:
        fields = {
            "name": name,
            "classes": tuple(classes),
            "ids": tuple(range(len(labels_N)) if ids is None else ids),
            "files": tuple(files),
            "pixels": pixels,
            "fit": fit,
            "cache": None,
            "maps": None,
            "readable_N": None,
        }
        for key, value in fields.items():
            object.__setattr__(self, key, value)
        labels_N = _whole_numbers(name, "labels_N", labels_N, (len(self.ids),), 0, len(self.classes) - 1)
        object.__setattr__(self, "labels_N", labels_N.astype(np.int64, copy=False))
        self._check_images()

    @property
    def labels_NC(self) -> np.ndarray:  # type: ignore[override]
        """(N, C) int8, a single 1 a row."""
        return self.labels_of(np.arange(len(self)), len(self.classes))

    @property
    def selects_NC(self) -> np.ndarray:  # type: ignore[override]
        """(N, C) bool, where the label is."""
        return self.labels_NC.view(np.bool_)

    def reorder(self, class_order: Sequence[str]) -> SingleLabelTable:
        order = order_classes(self.classes, list(class_order))
        column_of = {name: column for column, name in enumerate(order)}
        new = np.array([*(column_of[name] for name in self.classes), -1], np.int64)  # -1 stays what it is
        return self._changed(classes=order, labels_N=new[self.labels_N])

    def rows_of(self, low: int, high: int) -> np.ndarray:
        return np.flatnonzero((self.labels_N >= low) & (self.labels_N < high)).astype(np.int64)

    def labels_of(self, rows: np.ndarray, high: int) -> np.ndarray:
        own = self.labels_N[rows]
        labels = np.zeros((len(rows), high), np.int8)
        shown = np.flatnonzero((own >= 0) & (own < high))
        labels[shown, own[shown]] = 1
        return labels

    def _labels_of_part(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"labels_N": self.labels_N[rows]}

    def _labels_without(self, gone_N: np.ndarray) -> dict[str, np.ndarray]:
        return {"labels_N": np.where(gone_N, -1, self.labels_N)}

    def _groups(self, rows: np.ndarray) -> list[np.ndarray]:
        return [rows[self.labels_N[rows] == label] for label in range(len(self.classes))]

    def positives(self, rows: np.ndarray | None = None) -> np.ndarray:
        own = self.labels_N if rows is None else self.labels_N[rows]
        return np.bincount(own[own >= 0], minlength=len(self.classes))

    def selected(self) -> np.ndarray:
        return self.positives() > 0

    def digest(self) -> str:
        digest = hashlib.sha256(json.dumps(self.ids).encode())
        digest.update(self.labels_N.astype("<i8").tobytes())
        return digest.hexdigest()


def check_root(root: Path, contents: str, download: str = "") -> None:
    """Refuse a data-set folder that does not exist.

    Args:
        root: the folder.
        contents: what it should hold, for the message.
        download: name by which ``mlcil download`` fetches it, if it does.

    Raises:
        UserError: names the folder, what belongs there, how it gets there and what runs without it.
    """
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        fetched = f", fetch it with `mlcil download {download} --root {root}`" if download else ""
        raise UserError(
            f"data folder {root} {found}; expected a folder with {contents} there, so put or link the data set to "
            f"that place{fetched} or set scenario.dataset.root; docs/data.md says where to get it, and {DEMO_HINT}"
        )
