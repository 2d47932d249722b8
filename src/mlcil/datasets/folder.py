"""Folders of images with one class each: own data, and what Tiny-ImageNet and ImageNet share with it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mlcil.datasets.table import ImageTable, SingleLabelTable, check_root
from mlcil.errors import UserError
from mlcil.files import check_regular, stamp
from mlcil.images import Fit, images_below
from mlcil.protocols import did_you_mean

_log = logging.getLogger(__name__)
TEST_FOLDERS = ("test", "val")


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the folders in ``folder``, sorted as strings; hidden ones are left out.

    Raises:
        UserError: the folder is missing, cannot be listed or holds no folder.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(
            f"folder {folder} cannot be listed ({error.strerror}); expected a folder with one folder of images per "
            "class there, so put or link the images into it, or correct scenario.dataset"
        ) from error
    if not names:
        raise UserError(
            f"folder {folder} holds no folders; expected one folder of images per class, so sort the images by class"
        )
    return tuple(names)


def same_content(files: Sequence[Path]) -> np.ndarray:
    """Files with the same bytes; only those of the same size are read.

    Returns:
        (N,) int64, for each file the place of the first one that has its bytes; files that are empty or cannot be
        read are the same by their path alone.
    """
    rows_of = defaultdict(list)
    for row, file in enumerate(files):
        rows_of[stamp(file)[0]].append(row)
    group_of = np.arange(len(files))
    for size, rows in rows_of.items():
        first_of: dict[bytes | Path, int] = {}
        for row in rows if len(rows) > 1 else ():
            group_of[row] = first_of.setdefault(_digest(files[row]) if size else files[row], row)
    return group_of


def _digest(file: Path) -> bytes | Path:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return file


def read_folders(folder: Path, classes: Sequence[str], inside: str = "") -> tuple[list[Path], np.ndarray]:
    """The images of ``folder/<class>/`` for every class, class by class.

    Args:
        folder: holds one folder per class.
        classes: the folders that are read; the position is the class index.
        inside: folder in the class's folder that holds the images; without it they lie in the class's folder.

    Returns:
        Files, and labels (N,) int64. A class without folder or images has none.
    """
    files: list[Path] = []
    counts = []
    for name in classes:
        place = folder / name / inside
        found = images_below(place if place.is_dir() else folder / name)
        files += found
        counts.append(len(found))
    return files, np.repeat(np.arange(len(classes)), counts)


def read_lines(path: Path, contents: str) -> list[str]:
    """The lines of a text file without blank ones.

    Args:
        path: the file.
        contents: what it should hold, for the message.

    Raises:
        UserError: missing, not UTF-8, or without a line.
    """
    check_regular(path)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; expected a text file with {contents} there, so add it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); expected UTF-8 text with {contents}, so write it again"
        ) from error
    if not lines:
        raise UserError(f"{path} is empty; expected {contents}, so fill it or download it again")
    return lines


def choose_classes(there: Sequence[str], wanted: Sequence[str] | None, where: Path) -> tuple[str, ...]:
    """The wanted classes in the wanted order, or all that are there.

    Raises:
        UserError: no list of names, a name twice, or a class that is not there (the near name is suggested).
    """
    if wanted is None:
        return tuple(there)
    if isinstance(wanted, str) or not wanted or not all(isinstance(name, str) for name in wanted):
        raise UserError(f"classes is {wanted!r}; expected a list of at least one class name")
    known = set(there)
    for name in wanted:
        if name not in known:
            raise UserError(
                f"folder {where} has no class {name!r}{did_you_mean(name, there)} among its {len(there)}; add the "
                "images or take the class out of the list"
            )
    if len(set(wanted)) != len(wanted):
        twice = next(name for name in wanted if list(wanted).count(name) > 1)
        raise UserError(f"classes names {twice!r} twice; name every class exactly once")
    return tuple(wanted)


def file_table(
    name: str, classes: Sequence[str], files: Sequence[Path], labels_N: np.ndarray, root: Path, fit: Fit
) -> ImageTable:
    """A table whose image ids are the paths below ``root``, which are the same on every machine."""
    ids = [file.relative_to(root).as_posix() for file in files]
    return SingleLabelTable(name, classes, labels_N, files=files, ids=ids, fit=fit)


class FolderDataset:
    """Own images, one folder per class; folders are listed at the first :meth:`train` or :meth:`test`.

    Either ``root/train/<class>/`` and ``root/test/<class>/`` (or ``val``), or ``root/<class>/`` alone, of which a part
    is set aside for testing. Images may lie in folders of folders. The class order ``as_given`` is that of the
    folders' names, sorted as strings.

    Args:
        root: see above. A photo that is there twice counts once, for testing where it is on both sides.
        classes: the classes that are used; ``None`` takes all.
        test_share: without a folder of test images: the part of every class that is set aside, in (0, 1), at least one
            image where the class has two.
        split_seed: of that choice; each class is drawn by itself, so that adding a class changes no other.
        fit: how images become squares, see :class:`~mlcil.images.Fit`.
        name: the name in logs and in the protocol hash.

    Raises:
        UserError: ``test_share`` or ``fit`` out of range.
    """

    task = "single_label"
    label_cardinality = 1.0

    def __init__(
        self,
        root: str | Path,
        classes: Sequence[str] | None = None,
        test_share: float = 0.2,
        split_seed: int = 0,
        fit: str | Mapping[str, object] = "square",
        name: str = "folder",
    ) -> None:
        if isinstance(test_share, bool) or not isinstance(test_share, (int, float)) or not 0 < test_share < 1:
            raise UserError(f"test_share is {test_share!r}; expected a number between 0 and 1, such as 0.2")
        if isinstance(split_seed, bool) or not isinstance(split_seed, int) or split_seed < 0:
            raise UserError(f"split_seed is {split_seed!r}; expected a whole number of at least 0")
        self.root, self.name, self.fit = Path(root), name, Fit.of(fit)
        self.test_share, self.split_seed = test_share, split_seed
        self._classes = classes
        self._tables: dict[str, ImageTable] = {}

    def train(self) -> ImageTable:
        """The training images.

        Raises:
            UserError: the folder, its class folders or a wanted class is missing, there is no folder of test images
                beside ``train``, or a photo is in the folders of two classes.
        """
        return self._both()["train"]

    def test(self) -> ImageTable:
        """The test images, with the training images' classes. Raises as :meth:`train`."""
        return self._both()["test"]

    def _both(self) -> dict[str, ImageTable]:
        if not self._tables:
            check_root(self.root, "one folder of images per class (or train/ and test/ with them)")
            self._tables = self._read() if (self.root / "train").is_dir() else self._divide()
        return self._tables

    def _read(self) -> dict[str, ImageTable]:
        test_folder = next((self.root / n for n in TEST_FOLDERS if (self.root / n).is_dir()), None)
        if test_folder is None:
            raise UserError(
                f"data folder {self.root} has train/ but neither {' nor '.join(f'{n}/' for n in TEST_FOLDERS)}; "
                "expected test images there, so add them, or put the class folders directly into the data folder to "
                "have a part of them set aside"
            )
        classes = choose_classes(class_folders(self.root / "train"), self._classes, self.root / "train")
        unknown = [name for name in class_folders(test_folder) if name not in set(classes)]
        if unknown and self._classes is None:
            raise UserError(
                f"folder {test_folder} has the class {unknown[0]!r}{did_you_mean(unknown[0], classes)}, but "
                f"{self.root / 'train'} has not; expected the same class folders in both, so add or remove it"
            )
        parts = [read_folders(test_folder, classes), read_folders(self.root / "train", classes)]
        files, labels_N = [*parts[0][0], *parts[1][0]], np.concatenate([part[1] for part in parts])
        return self._tables_of(classes, files, labels_N, np.arange(len(files)) < len(parts[0][0]))

    def _divide(self) -> dict[str, ImageTable]:
        classes = choose_classes(class_folders(self.root), self._classes, self.root)
        files, labels_N = read_folders(self.root, classes)
        once_N = self._once(files, labels_N)
        aside_N = np.zeros(len(files), np.bool_)
        for index, name in enumerate(classes):
            rows = np.flatnonzero(once_N & (labels_N == index))
            count = min(max(round(self.test_share * len(rows)), 1), len(rows) - 1)
            if count > 0:
                rng = np.random.default_rng([self.split_seed, *name.encode()])
                aside_N[rng.permutation(rows)[:count]] = True
        return self._tables_of(classes, files, labels_N, aside_N)

    def _tables_of(
        self, classes: Sequence[str], files: Sequence[Path], labels_N: np.ndarray, test_N: np.ndarray
    ) -> dict[str, ImageTable]:
        once_N = self._once(files, labels_N)
        return {
            split: file_table(split, classes, [files[i] for i in rows.tolist()], labels_N[rows], self.root, self.fit)
            for split, rows in (("train", np.flatnonzero(once_N & ~test_N)), ("test", np.flatnonzero(once_N & test_N)))
        }

    def _once(self, files: Sequence[Path], labels_N: np.ndarray) -> np.ndarray:
        """(N,) bool, without the later ones of photos with the same bytes.

        Raises:
            UserError: a photo is in the folders of two classes.
        """
        group_of = same_content(files)
        odd = np.flatnonzero(labels_N != labels_N[group_of])
        if len(odd):
            one, other = files[int(group_of[odd[0]])], files[int(odd[0])]
            raise UserError(
                f"{one} and {other} are the same photo in folders of two classes ({len(odd)} such photos); expected "
                f"one class a photo, so remove one of each, or train with several labels a photo by data={self.root}"
            )
        once_N: np.ndarray = group_of == np.arange(len(files))
        if not once_N.all():
            _log.warning(f"{self.root}: {(~once_N).sum()} photos are there more than once; each counts once")
        return once_N
