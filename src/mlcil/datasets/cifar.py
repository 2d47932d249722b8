"""CIFAR-10 and CIFAR-100 from their python archives, as downloaded or unpacked.

The archives hold pickles. They are read by an unpickler that knows four names of numpy and none that could run
anything, and that makes no numpy object before the reading is over.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlcil.datasets.table import ImageTable, SingleLabelTable, check_root
from mlcil.errors import UserError
from mlcil.files import check_regular
from mlcil.protocols import check_option

SIDE = 32
_AGAIN = "download it again"
LARGEST = 512 * 2**20  # bytes of a member of the archive; the largest official one has 155 MB


@dataclass(frozen=True)
class _Layout:
    """File names, keys, and MD5 sums of the official files."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    labels: Mapping[str, tuple[str, str]]  # kind of label -> (key of the labels, key of the names in meta)
    md5: Mapping[str, str]

    @property
    def download(self) -> str:
        """By which ``mlcil download`` knows it."""
        return self.archive.partition("-python")[0].replace("-", "")


LAYOUTS = {
    "cifar10": _Layout(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        ("test_batch",),
        "batches.meta",
        {"fine": ("labels", "label_names")},
        {
            "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        },
    ),
    "cifar100": _Layout(
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        ("train",),
        ("test",),
        "meta",
        {"fine": ("fine_labels", "fine_label_names"), "coarse": ("coarse_labels", "coarse_label_names")},
        {
            "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
    ),
}


# -- pickles --------------------------------------------------------------------------------------------------


class _Dtype:
    """Stands for ``numpy.dtype`` while reading."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = _text(code)

    def __setstate__(self, state: object) -> None:
        """What a pickle says of a plain number type adds nothing to its code."""


class _Array:
    """Stands for ``numpy.ndarray`` while reading."""

    raw: bytes | str = b""
    shape: tuple[int, ...] = ()
    code = ""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or fortran:
            raise pickle.UnpicklingError("an array that is no plain array of numbers")
        self.shape, self.code, self.raw = tuple(int(n) for n in shape), dtype.code, raw

    def array(self) -> np.ndarray:
        """The real thing; raises ``ValueError`` or ``TypeError`` when type, shape and bytes do not agree."""
        if not re.fullmatch(r"[<>|=]?[biuf][1248]", self.code):
            raise ValueError(f"an array of type {self.code!r}")
        raw = self.raw.encode("latin1") if isinstance(self.raw, str) else self.raw
        return np.frombuffer(raw, np.dtype(self.code)).reshape(self.shape)


def _empty(kind: object, shape: object, code: object) -> _Array:
    """In place of numpy's ``_reconstruct``."""
    del kind, shape, code
    return _Array()


def _from_buffer(raw: Any, dtype: _Dtype, shape: Any, order: object) -> _Array:
    """In place of numpy's ``_frombuffer`` (pickle protocol 5)."""
    array = _Array()
    array.__setstate__((1, shape, dtype, order != "C", bytes(raw)))
    return array


def _encode(text: str, encoding: str) -> bytes:
    """In place of ``_codecs.encode``, by which Python 3 writes bytes in old protocols."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the encoding {encoding!r}")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _empty for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    """Builtins and arrays only: every other name stops the reading before anything of it runs."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise _ForbiddenError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _ForbiddenError("an outside object")


class _ForbiddenError(Exception):
    """A pickle names something that is neither a builtin nor an array."""


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def load_batch(content: bytes, where: str) -> dict[str, Any]:
    """Read a pickled dictionary of the archives; nothing in it is run.

    Args:
        content: the bytes of the file.
        where: its name, for messages.

    Returns:
        Values by name; arrays as numpy arrays, whether keys and strings were written by Python 2 or 3.

    Raises:
        UserError: cut off, no pickle, of other content, or with a name that is not of an array.
    """
    try:
        loaded = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        if not isinstance(loaded, dict):
            raise UserError(f"{where} holds a {type(loaded).__name__}; expected a dictionary as CIFAR's archives have")
        return {_text(key): v.array() if isinstance(v, _Array) else v for key, v in loaded.items()}
    except _ForbiddenError as error:
        raise UserError(
            f"{where} holds code ({error}), which is not run; expected a dictionary of arrays and lists as CIFAR's "
            "archives have, so download it again from a place that you trust"
        ) from None
    except UserError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{where} is damaged or no pickle ({reason}; {len(content)} bytes); expected a file of CIFAR's python "
            "archive, so download it again"
        ) from error


# -- files ----------------------------------------------------------------------------------------------------


class _Files:
    """The files of the data set, from a folder or straight from the archive.

    Args:
        root: see :class:`CifarDataset`.
        layout: what the files are called.
        verify: compare them with the official sums.
        names: those that are wanted; of an archive they are read here, in one pass.
    """

    def __init__(self, root: Path, layout: _Layout, verify: bool, names: Sequence[str]) -> None:
        self.layout, self.verify = layout, verify
        self.where = root
        self.members: dict[str, bytes] | None = None
        archive = root
        if not root.is_file():
            check_root(root, f"{layout.folder}/ or {layout.archive}", layout.download)
            for folder in (root / layout.folder, root):
                if (folder / layout.meta).is_file():
                    self.where = folder
                    return
            archive = root / layout.archive
        if not archive.is_file():
            raise UserError(
                f"data folder {root} has neither {layout.folder}/{layout.meta} nor the file {layout.archive}; expected "
                "one of them there, so put the download into it or set scenario.dataset.root"
            )
        self.where = archive
        if verify:
            self._check(layout.archive, _md5_of(archive), str(archive))
        self.members = self._read_archive(archive, names)

    def read(self, name: str) -> dict[str, Any]:
        """One pickle of the data set."""
        if self.members is not None:
            return load_batch(self.members[name], f"{name} in {self.where}")
        path = self.where / name
        check_regular(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}); expected the file of CIFAR's python archive there, so "
                f"unpack {self.layout.archive} again"
            ) from error
        if self.verify:
            self._check(name, hashlib.md5(content, usedforsecurity=False).hexdigest(), str(path))
        return load_batch(content, str(path))

    def _read_archive(self, path: Path, names: Sequence[str]) -> dict[str, bytes]:
        """The wanted members; nothing is unpacked to the disk."""
        wanted = {f"{self.layout.folder}/{name}": name for name in names}
        found: dict[str, bytes] = {}
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    name = wanted.get(member.name.removeprefix("./"))
                    file = archive.extractfile(member) if name is not None and member.isfile() else None
                    if name is not None and file is not None and member.size <= LARGEST:
                        found[name] = file.read()
        except Exception as error:  # a damaged stream can fail in any way
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip("(: ")
            raise UserError(
                f"{path} is cut off or no archive ({reason}); expected {self.layout.archive}, so download it again"
            ) from error
        missing = [name for name in names if name not in found]
        if missing:
            raise UserError(
                f"{path} lacks {self.layout.folder}/{missing[0]}; expected the files of {self.layout.archive}, so "
                "download it again"
            )
        return found

    def _check(self, name: str, found: str, where: str) -> None:
        expected = self.layout.md5[name]
        if found != expected:
            raise UserError(
                f"{where} has the MD5 sum {found}, but expected the official {expected}; download it again, or set "
                "scenario.dataset.verify=False for files of your own in this layout"
            )


def _md5_of(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


# -- tables ---------------------------------------------------------------------------------------------------


def _names(meta: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    names = meta.get(key)
    if not isinstance(names, list) or not names:
        raise UserError(f"{where} lacks {key!r}; expected a list of class names there, so download it again")
    found = tuple(_text(name) for name in names)
    if len(set(found)) != len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise UserError(f"{where} names {twice!r} twice in {key!r}; expected every class once, so correct it")
    return found


def _images_and_labels(batch: Mapping[str, Any], key: str, classes: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 32, 32, 3) uint8 and labels (N,) of one file."""
    there = ", ".join(repr(name[:30]) for name in sorted(batch)[:8]) or "nothing"
    for name in ("data", key):
        if name not in batch:
            raise UserError(
                f"{where} lacks {name!r} (it has {there}); expected a file of CIFAR's python archive, so {_AGAIN}"
            )
    data = batch["data"]
    width = 3 * SIDE * SIDE
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != width:
        found = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise UserError(
            f"'data' in {where} is {found}; expected uint8 rows of {width} numbers, so download the file again"
        )
    given = batch[key].tolist() if isinstance(batch[key], np.ndarray) else batch[key]
    if not isinstance(given, list) or not all(type(label) is int and abs(label) < 2**31 for label in given):
        raise UserError(f"{key!r} in {where} is no list of whole numbers; expected one label per image, so {_AGAIN}")
    labels = np.asarray(given, np.int64)
    if len(labels) != len(data):
        raise UserError(
            f"{where} has {len(data)} images and {len(labels)} labels; expected one label per image, so download it "
            "again"
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        odd = int(labels[(labels < 0) | (labels >= classes)][0])
        raise UserError(
            f"{key!r} in {where} holds the label {odd}; expected 0 to {classes - 1}, the classes that the meta file "
            "names, so use files of one data set"
        )
    return data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), labels


class CifarDataset:
    """CIFAR-10 or CIFAR-100; files are read at the first :meth:`train` or :meth:`test`.

    The class index is the label of the files, the class order ``as_given`` theirs. All images are kept in memory
    (184 MB for both splits).

    Args:
        root: the folder of the archive or of the unpacked folder, the unpacked folder itself, or the archive.
        name: ``cifar10`` or ``cifar100``, also the name in logs and in the protocol hash.
        labels: ``fine``, or ``coarse`` for CIFAR-100's 20 superclasses.
        verify: compare the files with the official MD5 sums; False for other files in this layout.

    Raises:
        UserError: an unknown kind of labels.
    """

    task = "single_label"
    label_cardinality = 1.0

    def __init__(self, root: str | Path, name: str = "cifar100", labels: str = "fine", verify: bool = True) -> None:
        check_option("name", name, tuple(LAYOUTS))
        self.layout = LAYOUTS[name]
        check_option("labels", labels, tuple(self.layout.labels))
        self.root, self.verify, self.labels = Path(root), verify, labels
        self.name = name if labels == "fine" else f"{name}_{labels}"
        self._tables: dict[str, ImageTable] = {}

    def train(self) -> ImageTable:
        """The 50,000 training images.

        Raises:
            UserError: a file is missing, not the official one, damaged, or of other content.
        """
        return self._table("train", self.layout.train)

    def test(self) -> ImageTable:
        """The 10,000 test images. Raises as :meth:`train`."""
        return self._table("test", self.layout.test)

    def _table(self, split: str, names: Sequence[str]) -> ImageTable:
        if split not in self._tables:
            files = _Files(self.root, self.layout, self.verify, (self.layout.meta, *names))
            key, names_key = self.layout.labels[self.labels]
            meta = self.layout.meta
            classes = _names(files.read(meta), names_key, f"{meta} of {files.where}")
            parts = [_images_and_labels(files.read(n), key, len(classes), f"{n} of {files.where}") for n in names]
            pixels = np.ascontiguousarray(np.concatenate([part[0] for part in parts]))
            labels = np.concatenate([part[1] for part in parts])
            self._tables[split] = SingleLabelTable(split, classes, labels, pixels=pixels)
        return self._tables[split]


def cifar10_dataset(root: str | Path, verify: bool = True) -> CifarDataset:
    """CIFAR-10; arguments as :class:`CifarDataset`."""
    return CifarDataset(root, "cifar10", verify=verify)


def cifar100_dataset(root: str | Path, labels: str = "fine", verify: bool = True) -> CifarDataset:
    """CIFAR-100; arguments as :class:`CifarDataset`."""
    return CifarDataset(root, "cifar100", labels, verify)
