"""PASCAL VOC 2007, and own data in VOC's layout, as image-level labels (KRT official behaviour)."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlcil.datasets.table import ImageTable, check_root
from mlcil.errors import UserError
from mlcil.files import check_regular
from mlcil.protocols import VOC_CLASSES, check_option, did_you_mean

DIFFICULT = ("negative", "positive", "ignore")
#: accepted endings of image files, the preferred one first
EXTENSIONS = (".jpg", ".jpeg", ".png")
LAYOUTS = ("", "VOCdevkit/VOC2007", "VOC2007")


def load_voc_split(
    root: str | Path, split: str, *, classes: Sequence[str] = VOC_CLASSES, difficult: str = "negative"
) -> ImageTable:
    """Read a list of ``ImageSets/Main`` and the annotations of its images.

    Every listed image is a row, in the order of the list; blank lines are skipped. A last line without
    newline is kept, where the official KRT code loses it (no effect on the files VOC ships).

    Args:
        root: folder with ``ImageSets/Main``, ``Annotations`` and ``JPEGImages``, or one that holds it as
            ``VOCdevkit/VOC2007`` or ``VOC2007``.
        split: name of the list without ``.txt``.
        classes: names of the columns.
        difficult: what a class does that has only objects marked difficult on an image. ``negative`` (KRT
            official behaviour): label 0 and the image is not selected; ``positive``: like any other object;
            ``ignore``: label -1 and the image is not selected.

    Returns:
        A table with the listed names as ids.

    Raises:
        UserError: the folder, the list, an annotation or an image is missing; the list is empty or names an
            image twice; an annotation is broken; or an object's class is not in ``classes``.
    """
    check_option("difficult", difficult, DIFFICULT)
    return _table(read_split(find_root(Path(root)), split), _checked_classes(classes), difficult)


@dataclass(frozen=True)
class VocSplit:
    """A list as read: names, image files, and per image {class name: all its objects are difficult}."""

    name: str
    ids: tuple[str, ...]
    files: tuple[Path, ...]
    annotations: tuple[Path, ...]
    objects: tuple[dict[str, bool], ...]

    def object_names(self) -> set[str]:
        return set().union(*self.objects)


def find_root(root: Path, official: bool = True) -> Path:
    """The folder that holds ``ImageSets/Main``: the given one or VOC's own inside it.

    Args:
        root: the given one.
        official: it should hold VOC 2007 itself, which can be downloaded.

    Raises:
        UserError: there is none.
    """
    check_root(
        root, "ImageSets/Main, Annotations and JPEGImages (or VOCdevkit/VOC2007 with them)", "voc2007" * official
    )
    for layout in LAYOUTS:
        if (root / layout / "ImageSets" / "Main").is_dir():
            return root / layout
    raise UserError(
        f"data folder {root} has no ImageSets/Main; expected the folders ImageSets/Main, Annotations and "
        "JPEGImages in "
        "it, in its VOCdevkit/VOC2007 or in its VOC2007, so set scenario.dataset.root to the unpacked VOC folder"
    )


def read_split(root: Path, split: str) -> VocSplit:
    """A list of a folder that :func:`find_root` gave. Raises as :func:`load_voc_split`."""
    ids = _read_list(root, split)
    images = _image_files(root / "JPEGImages", root / "ImageSets" / "Main" / f"{split}.txt", ids)
    annotations = tuple(root / "Annotations" / f"{name}.xml" for name in ids)
    objects = tuple(_read_objects(path) for path in annotations)
    return VocSplit(split, ids, images, annotations, objects)


def _read_list(root: Path, split: str) -> tuple[str, ...]:
    folder = root / "ImageSets" / "Main"
    path = folder / f"{split}.txt"
    if not path.is_file():
        lists = sorted(entry.stem for entry in folder.glob("*.txt"))
        plain = [name for name in lists if "_" not in name] or lists
        there = f"{', '.join(plain[:6])}" if lists else "no list"
        raise UserError(
            f"list {path} does not exist{did_you_mean(split, lists)}; expected a text file with one image "
            "name a line, "
            f"but the folder has {there}, so add the list or choose another split"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"list {path} cannot be read ({error}); expected UTF-8 text with one image name a line, so write it again"
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"list {path} is empty; expected one image name a line, so fill it or choose another split")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(
                f"list {path} names the image {name!r} {names.count(name)} times; expected every image "
                "once, so remove "
                "the repeated lines"
            )
        if "/" in name or "\\" in name or "\0" in name:
            raise UserError(
                f"list {path} names {name!r}; expected the plain name of an image in JPEGImages without folder, so "
                "correct that line"
            )
        seen.add(name)
    return tuple(names)


def _image_files(folder: Path, list_path: Path, names: Sequence[str]) -> tuple[Path, ...]:
    try:
        listing = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(
            f"image folder {folder} cannot be listed ({error.strerror}); expected the images that "
            f"{list_path} names in "
            "it, so put or link them there"
        ) from error
    file_of: dict[str, str] = {}
    for extension in reversed(EXTENSIONS):
        file_of.update({os.path.splitext(f)[0]: f for f in listing if f.lower().endswith(extension)})
    missing = [name for name in names if name not in file_of]
    if missing:
        first = missing[0]
        hint = ""
        if first.split()[0] in file_of:
            hint = " (the line has more than the image's name; a list of one class has a second column)"
        elif os.path.splitext(first)[0] in file_of:
            hint = " (names stand without ending)"
        raise UserError(
            f"list {list_path} names {len(missing)} of {len(names)} images that are not in {folder}, the first is "
            f"{first!r}{hint}; expected a file with that name and one of {', '.join(EXTENSIONS)}, so add "
            "the images or "
            "correct the list"
        )
    return tuple(folder / file_of[name] for name in names)


def _read_objects(path: Path) -> dict[str, bool]:
    """Class name -> whether all its objects are difficult; only an object's own fields count."""
    check_regular(path)
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise UserError(
            f"annotation {path} does not exist; expected a VOC xml for every listed image, so add it or "
            "remove the image "
            "from the list"
        ) from error
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise UserError(
            f"annotation {path} is not complete xml ({error}); expected a VOC annotation, so unpack or write it again"
        ) from error
    except OSError as error:
        raise UserError(
            f"annotation {path} cannot be read ({error.strerror}); expected a readable VOC xml, so check "
            "its permissions"
        ) from error
    if root.tag != "annotation":
        raise UserError(
            f"annotation {path} has the root element <{root.tag}>; expected <annotation> as VOC writes it, "
            "so convert it"
        )
    found: dict[str, bool] = {}
    for number, element in enumerate(root.findall("object"), 1):
        name = (element.findtext("name") or "").strip()
        if not name:
            raise UserError(f"annotation {path}: object {number} has no name; expected <name>, so add it")
        flag = (element.findtext("difficult") or "0").strip() or "0"
        if flag not in ("0", "1"):
            raise UserError(
                f"annotation {path}: object {number} has difficult {flag!r}; expected 0 or 1, so correct it"
            )
        found[name] = found.get(name, True) and flag == "1"
    return found


def _checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    if isinstance(classes, str) or not classes or not all(isinstance(name, str) and name for name in classes):
        raise UserError(f"classes is {classes!r}; expected a list of at least one class name")
    if len(set(classes)) != len(classes):
        twice = next(name for name in classes if list(classes).count(name) > 1)
        raise UserError(f"classes names {twice!r} twice; name every class exactly once")
    return tuple(classes)


def _table(split: VocSplit, classes: tuple[str, ...], difficult: str) -> ImageTable:
    column_of = {name: column for column, name in enumerate(classes)}
    unknown = [
        (name, path) for path, found in zip(split.annotations, split.objects, strict=True) for name in found
        if name not in column_of
    ]  # fmt: skip
    if unknown:
        name, path = unknown[0]
        raise UserError(
            f"annotation {path} has an object of class {name!r}, which is none of the {len(classes)} classes"
            f"{did_you_mean(name, classes)} (split {split.name!r}, {len({p for _, p in unknown})} such "
            "images); expected "
            "known classes only, so correct the annotation or list the class in scenario.dataset.classes"
        )
    labels_NC = np.zeros((len(split.ids), len(classes)), np.int8)
    selects_NC = np.zeros((len(split.ids), len(classes)), np.bool_)
    only_difficult = {"negative": 0, "positive": 1, "ignore": -1}[difficult]
    for row, found in enumerate(split.objects):
        for name, hard in found.items():
            label = only_difficult if hard else 1
            labels_NC[row, column_of[name]] = label
            selects_NC[row, column_of[name]] = label == 1
    return ImageTable(split.name, classes, split.ids, split.files, labels_NC, selects_NC)


class VocDataset:
    """PASCAL VOC 2007, or own data in the same layout; files are read at the first :meth:`train` or :meth:`test`.

    Args:
        root: see :func:`load_voc_split`.
        train_split, test_split: lists of ``ImageSets/Main`` without ``.txt``.
        difficult: see :func:`load_voc_split`.
        classes: names of the columns; ``None`` takes VOC's 20 when the training annotations have no other
            name, else the names found there, sorted.
        label_cardinality: mean number of labels an image over all classes, a prior that KRT's pseudo-label
            search uses; ``None`` when unknown.
        name: name of the data set in logs and in the protocol hash.

    Raises:
        UserError: an unknown ``difficult`` or unusable ``classes``.
    """

    def __init__(
        self,
        root: str | Path,
        train_split: str = "trainval",
        test_split: str = "test",
        difficult: str = "negative",
        classes: Sequence[str] | None = None,
        label_cardinality: float | None = None,
        name: str = "voc",
    ) -> None:
        check_option("difficult", difficult, DIFFICULT)
        self.root, self.name, self.difficult, self.label_cardinality = Path(root), name, difficult, label_cardinality
        self.train_split, self.test_split = train_split, test_split
        self._classes = None if classes is None else _checked_classes(classes)
        self._train: ImageTable | None = None
        self._test: ImageTable | None = None

    def train(self) -> ImageTable:
        """The training split.

        Raises:
            UserError: the folder or a file is missing or unusable, see :func:`load_voc_split`.
        """
        if self._train is None:
            split = read_split(find_root(self.root, self.name == "voc"), self.train_split)
            classes = self._classes
            if classes is None:
                found = split.object_names()
                if not found:
                    raise UserError(
                        f"{split.annotations[0].parent} has no object on any of the {len(split.ids)} images "
                        "of the split "
                        f"{split.name!r}; expected annotated objects, so annotate the images or choose another split"
                    )
                classes = VOC_CLASSES if found <= set(VOC_CLASSES) else tuple(sorted(found))
            self._train = _table(split, classes, self.difficult)
        return self._train

    def test(self) -> ImageTable:
        """The test split with the training split's columns.

        Raises:
            UserError: as :meth:`train`, or the test split has a class that the training split does not have.
        """
        if self._test is None:
            split = read_split(find_root(self.root, self.name == "voc"), self.test_split)
            self._test = _table(split, self.train().classes, self.difficult)
        return self._test
