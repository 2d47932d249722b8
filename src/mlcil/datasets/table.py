"""One split of a multi-label data set: images in a fixed order, labels, and which class selects which image.

Two rules are kept apart, as in KRT's official behaviour: ``selects_NC`` says whether an image belongs to a
session that owns the class, ``labels_NC`` says what the training target may show. N images, C classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlcil.errors import UserError
from mlcil.protocols import did_you_mean, order_classes


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The images and labels of one split.

    Attributes:
        name: the split, for messages.
        classes: names of the C columns.
        ids: N image ids, each once (COCO: its integer id; VOC: the name in the list).
        files: N image files; they are not opened here.
        labels_NC: (N, C) int8; 1 given label, 0 absent, -1 not judged.
        selects_NC: (N, C) bool; the class makes the image part of a session that owns the class.
    """

    name: str
    classes: tuple[str, ...]
    ids: tuple[str | int, ...]
    files: tuple[Path, ...]
    labels_NC: np.ndarray
    selects_NC: np.ndarray

    def __post_init__(self) -> None:
        shape = (len(self.ids), len(self.classes))
        assert len(self.files) == len(self.ids), "one file per image"
        assert self.labels_NC.shape == shape, "one label per image and class"
        assert self.selects_NC.shape == shape, "one flag per image and class"
        assert self.labels_NC.dtype == np.int8, "labels are int8"
        assert self.selects_NC.dtype == np.bool_, "flags are bool"

    def __len__(self) -> int:
        return len(self.ids)

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


def check_option(name: str, value: object, known: Sequence[str]) -> None:
    """Refuse a value that is not one of the known words.

    Raises:
        UserError: names the option, the value, the near word and all known ones.
    """
    if value not in known:
        raise UserError(
            f"{name} is {value!r}{did_you_mean(str(value), known)}; use one of {', '.join(map(repr, known))}"
        )


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
