"""ImageNet-1000 and its subsets, from class folders or from lists of files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from mlcil.class_orders import SUBSETS
from mlcil.datasets.folder import choose_classes, class_folders, file_table, read_folders, read_lines
from mlcil.datasets.table import ImageTable, check_root
from mlcil.errors import UserError
from mlcil.images import Fit
from mlcil.protocols import did_you_mean

CONTENTS = "train/ and val/ with one folder of images per synset"


class ImageNetDataset:
    """ImageNet, or a part of it; folders and lists are read at the first :meth:`train` or :meth:`test`.

    From folders, the class order ``as_given`` is that of the synset ids; from lists, that of the labels.

    Args:
        root: holds ``train_folder/<synset>/`` and ``test_folder/<synset>/``, or what the lists name.
        subset: with folders, the synsets that are used: ``None`` for all, a number for so many first ones,
            ``imagenet100_dkt`` or ``imagenet100_dytox`` (two data sets of the same name in the papers; the second is
            the first 100 synsets), or a list of synset ids.
        train_folder, test_folder: folders of the splits.
        train_list, test_list: text files, relative to ``root``, with ``relative/path label`` a line and labels 0 to
            C - 1, as PODNet's ``train_100.txt`` and ``val_100.txt``. Class names are the folders' names where every
            label has one of its own, else the labels.
        fit: how images become squares, see :class:`~mlcil.images.Fit`; the papers' is ``centre``, the
            shorter side 256 and the central 224 pixels.
        name: the name in logs and in the protocol hash.

    Raises:
        UserError: only one of the two lists, lists with a subset, or an unknown subset.
    """

    task = "single_label"
    label_cardinality = 1.0

    def __init__(
        self,
        root: str | Path,
        subset: str | int | Sequence[str] | None = None,
        train_folder: str = "train",
        test_folder: str = "val",
        train_list: str | None = None,
        test_list: str | None = None,
        fit: str | Mapping[str, object] = "centre",
        name: str = "imagenet",
    ) -> None:
        if (train_list is None) != (test_list is None):
            given = "train_list" if test_list is None else "test_list"
            raise UserError(f"scenario.dataset has {given} alone; give train_list and test_list, or neither")
        if train_list is not None and subset is not None:
            raise UserError("scenario.dataset has lists and a subset; lists choose the classes, so leave subset out")
        if isinstance(subset, str) and subset not in SUBSETS:
            raise UserError(
                f"subset is {subset!r}{did_you_mean(subset, SUBSETS)}; use a number of classes, "
                f"{' or '.join(map(repr, SUBSETS))}, or a list of synset ids"
            )
        self.root, self.name, self.fit, self.subset = Path(root), name, Fit.of(fit), subset
        self.folders = {"train": train_folder, "test": test_folder}
        self.lists = {"train": train_list, "test": test_list}
        self._tables: dict[str, ImageTable] = {}
        self._classes: tuple[str, ...] | None = None

    def train(self) -> ImageTable:
        """The training images.

        Raises:
            UserError: a folder or list is missing or unusable, or a synset of the subset is not there.
        """
        return self._table("train")

    def test(self) -> ImageTable:
        """The validation images. Raises as :meth:`train`."""
        return self._table("test")

    def _table(self, split: str) -> ImageTable:
        if split not in self._tables:
            listed = self.lists[split]
            check_root(self.root, CONTENTS if listed is None else f"what the list {listed} names")
            if listed is None:
                classes = self._synsets()
                folder = self.root / self.folders[split]
                class_folders(folder)
                files, labels_N = read_folders(folder, classes)
            else:
                files, labels_N = self._read_list(self.root / listed)
                classes = self._listed_classes()
                if len(labels_N) and labels_N.max() >= len(classes):
                    raise UserError(
                        f"{self.root / listed} has the label {labels_N.max()}, but the training list has labels 0 to "
                        f"{len(classes) - 1}; use two lists of the same classes"
                    )
            self._tables[split] = file_table(self.folders[split], classes, files, labels_N, self.root, self.fit)
        return self._tables[split]

    def _synsets(self) -> tuple[str, ...]:
        folder = self.root / self.folders["train"]
        there = class_folders(folder)
        if isinstance(self.subset, int):
            if isinstance(self.subset, bool) or not 0 < self.subset <= len(there):
                raise UserError(
                    f"subset is {self.subset!r}, but folder {folder} has {len(there)} classes; expected a number from "
                    f"1 to {len(there)}"
                )
            return there[: self.subset]
        return choose_classes(there, SUBSETS[self.subset] if isinstance(self.subset, str) else self.subset, folder)

    def _read_list(self, path: Path) -> tuple[list[Path], np.ndarray]:
        files, labels = [], []
        for number, line in enumerate(read_lines(path, "a relative path and a label a line"), 1):
            name, _, label = line.rpartition(" ")
            if not name or not (label.isascii() and label.isdigit() and len(label) < 10):
                raise UserError(
                    f"{path}, line {number}, is {line[:80]!r}; expected a relative path, a space and a label of 0 or "
                    "more, so correct it"
                )
            relative = PurePosixPath(name.strip())
            if relative.is_absolute() or ".." in relative.parts:
                raise UserError(
                    f"{path}, line {number}, names {name[:80]!r}; expected a path inside {self.root}, so correct it"
                )
            files.append(self.root / relative)
            labels.append(int(label))
        return files, np.asarray(labels, np.int64)

    def _listed_classes(self) -> tuple[str, ...]:
        """Class names by label, from the folders of the training list."""
        if self._classes is None:
            path = self.root / str(self.lists["train"])
            files, labels_N = self._read_list(path)
            count = int(labels_N.max()) + 1
            missing = np.setdiff1d(np.arange(min(count, len(files) + 1)), labels_N)
            if len(missing):
                raise UserError(
                    f"{path} has labels up to {count - 1} but no image of label {missing[0]}; expected labels 0 to "
                    "C - 1 without gaps, so number the classes again"
                )
            folders: list[set[str]] = [set() for _ in range(count)]
            for file, label in zip(files, labels_N, strict=True):
                folders[label].add(file.parent.name)
            names = [names.copy().pop() for names in folders]
            plain = all(len(found) == 1 for found in folders) and len(set(names)) == count
            self._classes = tuple(names) if plain else tuple(str(label) for label in range(count))
        return self._classes
