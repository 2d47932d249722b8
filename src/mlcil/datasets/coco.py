"""COCO 2014, and own data in COCO's instances format, as image-level labels (KRT official behaviour)."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

import numpy as np

from mlcil.datasets.table import ImageTable, check_root
from mlcil.errors import DEMO_HINT, UserError
from mlcil.files import check_regular
from mlcil.protocols import check_option, did_you_mean

CROWD = ("select", "label", "ignore")
#: what an entry of a list is called, and its fields that are whole numbers and a text
_SECTIONS = {
    "images": ("image", ("id",), "file_name"),
    "annotations": ("annotation", ("image_id", "category_id"), None),
    "categories": ("category", ("id",), "name"),
}


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
    _check_entries(path, content, image_dir)
    index = _index(path, content)
    images, categories = sorted(index.imgs), sorted(index.cats)
    names = {category: index.cats[category]["name"] for category in categories}
    columns = _columns(path, tuple(names.values()), classes)
    column_of = {category: columns.index(name) for category, name in names.items()}
    labels_NC = np.zeros((len(images), len(columns)), np.int8)
    selects_NC = np.zeros(labels_NC.shape, np.bool_)
    for row, image in enumerate(images):
        for entry in index.imgToAnns.get(image, ()):
            column = column_of[entry["category_id"]]
            if crowd == "label" or not entry["iscrowd"]:
                labels_NC[row, column] = 1
            if crowd != "ignore" or not entry["iscrowd"]:
                selects_NC[row, column] = True
    files = tuple(image_dir / index.imgs[image]["file_name"] for image in images)
    return ImageTable(path.stem, columns, tuple(images), files, labels_NC, selects_NC)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(
            f"annotation file {path} does not exist; expected a COCO instances json there, so put it there "
            f"or set its name in scenario.dataset; docs/data.md says where to get it, and {DEMO_HINT}"
        )
    check_regular(path)
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
            f"{', '.join(_SECTIONS)}, so use an instances file"
        )
    absent = [key for key in _SECTIONS if key not in content]
    if absent:
        hint = " (a caption or test-info file has other keys)" if "annotations" in absent or "info" in content else ""
        raise UserError(
            f"annotation file {path} lacks {', '.join(map(repr, absent))}; expected the keys "
            f"{', '.join(_SECTIONS)}, so use "
            f"an instances file{hint}"
        )
    return content


def _no_number(word: str) -> float:
    raise ValueError(f"it holds the value {word}, which is no number of json; correct or remove that entry")


def _check_entries(path: Path, content: Mapping[str, Any], image_dir: Path) -> None:
    """Refuse entries that the index would fall over, or that would name a file elsewhere."""
    for key, (one, numbers, text) in _SECTIONS.items():
        entries = content[key]
        if not isinstance(entries, list):
            raise UserError(
                f"{path}: {key!r} is a json {type(entries).__name__}; expected a list of objects, so use an instances "
                "file"
            )
        if not entries and text:
            raise UserError(f"{path}: {key!r} is empty; expected at least one {one}, so use an instances file")
        seen: dict[str, set[object]] = {field: set() for field in {"id", "name"} & {*numbers, text}}
        for place, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise UserError(
                    f"{path}: entry {place} of {key!r} is {_short(entry)}; expected an object, so correct that entry"
                )
            for field in numbers:
                if type(entry.get(field)) is not int:
                    _refuse_number(path, key, place, entry, field)
            if text and not _is_text(entry.get(text)):
                raise UserError(
                    f"{path}: {one} {entry['id']} has the {text} {_short(entry.get(text))}; expected a non-empty text, "
                    "so correct it"
                )
            if text == "file_name" and _leaves_folder(entry[text]):
                raise UserError(
                    f"{path}: image {entry['id']} has the file_name {_short(entry[text])}, which leaves the folder "
                    f"{image_dir}; expected a name inside that folder, so correct it"
                )
            if not text and entry.get("iscrowd", 0) not in (0, 1):
                raise UserError(
                    f"{path}: {one} {_short(entry.get('id', place))} has iscrowd {_short(entry['iscrowd'])}; expected "
                    "0 or 1, so correct it"
                )
            for field, values in seen.items():
                if entry[field] in values:
                    how = "have the id" if field == "id" else "are named"
                    raise UserError(
                        f"{path}: two {key} {how} {_short(entry[field])}; expected every {field} once, so change one"
                    )
                values.add(entry[field])


def _index(path: Path, content: Mapping[str, Any]) -> Any:
    """The index of pycocotools over checked entries; of annotations it has what a label needs, with places as ids.

    Raises:
        UserError: an annotation names an image or a category that is not listed.
    """
    from pycocotools.coco import COCO  # only where it is used

    index = COCO()
    kept = [
        {"id": k, "image_id": e["image_id"], "category_id": e["category_id"], "iscrowd": e.get("iscrowd", 0)}
        for k, e in enumerate(content["annotations"])
    ]
    index.dataset = {**content, "annotations": kept}
    with contextlib.redirect_stdout(io.StringIO()):
        index.createIndex()
    for kind, listed, known in (("image", "images", index.imgs), ("category", "categories", index.cats)):
        odd = [entry for entry in kept if entry[f"{kind}_id"] not in known]
        if odd:
            first = content["annotations"][odd[0]["id"]].get("id", odd[0]["id"])
            raise UserError(
                f"{path}: {len(odd)} of {len(kept)} annotations name an unknown {kind}, the first is annotation "
                f"{_short(first)} with {kind}_id {odd[0][f'{kind}_id']}; expected ids that {listed!r} lists, so add "
                f"the {kind} or remove those annotations"
            )
    return index


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


def _is_text(name: object) -> bool:
    """Whether it is a text that can be written: json may hold half of a surrogate pair."""
    if not isinstance(name, str) or not name.strip():
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _leaves_folder(name: str) -> bool:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    return "\0" in name or posix.is_absolute() or bool(windows.anchor) or ".." in (*posix.parts, *windows.parts)


def _refuse_number(path: Path, key: str, place: int, entry: Mapping[str, Any], field: str) -> NoReturn:
    which = f" (id {_short(entry['id'])})" if field != "id" and "id" in entry else ""
    found = f"has {field} {_short(entry[field])}" if field in entry else f"has no {field}"
    raise UserError(f"{path}: entry {place} of {key!r}{which} {found}; expected a whole number, so correct that entry")


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
        check_root(
            self.root, f"{self.train_annotations} and {self.test_annotations}", "coco2014" * (self.name == "coco")
        )
        return load_coco_split(self.root / annotations, self.root / images, crowd=self.crowd, classes=classes)
