"""One split of a data set: images in a fixed order, labels, and which class selects which image.

Two rules are kept apart, as in KRT's official behaviour: ``selects_NC`` says whether an image belongs to a
session that owns the class, ``labels_NC`` says what the training target may show. With one class an image
they are the same array. Pixels come from files, or from an array in memory. N images, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from mlcil.datasets.transforms import SQUARE, Fit, load_rgb
from mlcil.errors import UserError
from mlcil.protocols import order_classes


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The images and labels of one split.

    Attributes:
        name: the split, for messages.
        classes: names of the C columns.
        ids: N image ids, each once (COCO: its integer id; VOC: the name in the list).
        files: N image files; they are opened by :meth:`image` only. Empty when ``pixels`` are given.
        labels_NC: (N, C) int8; 1 given label, 0 absent, -1 not judged.
        selects_NC: (N, C) bool; the class makes the image part of a session that owns the class.
        pixels: (N, H, W, 3) uint8, the images themselves, or ``None``.
        fit: how an image is brought to the size that the network takes.
    """

    name: str
    classes: tuple[str, ...]
    ids: tuple[str | int, ...]
    files: tuple[Path, ...]
    labels_NC: np.ndarray
    selects_NC: np.ndarray
    pixels: np.ndarray | None = None
    fit: Fit = SQUARE

    def __post_init__(self) -> None:
        shape = (len(self.ids), len(self.classes))
        if self.pixels is None:
            assert len(self.files) == len(self.ids), "one file per image"
        else:
            assert not self.files, "images come from files or from memory"
            assert self.pixels.ndim == 4, "(N, H, W, 3)"
            assert (len(self.pixels), self.pixels.shape[3]) == (len(self.ids), 3), "(N, H, W, 3)"
            assert self.pixels.dtype == np.uint8, "pixels are uint8"
        assert self.labels_NC.shape == shape, "one label per image and class"
        assert self.selects_NC.shape == shape, "one flag per image and class"
        assert self.labels_NC.dtype == np.int8, "labels are int8"
        assert self.selects_NC.dtype == np.bool_, "flags are bool"

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, row: int) -> Image.Image:
        """The image of a row as RGB, in its own size.

        Raises:
            UserError: the file is missing, empty, cut off or no image.
        """
        return load_rgb(self.files[row]) if self.pixels is None else Image.fromarray(self.pixels[row])

    def reorder(self, class_order: Sequence[str]) -> ImageTable:
        """The same rows with the columns in another order.

        Args:
            class_order: every class name once.

        Raises:
            UserError: a name is unknown, missing or doubled.
        """
        order = order_classes(self.classes, list(class_order))
        if order == self.classes:
            return self
        column_of = {name: column for column, name in enumerate(self.classes)}
        columns = [column_of[name] for name in order]
        labels_NC = np.take(self.labels_NC, columns, axis=1)
        shared = np.shares_memory(self.labels_NC, self.selects_NC)  # one class an image: one array for both
        selects_NC = labels_NC.view(np.bool_) if shared else np.take(self.selects_NC, columns, axis=1)
        return replace(self, classes=order, labels_NC=labels_NC, selects_NC=selects_NC)

    def rows_of(self, low: int, high: int) -> np.ndarray:
        """Rows selected by any class of [low, high): int64, ascending, each once."""
        return np.flatnonzero(self.selects_NC[:, low:high].any(axis=1)).astype(np.int64)

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
            if file.name not in present[folder] and not file.is_file():
                missing.append(file)
        if not missing:
            return
        folder = missing[0].parent
        found = "does not exist" if not folder.is_dir() else f"lacks {missing[0].name}"
        raise UserError(
            f"split {self.name!r}: {len(missing)} of {len(files)} image files are missing, the folder "
            f"{folder} {found}; "
            f"expected every listed image there, so put or link the images into it (docs/data.md says where to "
            "get them; `--demo` runs without them)"
        )


def _files_in(folder: Path) -> frozenset[str]:
    """Names of the files of a folder; empty when it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except OSError:
        return frozenset()


def single_label_table(
    name: str,
    classes: Sequence[str],
    labels_N: np.ndarray,
    *,
    files: Sequence[Path] = (),
    pixels: np.ndarray | None = None,
    ids: Sequence[str | int] | None = None,
    fit: Fit = SQUARE,
) -> ImageTable:
    """A table of images that show exactly one class each.

    Args:
        name: the split, for messages.
        classes: C names.
        labels_N: (N,) class indices in [0, C).
        files, pixels: one of them, see :class:`ImageTable`.
        ids: N image ids; ``None`` numbers them.
        fit: see :class:`ImageTable`.

    Returns:
        A table whose labels and selections share one array of N x C bytes.
    """
    labels_NC = np.zeros((len(labels_N), len(classes)), np.int8)
    labels_NC[np.arange(len(labels_N)), labels_N] = 1
    ids = range(len(labels_N)) if ids is None else ids
    return ImageTable(name, tuple(classes), tuple(ids), tuple(files), labels_NC, labels_NC.view(np.bool_), pixels, fit)


def check_root(root: Path, contents: str) -> None:
    """Refuse a data-set folder that does not exist.

    Args:
        root: the folder.
        contents: what it should hold, for the message.

    Raises:
        UserError: names the folder, what belongs there and what runs without it.
    """
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise UserError(
            f"data folder {root} {found}; expected a folder with {contents} there, so put or link the data set to "
            "that place or set scenario.dataset.root (docs/data.md says where to get it; `--demo` runs without it)"
        )
