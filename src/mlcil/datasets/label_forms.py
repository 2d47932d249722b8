"""Labels of photos in the forms that people have them in. A reader says what a file or folder lists, nothing more.

====================  ================================================================================================
table                 CSV or TSV with a column ``file`` and either ``labels`` (a list with ``;``, ``|`` or ``,``) or a
                      column a label (1, 0, blank for unknown); ``reviewed`` and ``split`` may stand beside them
JSON lines            ``{"file": ..., "labels": [...]}`` with the same keys, one object a line or in one list
Label Studio          the JSON export: the choices that were ticked, and the labels of boxes and regions
COCO                  an instances json
VOC                   a folder with ``ImageSets/Main``, ``Annotations`` and ``JPEGImages``
folders               ``folder/<label>/``, a photo in each of its labels' folders; or ``train/`` and ``test/`` with them
keywords              the keywords inside photos (XMP ``dc:subject``, IPTC 2:25)
====================  ================================================================================================
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from PIL import Image, IptcImagePlugin

from mlcil.datasets.coco import load_coco_split
from mlcil.datasets.voc import LAYOUTS, find_root, read_split
from mlcil.errors import UserError
from mlcil.files import check_regular
from mlcil.images import FORMATS, IMAGE_SUFFIXES, images_below
from mlcil.protocols import check_option

FILE_WORDS = ("file", "filename", "file_name", "image", "photo", "path")
LABEL_WORDS = ("labels", "label", "tags", "keywords")
REVIEWED_WORDS = ("reviewed", "reviewed_labels")
SPLITS = {"": "", "train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS.update(dict.fromkeys(("val", "valid", "validation"), "val"))
YES, NO, UNKNOWN = ("1", "1.0", "yes", "true"), ("0", "0.0", "no", "false"), ("", "-1", "-1.0", "nan", "?", "unknown")
ALL = "all"
FORMS_OF_FOLDERS = ("folders", "keywords")
EXPECTED = (
    "expected a CSV or TSV file with a column 'file', JSON lines, a COCO or Label Studio json, a VOC folder, a folder "
    "with a folder a label, or a folder of photos with keywords"
)
_RDF, _DC = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}", "{http://purl.org/dc/elements/1.1/}"
_KEYWORDS_OF_IPTC = (2, 25)
_XMP_OF_TIFF = 700


@dataclass(frozen=True)
class Listed:
    """A photo as it is listed.

    Attributes:
        file: relative to the listing's folder, or absolute.
        yes, no: labels that it is said to show and not to show.
        reviewed: labels that somebody has looked for on it; ``None`` is all that the listing names.
        split: ``train``, ``test``, ``val`` or empty.
    """

    file: str
    yes: frozenset[str]
    no: frozenset[str] = frozenset()
    reviewed: frozenset[str] | None = frozenset()
    split: str = ""


@dataclass(frozen=True)
class Listing:
    """What a file or folder lists.

    Attributes:
        form: in words.
        folder: where relative names of photos start.
        photos: in the order of the file.
        classes: labels in an order of the form's own; without it they are sorted.
        exhaustive: by convention of the form a label that is not named is absent.
        by_name: a photo may be looked for by its plain name anywhere below the folder.
        notes: sentences about what was understood.
    """

    form: str
    folder: Path
    photos: list[Listed]
    classes: tuple[str, ...] = ()
    exhaustive: bool = False
    by_name: bool = False
    notes: tuple[str, ...] = ()


def read_form(path: Path, photos: Path | None = None, form: str | None = None) -> Listing:
    """Read labels in whatever form they are.

    Args:
        path: a file or folder.
        photos: where the photos lie; without it they lie beside the file.
        form: ``folders`` or ``keywords``, of a folder that could be both.

    Raises:
        UserError: no such path, no form that is known, or contents that do not fit the form.
    """
    check_option("form", form or "folders", FORMS_OF_FOLDERS)
    if path.is_dir():
        if form is None and any((path / layout / "ImageSets/Main").is_dir() for layout in LAYOUTS):
            return _voc(path)
        if form is None and (parts := sorted(path.glob("annotations/instances_*.json"))):
            return _coco_folder(path, parts)
        return _folder(path, form)
    if not path.exists():
        raise UserError(f"{path} does not exist; {EXPECTED}, so correct the path")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise UserError(f"{path} is a photo; {EXPECTED}, so give the list of its labels or its folder")
    text = _text(path)
    folder = path.parent if photos is None else photos
    start = text.lstrip()[:1]
    if start not in ("{", "["):
        return _table(path, text, folder)
    content = _json(path, text)
    if isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys():
        return _coco(path, folder)
    objects = [content] if isinstance(content, dict) else content
    if objects and all(isinstance(entry, dict) and isinstance(entry.get("data"), dict) for entry in objects):
        return _label_studio(path, objects, folder)
    return _objects(path, objects, folder)


def _text(path: Path) -> str:
    check_regular(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); {EXPECTED}, so check its type and rights"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}); {EXPECTED}, so save it again as 'CSV UTF-8'"
        ) from error
    if not text.strip() or "\0" in text:
        raise UserError(f"{path} {'holds bytes of 0' if text.strip() else 'is empty'}; {EXPECTED}, so write it again")
    return text


def _json(path: Path, text: str) -> Any:
    """One value, or a list of those of all lines."""
    content, wrong = _parsed(text)
    if not wrong:
        return content
    lines = [(number, *_parsed(line)) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    bad = [f"line {number}: {reason}" for number, _, reason in lines if reason]
    if not bad:
        return [value for _, value, _ in lines]
    reason = wrong if lines[0][2] else bad[0]  # a file whose first line is complete has an object a line
    raise UserError(f"{path} is no complete json ({reason}); expected one json or an object a line, so write it again")


def _parsed(text: str) -> tuple[Any, str]:
    """A value, and why there is none."""
    try:
        return json.loads(text), ""
    except (ValueError, RecursionError) as error:
        return None, " ".join(str(error).split())


# -- tables -------------------------------------------------------------------------------------------------


def _table(path: Path, text: str, folder: Path) -> Listing:
    first = next(line for line in text.splitlines() if line.strip())
    delimiter = max("\t,;", key=lambda sign: len(next(csv.reader([first], delimiter=sign), [])))
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        filled = [(rows.line_num, [cell.strip() for cell in row]) for row in rows if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: {error}; {EXPECTED}, so write it again") from error
    (_, header), *body = filled
    header = [unicodedata.normalize("NFC", name) for name in header]
    for column, name in enumerate(header, 1):
        if not name:
            raise UserError(f"{path}: column {column} of the first line has no name; name it or remove the column")
        if header.index(name) != column - 1:
            raise UserError(
                f"{path}: the columns {header.index(name) + 1} and {column} are both named {name!r}; expected every "
                "name once, so rename or remove one"
            )
    file_column = _column(header, FILE_WORDS)
    if file_column is None:
        raise UserError(
            f"{path}: the first line names the columns {', '.join(map(repr, header[:5]))}; expected one of them to be "
            "'file' with the names of the photos, so add that line or that column"
        )
    for number, row in body:
        if len(row) > len(header):
            raise UserError(
                f"{path}, line {number}: {len(row)} values under {len(header)} columns; expected no more values than "
                "columns, so put a text that holds the separator into quotes"
            )
        row += [""] * (len(header) - len(row))
        if not row[file_column]:
            raise UserError(f"{path}, line {number}: no name of a photo in the column {header[file_column]!r}; add it")
    spoken = {"\t": "TSV", ",": "CSV", ";": "CSV with ;"}[delimiter]
    return _cells(path, header, body, file_column, spoken, folder)


def _cells(
    path: Path, header: list[str], body: list[tuple[int, list[str]]], file_column: int, spoken: str, folder: Path
) -> Listing:
    lists, reviewed, split = (_column(header, words) for words in (LABEL_WORDS, REVIEWED_WORDS, ("split",)))
    others = [column for column in range(len(header)) if column not in (file_column, lists, reviewed, split)]
    notes: list[str] = []
    divide = _divider([row[column] for _, row in body for column in (lists, reviewed) if column is not None])
    photos = []
    for number, row in body:
        yes, no = [], []
        if lists is not None:
            yes = divide(row[lists])
        else:
            for column in others:
                word = row[column].casefold()
                if word in YES:
                    yes.append(header[column])
                elif word in NO:
                    no.append(header[column])
                elif word not in UNKNOWN:
                    raise UserError(
                        f"{path}, line {number}: {row[column]!r} in the column {header[column]!r}; expected 1, 0 or "
                        "nothing in a column a label (or a column 'labels' with a list), so correct it or remove the "
                        "column"
                    )
        looked = [] if reviewed is None else divide(row[reviewed])
        photos.append(
            Listed(
                row[file_column],
                frozenset(yes),
                frozenset(no),
                None if looked == [ALL] else frozenset(looked),
                _split(path, f"line {number}", "" if split is None else row[split]),
            )
        )
    if lists is None:
        return Listing(f"{spoken}, a column a label", folder, photos, tuple(header[column] for column in others))
    if others:
        notes.append(f"columns that say nothing of labels: {', '.join(header[column] for column in others)}")
    return Listing(f"{spoken}, a list of labels a photo", folder, photos, notes=tuple(notes))


def _column(header: Sequence[str], words: Sequence[str]) -> int | None:
    folded = [name.casefold() for name in header]
    return next((folded.index(word) for word in words if word in folded), None)


def _divider(cells: Iterable[str]) -> Callable[[str], list[str]]:
    """How lists of this file are divided: where ``;`` or ``|`` stands anywhere, a comma belongs to a name."""
    cells = list(cells)
    sign = next((sign for sign in (";", "|") if any(sign in cell for cell in cells)), ",")
    return lambda cell: _names(cell.split(sign))


def _names(words: Iterable[str]) -> list[str]:
    """Labels without blanks around them, in one way of writing accents."""
    return [unicodedata.normalize("NFC", word.strip()) for word in words if word.strip()]


def _split(path: Path, where: str, word: str) -> str:
    if word.strip().casefold() not in SPLITS:
        raise UserError(f"{path}, {where}: the split {word!r}; expected train, test or val, so correct it")
    return SPLITS[word.strip().casefold()]


# -- json ---------------------------------------------------------------------------------------------------


def _objects(path: Path, objects: Any, folder: Path) -> Listing:
    """JSON lines."""
    photos = []
    for number, entry in enumerate(objects, 1):
        where = f"entry {number}"
        if not isinstance(entry, dict):
            raise UserError(f"{path}, {where} is a json {type(entry).__name__}; {EXPECTED}, so correct it")
        file = next((entry[word] for word in FILE_WORDS if word in entry), None)
        key = next((word for word in LABEL_WORDS if word in entry), None)
        if not isinstance(file, str) or not file.strip() or key is None:
            raise UserError(
                f"{path}, {where} has the keys {', '.join(map(repr, list(entry)[:5]))}; expected a text 'file' and a "
                "list 'labels', so correct it"
            )
        yes, no = _said(path, where, entry[key])
        looked = next((entry[word] for word in REVIEWED_WORDS if word in entry), None)
        reviewed: frozenset[str] | None = frozenset()
        if looked == ALL or looked == [ALL]:
            reviewed = None
        elif looked is not None:
            reviewed = frozenset(_said(path, where, looked)[0])
        split = _split(path, where, str(entry.get("split") or ""))
        photos.append(Listed(file.strip(), frozenset(yes), frozenset(no), reviewed, split))
    return Listing("JSON lines", folder, photos)


def _said(path: Path, where: str, labels: Any) -> tuple[list[str], list[str]]:
    """Labels that are said to be there and not to be there."""
    if labels is None:
        return [], []
    if isinstance(labels, Mapping) and all(value is None or value in (0, 1, -1) for value in labels.values()):
        said = {name: value for name, value in labels.items() if value is not None and value >= 0}
        return _names(k for k, value in said.items() if value), _names(k for k, value in said.items() if not value)
    if isinstance(labels, str):
        return _divider([labels])(labels), []
    if isinstance(labels, list):
        words = [label.get("label") if isinstance(label, Mapping) else label for label in labels]
        texts = [word for word in words if isinstance(word, str)]
        if len(texts) == len(words):
            return _names(texts), []
    raise UserError(
        f"{path}, {where}: the labels {json.dumps(labels)[:60]}; expected a list of texts, or an object with 1, 0 or "
        "null a label, so correct it"
    )


def _label_studio(path: Path, tasks: Sequence[Mapping[str, Any]], folder: Path) -> Listing:
    photos = []
    waiting = 0
    for number, task in enumerate(tasks, 1):
        data = task["data"]
        texts = {key: value for key, value in data.items() if isinstance(value, str)}
        url = texts.get("image") or next(
            (v for v in texts.values() if _plain_name(v).lower().endswith(IMAGE_SUFFIXES)), ""
        )
        if not url:
            raise UserError(
                f"{path}, task {task.get('id', number)} has the data {', '.join(map(repr, list(data)[:5]))}; expected "
                "one that names an image, so export an image project"
            )
        given = [entry for entry in task.get("annotations") or () if isinstance(entry, Mapping)]
        given = [entry for entry in given if not entry.get("was_cancelled")]
        if not given:
            waiting += 1
            continue
        yes = [name for entry in given for name in _ticked(entry)]
        photos.append(Listed(_studio_file(url), frozenset(_names(yes))))
    notes = ["Label Studio's export names what was ticked; the rest is unknown, unless somebody has reviewed it"]
    if waiting:
        notes.append(f"{waiting} tasks without an annotation are left out")
    return Listing("Label Studio json", folder, photos, by_name=True, notes=tuple(notes))


def _ticked(annotation: Mapping[str, Any]) -> Iterable[str]:
    """Labels of an annotation: a result of the type ``choices`` holds a list of that name in its value."""
    for result in annotation.get("result") or ():
        values = result.get("value", {}) if isinstance(result, Mapping) else {}
        named = values.get(str(result.get("type"))) if isinstance(values, Mapping) else None
        yield from (name for name in (named if isinstance(named, list) else ()) if isinstance(name, str))


def _studio_file(url: str) -> str:
    """``/data/local-files/?d=a/b.jpg`` names a path, an upload or a web address a file."""
    local = parse_qs(urlsplit(url).query).get("d")
    if local:
        return local[0]
    return _plain_name(url) if "://" in url or url.startswith("/data/") else url


def _plain_name(url: str) -> str:
    return PurePosixPath(unquote(urlsplit(url).path)).name


def without_upload_prefix(name: str) -> str:
    """Label Studio puts eight digits and a dash before the name of an uploaded file."""
    return re.sub(r"^[0-9a-f]{8}-", "", name)


COCO_NOTE = "COCO's convention: an image is annotated for all categories, so what is not named counts as no"


def _coco(path: Path, folder: Path) -> Listing:
    photos, classes = _coco_photos(path, folder, folder)
    return Listing("COCO json", folder, photos, classes, exhaustive=True, by_name=True, notes=(COCO_NOTE,))


def _coco_photos(path: Path, folder: Path, root: Path, split: str = "") -> tuple[list[Listed], tuple[str, ...]]:
    """Photos of a json under their names from ``root`` on, and its categories."""
    table = load_coco_split(path, folder, crowd="label")
    photos = [
        Listed(
            file.relative_to(root).as_posix(),
            frozenset(table.classes[column] for column in row.nonzero()[0]),
            reviewed=None,
            split=split,
        )
        for file, row in zip(table.files, table.labels_NC == 1, strict=True)
    ]
    return photos, table.classes


def _coco_folder(path: Path, parts: Sequence[Path]) -> Listing:
    """COCO's layout: ``annotations/instances_NAME.json`` beside a folder NAME for each split."""
    photos: list[Listed] = []
    classes: tuple[str, ...] = ()
    for part in parts:
        name = part.stem.removeprefix("instances_")
        held = len(parts) > 1 and name.startswith(("val", "test"))
        found, names = _coco_photos(part, path / name, path, "test" if held else "train" if len(parts) > 1 else "")
        photos, classes = [*photos, *found], tuple(dict.fromkeys([*classes, *names]))
    return Listing("COCO folder", path, photos, classes, exhaustive=True, notes=(COCO_NOTE,))


# -- folders ------------------------------------------------------------------------------------------------


def _voc(path: Path) -> Listing:
    root = find_root(path)
    there = {entry.stem for entry in (root / "ImageSets" / "Main").glob("*.txt")}
    train = "trainval" if "trainval" in there else "train"
    held = "test" if "test" in there else "val" if train == "train" and "val" in there else None
    splits = [(read_split(root, name), word) for name, word in ((train, "train"), (held, "test")) if name]
    classes = tuple(sorted(set().union(*(split.object_names() for split, _ in splits))))
    photos = []
    for split, word in splits:
        for file, objects in zip(split.files, split.objects, strict=True):
            hard = {name for name, difficult in objects.items() if difficult}
            yes = frozenset(objects) - hard
            photos.append(Listed(file.name, yes, reviewed=frozenset(classes) - hard, split=word if held else ""))
    note = (
        "VOC's convention: an image is annotated for all classes, so what is not named counts as no; where all objects "
        "of a class are marked difficult it is unknown"
    )
    return Listing("VOC folder", root / "JPEGImages", photos, classes, exhaustive=True, notes=(note,))


def _folder(path: Path, form: str | None) -> Listing:
    files = images_below(path)
    if not files:
        raise UserError(f"folder {path} holds no photo; {EXPECTED}, so correct the path{_list_beside(path)}")
    deep = any(file.parent != path for file in files)
    if (form or ("folders" if deep else "keywords")) == "keywords":
        return _inside(path, files)
    return _folders(path, files)


def _list_beside(path: Path) -> str:
    """A hint to a list of labels in a folder that was read as something else."""
    lists = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl"))
    return f"; do you mean {lists[0]}?" if lists else ""


def _folders(path: Path, files: Sequence[Path]) -> Listing:
    """A folder a label; photos beside the folders carry none."""
    tops = {SPLITS.get(file.relative_to(path).parts[0].casefold(), "") for file in files}
    halves = "train" in tops and bool(tops & {"test", "val"})
    photos = []
    for file in files:
        parts = list(file.relative_to(path).parts)
        split = SPLITS.get(parts[0].casefold(), "") if halves and len(parts) > 1 else ""
        label = parts[1:] if split else parts
        yes = frozenset(_names(label[:1])) if len(label) > 1 else frozenset()
        photos.append(Listed("/".join(parts), yes, split=split))
    sample = files[:: max(len(files) // 20, 1)][:20]
    tagged = sum(bool(keywords(file)) for file in sample)
    notes = [f"{tagged} of {len(sample)} photos hold keywords, which are not read; --form keywords reads them"]
    return Listing("a folder a label", path, photos, by_name=False, notes=tuple(notes if tagged else ()))


def _inside(path: Path, files: Sequence[Path]) -> Listing:
    photos = [Listed(file.relative_to(path).as_posix(), frozenset(_names(keywords(file)))) for file in files]
    if not any(photo.yes for photo in photos):
        raise UserError(
            f"none of the {len(files)} photos in {path} holds a keyword; expected keywords in them, a folder a label, "
            f"or a list of labels{_list_beside(path)}"
        )
    bare = sum(not photo.yes for photo in photos)
    return Listing("keywords inside photos", path, photos, notes=(f"{bare} photos hold no keyword",) if bare else ())


def keywords(path: Path) -> list[str]:
    """The keywords inside a photo, of XMP and IPTC; none where there are none or they cannot be read."""
    try:
        with warnings.catch_warnings(), Image.open(path, formats=FORMATS) as image:
            warnings.simplefilter("ignore")
            xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
            xmp = xmp or getattr(image, "tag_v2", {}).get(_XMP_OF_TIFF)
            iptc = (IptcImagePlugin.getiptcinfo(image) or {}).get(_KEYWORDS_OF_IPTC) or []
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, Image.DecompressionBombError):
        return []
    found = _subjects(xmp.encode() if isinstance(xmp, str) else xmp) if xmp else []
    found += map(_decoded, [iptc] if isinstance(iptc, bytes) else iptc)
    return list(dict.fromkeys(_names(found)))


def _decoded(word: bytes) -> str:
    try:
        return word.decode()
    except UnicodeDecodeError:
        return word.decode("latin-1")


def _subjects(xmp: bytes) -> list[str]:
    """``dc:subject`` of an XMP packet; one with declarations of its own is none."""
    if b"<!DOCTYPE" in xmp or b"<!ENTITY" in xmp:
        return []
    try:
        root = ElementTree.fromstring(xmp.strip(b"\0 \n\r\t"))
    except (ElementTree.ParseError, ValueError, LookupError):
        return []
    return [item.text or "" for subject in root.iter(f"{_DC}subject") for item in subject.iter(f"{_RDF}li")]
