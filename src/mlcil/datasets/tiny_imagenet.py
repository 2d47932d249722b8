"""Tiny-ImageNet-200 in its official layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mlcil.datasets.folder import file_table, read_folders, read_lines
from mlcil.datasets.table import ImageTable, check_root
from mlcil.errors import UserError
from mlcil.images import Fit
from mlcil.protocols import check_option, did_you_mean

FOLDER = "tiny-imagenet-200"


class TinyImageNetDataset:
    """Tiny-ImageNet-200: the training images, and the validation images as the test split.

    Files are read at the first :meth:`train` or :meth:`test`.

    Args:
        root: folder with ``wnids.txt``, ``train/<wnid>/images`` and ``val/val_annotations.txt``, or one that holds it
            as ``tiny-imagenet-200``.
        class_ids: what the class order ``as_given`` is, and hence what a seeded order shuffles: ``wnids``, the lines
            of ``wnids.txt`` (R-DFCIL), or ``sorted`` (ABD).
        names: class names are ``wnid`` or ``words``, the first word of ``words.txt``.
        fit: how images become squares, see :class:`~mlcil.images.Fit`.
        name: the name in logs and in the protocol hash.

    Raises:
        UserError: an unknown word.
    """

    task = "single_label"
    label_cardinality = 1.0

    def __init__(
        self,
        root: str | Path,
        class_ids: str = "wnids",
        names: str = "wnid",
        fit: str | Mapping[str, object] = "square",
        name: str = "tiny_imagenet",
    ) -> None:
        check_option("class_ids", class_ids, ("wnids", "sorted"))
        check_option("names", names, ("wnid", "words"))
        self.root, self.name, self.fit = Path(root), name, Fit.of(fit)
        self.class_ids, self.names = class_ids, names
        self._tables: dict[str, ImageTable] = {}

    def train(self) -> ImageTable:
        """The 100,000 training images.

        Raises:
            UserError: a folder or list is missing or unusable.
        """
        if "train" not in self._tables:
            root, wnids = self._find()
            files, labels_N = read_folders(root / "train", wnids, inside="images")
            self._tables["train"] = file_table("train", self._names(root, wnids), files, labels_N, root, self.fit)
        return self._tables["train"]

    def test(self) -> ImageTable:
        """The 10,000 validation images. Raises as :meth:`train`."""
        if "test" not in self._tables:
            root, wnids = self._find()
            path = root / "val" / "val_annotations.txt"
            column_of = {wnid: column for column, wnid in enumerate(wnids)}
            files, labels = [], []
            for number, line in enumerate(read_lines(path, "an image name and a class a line"), 1):
                image, *more = line.split("\t")
                if not more or more[0] not in column_of:
                    found = f"the class {more[0]!r}{did_you_mean(more[0], wnids)}" if more else "no class"
                    raise UserError(
                        f"{path}, line {number}, gives {image!r} {found}; expected one of the {len(wnids)} classes of "
                        "wnids.txt behind a tab, so correct it or download it again"
                    )
                files.append(root / "val" / "images" / image)
                labels.append(column_of[more[0]])
            self._tables["test"] = file_table(
                "val", self._names(root, wnids), files, np.asarray(labels, np.int64), root, self.fit
            )
        return self._tables["test"]

    def _find(self) -> tuple[Path, tuple[str, ...]]:
        """The folder with ``wnids.txt``, and the class ids in order."""
        check_root(self.root, "wnids.txt, train/ and val/ of Tiny-ImageNet", "tiny-imagenet-200")
        root = next((r for r in (self.root, self.root / FOLDER) if (r / "wnids.txt").is_file()), self.root)
        wnids = read_lines(root / "wnids.txt", "one class id a line")
        if len(set(wnids)) != len(wnids):
            twice = next(wnid for wnid in wnids if wnids.count(wnid) > 1)
            raise UserError(f"{root / 'wnids.txt'} names {twice!r} twice; expected every class once, so correct it")
        return root, tuple(wnids if self.class_ids == "wnids" else sorted(wnids))

    def _names(self, root: Path, wnids: tuple[str, ...]) -> tuple[str, ...]:
        if self.names == "wnid":
            return wnids
        path = root / "words.txt"
        lines = read_lines(path, "a class id and words a line")
        words = {wnid: text.split(",")[0].strip() for wnid, _, text in (line.partition("\t") for line in lines)}
        named = [words.get(wnid) or wnid for wnid in wnids]
        return tuple(n if named.count(n) == 1 else f"{n} ({w})" for n, w in zip(named, wnids, strict=True))
