"""COCO 2014, and own data in COCO's instances format, as image-level labels (KRT official behaviour)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from mlcil.datasets.table import ImageTable, check_root
from mlcil.errors import UserError
from mlcil.protocols import check_option, did_you_mean

CROWD = ("select", "label", "ignore")
_KEYS = ("images", "annotations", "categories")


def load_coco_split(
    annotation_file: str | Path,
    image_dir: str | Path,
    *,
    crowd: str = "select",
    classes: Sequence[str] | None = None,
) -> ImageTable:
    """Read an instances json.

    Every image of the json is a row, sorted by image id; images without annotations are selected by no
    class. Size and area of objects are not used.

    Args:
        annotation_file: json with ``images``, ``annotations`` and ``categories``.
        image_dir: folder to which ``file_name`` is relative; it is not looked at here.
        crowd: what an annotation with ``iscrowd`` 1 does. ``select`` (KRT official behaviour): it makes the
            image part of the class's sessions but is no label, so a target can be all zero; ``label``: it
            counts like any other; ``ignore``: it does nothing.
        classes: names of the columns; ``None`` takes the categories in ascending category id. When given,
            they must be the file's categories in any order.

    Returns:
        A table with labels 0 and 1 and integer ids.

    Raises:
        UserError: the file is missing, empty, cut off or no instances json; an annotation names an unknown
            image or category; ids or names occur twice; a ``file_name`` leaves ``image_dir``; or
            ``classes`` are not the file's categories.
    """
    check_option("crowd", crowd, CROWD)
    path, image_dir = Path(annotation_file), Path(image_dir)
    content = _read(path)
    class_of_category = _categories(path, content)
    columns = _columns(path, tuple(class_of_category.values()), classes)
    files = _images(path, content, image_dir)
    row_of = {image: row for row, image in enumerate(files)}
    column_of_name = {name: column for column, name in enumerate(columns)}
    column_of = {category: column_of_name[name] for category, name in class_of_category.items()}

    rows_A, columns_A, crowd_A = _annotations(path, content, row_of, column_of)
    labels_NC = np.zeros((len(files), len(columns)), np.int8)
    selects_NC = np.zeros((len(files), len(columns)), np.bool_)
    given_A = np.ones_like(crowd_A) if crowd == "label" else ~crowd_A
    chosen_A = ~crowd_A if crowd == "ignore" else np.ones_like(crowd_A)
    labels_NC[rows_A[given_A], columns_A[given_A]] = 1
    selects_NC[rows_A[chosen_A], columns_A[chosen_A]] = True
    return ImageTable(path.stem, columns, tuple(files), tuple(files.values()), labels_NC, selects_NC)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(
            f"annotation file {path} does not exist; expected a COCO instances json there, so put it there "
            "or set its "
            "name in scenario.dataset (docs/data.md says where to get it; `--demo` runs without it)"
        )
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as error:
        raise UserError(
            f"annotation file {path} cannot be read ({error.strerror}); expected a readable COCO instances json, "
            "so check its type and permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"annotation file {path} is not UTF-8 text (byte {error.start}); expected a COCO instances json, so "
            "unpack it if it is compressed, or download it again"
        ) from error
    if not text.strip():
        raise UserError(f"annotation file {path} is empty; expected a COCO instances json, so download it again")
    try:
        content = json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno} column {error.colno}"
        found = (
            "ends too early" if error.pos >= len(text.rstrip()) - 1 or "Unterminated" in error.msg else "is not json"
        )
        raise UserError(
            f"annotation file {path} {found} ({error.msg} at {at}); expected a complete COCO instances json, so "
            "download or write it again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"annotation file {path} is not usable json ({error}); expected a COCO instances json, so write it again"
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f"annotation file {path} holds a json {type(content).__name__}; expected an object with the keys "
            f"{', '.join(_KEYS)}, so use an instances file"
        )
    absent = [key for key in _KEYS if key not in content]
    if absent:
        hint = " (a caption or test-info file has other keys)" if "annotations" in absent or "info" in content else ""
        raise UserError(
            f"annotation file {path} lacks {', '.join(map(repr, absent))}; expected the keys "
            f"{', '.join(_KEYS)}, so use "
            f"an instances file{hint}"
        )
    for key in _KEYS:
        _check_entries(path, key, content[key])
    return content


def _no_number(word: str) -> float:
    raise ValueError(f"it holds the value {word}, which is no number of json; correct or remove that entry")


def _check_entries(path: Path, key: str, entries: object) -> None:
    if not isinstance(entries, list):
        raise UserError(
            f"{path}: {key!r} is a json {type(entries).__name__}; expected a list of objects, so use an instances file"
        )
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise UserError(
                f"{path}: entry {place} of {key!r} is {_short(entry)}; expected an object, so correct that entry"
            )


def _categories(path: Path, content: Mapping[str, Any]) -> dict[int, str]:
    """Category id -> name, ascending id."""
    found: dict[int, str] = {}
    for place, entry in enumerate(content["categories"]):
        category = _integer(path, "categories", place, entry, "id")
        name = entry.get("name")
        if not isinstance(name, str) or not name.strip() or not _is_text(name):
            raise UserError(
                f"{path}: category {category} has the name {_short(name)}; expected a non-empty text, so name it"
            )
        if category in found:
            raise UserError(f"{path}: two categories have the id {category}; expected every id once, so renumber one")
        if name in found.values():
            raise UserError(f"{path}: two categories are named {name!r}; expected every name once, so rename one")
        found[category] = name
    if not found:
        raise UserError(f"{path}: 'categories' is empty; expected at least one category, so use an instances file")
    return dict(sorted(found.items()))


def _columns(path: Path, names: tuple[str, ...], classes: Sequence[str] | None) -> tuple[str, ...]:
    if classes is None:
        return names
    for name in names:
        if name not in classes:
            raise UserError(
                f"{path} has the category {name!r}, which is none of the {len(classes)} expected classes"
                f"{did_you_mean(name, classes)}; use files with the same categories for training and testing"
            )
    for name in classes:
        if name not in names:
            raise UserError(
                f"{path} lacks the category {name!r}{did_you_mean(name, names)}; expected the "
                f"{len(classes)} classes of "
                "the training file, so use files with the same categories"
            )
    if len(set(classes)) != len(classes):
        raise UserError("classes names a class twice; name every class exactly once")
    return tuple(classes)


def _images(path: Path, content: Mapping[str, Any], image_dir: Path) -> dict[int, Path]:
    """Image id -> file, ascending id."""
    found: dict[int, Path] = {}
    for place, entry in enumerate(content["images"]):
        image = _integer(path, "images", place, entry, "id")
        if image in found:
            raise UserError(
                f"{path}: two images have the id {image}; expected every id once, so remove or renumber one of them"
            )
        name = entry.get("file_name")
        if not isinstance(name, str) or not name.strip() or not _is_text(name):
            raise UserError(
                f"{path}: image {image} has the file_name {_short(name)}; expected a file name relative to the image "
                "folder, so add it"
            )
        if _leaves_folder(name):
            raise UserError(
                f"{path}: image {image} has the file_name {_short(name)}, which leaves the folder "
                f"{image_dir}; expected "
                "a name inside that folder, so correct it"
            )
        found[image] = image_dir / name
    if not found:
        raise UserError(f"{path}: 'images' is empty; expected at least one image, so use an instances file")
    return dict(sorted(found.items()))


def _is_text(name: str) -> bool:
    """Whether a name can be written: json may hold half of a surrogate pair."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _leaves_folder(name: str) -> bool:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    return "\0" in name or posix.is_absolute() or bool(windows.anchor) or ".." in (*posix.parts, *windows.parts)


def _annotations(
    path: Path, content: Mapping[str, Any], row_of: Mapping[int, int], column_of: Mapping[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row int64 (A), column int64 (A) and crowd flag bool (A) of every annotation."""
    annotations = content["annotations"]
    rows, columns, crowds = [], [], []
    unknown: dict[str, list[tuple[object, int]]] = {"image": [], "category": []}
    for place, entry in enumerate(annotations):
        image, category = entry.get("image_id"), entry.get("category_id")
        if type(image) is not int:
            image = _integer(path, "annotations", place, entry, "image_id")
        if type(category) is not int:
            category = _integer(path, "annotations", place, entry, "category_id")
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise UserError(
                f"{path}: annotation {entry.get('id', place)} has iscrowd {_short(crowd)}; expected 0 or 1, "
                "so correct it"
            )
        if image not in row_of:
            unknown["image"].append((entry.get("id", place), image))
        elif category not in column_of:
            unknown["category"].append((entry.get("id", place), category))
        else:
            rows.append(row_of[image])
            columns.append(column_of[category])
            crowds.append(crowd)
    for kind, found in unknown.items():
        if found:
            first, value = found[0]
            listed = {"image": "images", "category": "categories"}[kind]
            raise UserError(
                f"{path}: {len(found)} of {len(annotations)} annotations name an unknown {kind}, the first "
                "is annotation "
                f"{_short(first)} with {kind}_id {value}; expected ids that {listed!r} lists, so add the "
                f"{kind} or remove "
                "those annotations"
            )
    return np.asarray(rows, np.int64), np.asarray(columns, np.int64), np.asarray(crowds, np.bool_)


def _integer(path: Path, key: str, place: int, entry: Mapping[str, Any], field: str) -> int:
    value = entry.get(field)
    if isinstance(value, bool) or not isinstance(value, int):
        which = f" (id {_short(entry['id'])})" if field != "id" and "id" in entry else ""
        found = f"has {field} {_short(value)}" if field in entry else f"has no {field}"
        raise UserError(
            f"{path}: entry {place} of {key!r}{which} {found}; expected a whole number, so correct that entry"
        )
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class CocoDataset:
    """COCO 2014, or own data in the same layout; files are read at the first :meth:`train` or :meth:`test`.

    Args:
        root: folder with the annotation files and image folders.
        train_annotations, test_annotations: instances json of each split, relative to ``root``.
        train_images, test_images: image folder of each split, relative to ``root``.
        crowd: see :func:`load_coco_split`.
        label_cardinality: mean number of labels an image over all classes, a prior that KRT's pseudo-label
            search uses; ``None`` when unknown.
        name: name of the data set in logs and in the protocol hash.

    Class columns of both splits are the categories of the training file in ascending category id.

    Raises:
        UserError: an unknown ``crowd``.
    """

    def __init__(
        self,
        root: str | Path,
        train_annotations: str = "annotations/instances_train2014.json",
        train_images: str = "train2014",
        test_annotations: str = "annotations/instances_val2014.json",
        test_images: str = "val2014",
        crowd: str = "select",
        label_cardinality: float | None = None,
        name: str = "coco",
    ) -> None:
        check_option("crowd", crowd, CROWD)
        self.root, self.name, self.crowd, self.label_cardinality = Path(root), name, crowd, label_cardinality
        self.train_annotations, self.train_images = train_annotations, train_images
        self.test_annotations, self.test_images = test_annotations, test_images
        self._train: ImageTable | None = None
        self._test: ImageTable | None = None

    def train(self) -> ImageTable:
        """The training split.

        Raises:
            UserError: the folder or the file is missing or unusable, see :func:`load_coco_split`.
        """
        if self._train is None:
            self._train = self._load(self.train_annotations, self.train_images, None)
        return self._train

    def test(self) -> ImageTable:
        """The test split with the training split's columns.

        Raises:
            UserError: as :meth:`train`, or the categories of the two files differ.
        """
        if self._test is None:
            self._test = self._load(self.test_annotations, self.test_images, self.train().classes)
        return self._test

    def _load(self, annotations: str, images: str, classes: tuple[str, ...] | None) -> ImageTable:
        check_root(self.root, f"{self.train_annotations} and {self.test_annotations}")
        return load_coco_split(self.root / annotations, self.root / images, crowd=self.crowd, classes=classes)
