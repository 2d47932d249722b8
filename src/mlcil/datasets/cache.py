"""Decoded images on disk: what is the same in every epoch is done once.

Opening an image file and bringing it to the size of the network draws no random number, so the result is kept: one
folder for the files of a table at one size, with the pixels of all rows in one file. All sessions, processes and runs
read the same pages.

The name of the folder is a digest of everything that the pixels depend on: path, bytes, and times of modification
and of status change of every file, the size, the fit, the code that decodes, and the versions of its libraries. A
file that changes hence gives another folder; a file that changes while a run goes on is noticed when its row is read,
and is opened again from then on. A row's checksum is compared when a process reads it for the first time. An image
that cannot be decoded is not kept: whoever asks for it meets its error as without a cache.

Building is done once, by several processes, under a temporary name that is renamed at the end; a lock makes a second
run wait for the first. Locks belong to the open file: one that dies leaves none behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL
import torch
from filelock import FileLock, Timeout
from PIL import features
from torch.utils.data import DataLoader, Dataset

from mlcil.datasets import transforms
from mlcil.datasets.table import ImageTable
from mlcil.errors import UserError
from mlcil.files import default_cache, read_arrays, stamp, write_arrays, write_text
from mlcil.images import Fit

FORMAT = "mlcil-images-1"
PIXELS, INDEX, ABOUT = "pixels.bin", "index.npz", "about.json"
BUILDING = ".building-"
SHORT = 10_000  # bytes of a description that are read
RESERVE = 2**30  # bytes that stay free on the disk
BATCH = 32  # images that a building process reports at once
TOLD_EVERY = 30.0  # seconds between two lines about a build
GB = 1e9

Tell = Callable[[str], None]


@dataclass(frozen=True)
class CacheOptions:
    """``image_cache`` of a config.

    Args:
        enabled: keep decoded images.
        folder: where; all runs that name the same folder share it. ``None`` is ``images`` in ``$MLCIL_CACHE`` or
            in ``~/.cache/mlcil``.
        limit_gb: the folder holds no more than so many GB (1e9 bytes). Images of other sizes or data sets that no
            run has open make room, the one used longest ago first; where that is not enough, nothing is kept.

    Raises:
        UserError: a value of another kind.
    """

    enabled: bool = True
    folder: str | None = None
    limit_gb: float = 32.0

    def __post_init__(self) -> None:
        check_place("image_cache", self.enabled, self.folder, self.limit_gb)


def check_place(section: str, enabled: object, folder: object, limit_gb: object) -> None:
    """Refuse settings of a folder that is used again.

    Raises:
        UserError: a value of another kind; names the section.
    """
    if not isinstance(enabled, bool):
        raise UserError(f"{section}.enabled is {enabled!r}; expected True or False")
    if folder is not None and (not isinstance(folder, str) or not folder):
        raise UserError(f"{section}.folder is {folder!r}; expected the path of a folder")
    if isinstance(limit_gb, bool) or not isinstance(limit_gb, (int, float)) or not limit_gb > 0:
        raise UserError(f"{section}.limit_gb is {limit_gb!r}; expected a number of GB above 0, such as 16")


@dataclass(eq=False)
class ImageCache:
    """The images of a table's files at one size.

    Attributes:
        folder: where they lie.
        size: side in pixels.
        kept_N: (N,) bool; the row is kept.
        sums_N: (N,) uint32, CRC-32 of the row's pixels.
        stamps_N3: (N, 3) int64, what :func:`stamp` said of the file.
    """

    folder: Path
    size: int
    kept_N: np.ndarray
    sums_N: np.ndarray
    stamps_N3: np.ndarray
    used: IO[bytes] | None = field(default=None, repr=False)  # open and locked, so that nobody makes room here

    def __post_init__(self) -> None:
        self._checked_N = np.zeros(len(self.kept_N), bool)
        self._file: IO[bytes] | None = open(self.folder / PIXELS, "rb")  # noqa: SIM115  (stays open with the cache)
        if self.used is not None:
            weakref.finalize(self, self.used.close)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "used": None, "_file": None}  # a process opens the file itself

    def read(self, row: int, file: Path) -> np.ndarray | None:
        """uint8 (size, size, 3), a copy; ``None`` when the row is not kept or its file is no longer the same.

        The pixels are read, not mapped: a map of a file that somebody cuts off ends the process.
        """
        if not self.kept_N[row] or stamp(file) != tuple(self.stamps_N3[row]):
            return None
        length = self.size * self.size * 3
        try:
            if self._file is None:
                self._file = open(self.folder / PIXELS, "rb")  # noqa: SIM115
            content = os.pread(self._file.fileno(), length, row * length)
        except OSError:  # a process that began after somebody removed the folder
            return None
        if len(content) < length:
            return None
        image = np.frombuffer(bytearray(content), np.uint8).reshape(self.size, self.size, 3)
        if not self._checked_N[row]:
            if zlib.crc32(content) != self.sums_N[row]:
                return None
            self._checked_N[row] = True
        return image


def with_cache(
    table: ImageTable, size: int, options: CacheOptions, tell: Tell, workers: int = 0, build: bool = True
) -> ImageTable:
    """The table with its images at that size kept on disk; the table itself where that is not possible.

    A table in memory needs no cache.

    Args:
        table: images from files.
        size: side in pixels; ``table.fit`` brings the images to it.
        options: where and how much.
        tell: called with lines for the log.
        workers: processes that decode; 0 decodes in this one.
        build: decode the images when they are not kept yet.
    """
    if not options.enabled or not table.files:
        return table
    stamps = np.array([stamp(file) for file in table.files], np.int64)
    key = digest(table, size, stamps)
    folder = Path(options.folder) if options.folder is not None else default_cache() / "images"
    try:
        found = open_cache(folder / key, size, stamps)
        if found is None and build:
            found = _build_once(folder, key, table, size, stamps, options, tell, workers)
    except (OSError, UserError) as error:
        reason = (getattr(error, "strerror", None) or str(error)) or type(error).__name__
        tell(f"image cache: not used, because {folder} does not allow it ({reason}); images are decoded in every epoch")
        return table
    return table if found is None else table.cached(found)


def digest(table: ImageTable, size: int, stamps_N3: np.ndarray) -> str:
    """Name of the folder: 24 hexadecimal digits over all that the pixels depend on."""
    facts = {"format": FORMAT, **decoding(table.fit, size)}
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    found.update(json.dumps([os.path.abspath(file) for file in table.files]).encode())
    found.update(np.ascontiguousarray(stamps_N3, "<i8").tobytes())
    return found.hexdigest()[:24]


def decoding(fit: Fit, size: int) -> dict[str, Any]:
    """All that the pixels of an image at that size depend on, besides its file."""
    facts = {
        "size": size,
        "fit": [fit.kind, fit.short_side, fit.interpolation],
        "pillow": PIL.__version__,
        "jpeg": [str(features.version(name)) for name in ("libjpeg_turbo", "jpg")],
        "code": hashlib.sha256(Path(transforms.__file__).read_bytes()).hexdigest(),
    }
    if fit.kind != "square":
        import torchvision  # only when it does the resizing

        facts["torchvision"] = torchvision.__version__
    return facts


def open_cache(folder: Path, size: int, stamps_N3: np.ndarray) -> ImageCache | None:
    """What lies in a finished folder; ``None`` when there is none, or it is damaged.

    Raises:
        OSError: it is there and cannot be read.
    """
    try:
        used = open(folder / ABOUT, "rb")  # noqa: SIM115  (stays open: it holds the lock)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(used, fcntl.LOCK_SH)
        about = json.loads(used.read(SHORT))
        kept, sums = read_arrays(folder / INDEX, ("kept", "sums")).values()
        rows = (len(stamps_N3),)
        whole = (folder / PIXELS).stat().st_size == len(stamps_N3) * size * size * 3
        right = (kept.shape, kept.dtype, sums.shape, sums.dtype) == (rows, np.bool_, rows, np.uint32)
        if not whole or not right or about["format"] != FORMAT:
            raise ValueError
        with contextlib.suppress(OSError):  # of somebody else, or on a disk that cannot be written
            os.utime(folder / ABOUT)  # used last
        return ImageCache(folder, size, kept, sums, stamps_N3, used)
    except (ValueError, KeyError, TypeError, RecursionError, FileNotFoundError):
        used.close()
        return None
    except BaseException:
        used.close()
        raise


# -- building ----------------------------------------------------------------------------------------------


def _build_once(
    folder: Path,
    key: str,
    table: ImageTable,
    size: int,
    stamps: np.ndarray,
    options: CacheOptions,
    tell: Tell,
    workers: int,
) -> ImageCache | None:
    """Build under the lock of the key, or take what another process has built meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".lock-{key}")
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        tell("image cache: another process builds it, waiting")
        held = lock.acquire()
    with held:
        found = open_cache(folder / key, size, stamps)
        if found is not None:
            return found
        building = folder / (BUILDING + key)
        needed = len(table.files) * size * size * 3
        with FileLock(folder / ".lock"):
            for old in (building, folder / key):  # left by a process that died, or damaged
                shutil.rmtree(old, ignore_errors=True)
            if not _make_room(folder, needed, options.limit_gb, f"the {len(table.files)} images of {table.name}", tell):
                return None
            building.mkdir()
            with open(building / PIXELS, "wb") as file:
                file.truncate(needed)
        try:
            _fill(building, table, size, stamps, tell, workers)
            os.rename(building, folder / key)
        except OSError as error:
            shutil.rmtree(building, ignore_errors=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            tell(f"image cache: the disk of {folder} is full, so images are decoded in every epoch; make room there")
            return None
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
    return open_cache(folder / key, size, stamps)


def _fill(building: Path, table: ImageTable, size: int, stamps: np.ndarray, tell: Tell, workers: int) -> None:
    """Decode all rows into the folder, the descriptions last."""
    rows = len(table.files)
    tell(
        f"image cache: decoding the {rows} images of {table.name} at {size} px once, "
        f"{rows * size * size * 3 / GB:.2f} GB in {building.parent}, {workers or 1} process(es)"
    )
    kept, sums = np.zeros(rows, bool), np.zeros(rows, np.uint32)
    started = told = time.monotonic()
    loader: DataLoader[Any] = DataLoader(
        _Decoding(table, size, stamps, building / PIXELS),
        BATCH,
        num_workers=min(workers, -(-rows // BATCH)),
        collate_fn=list,
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # draws nothing from the run's
    )
    done = 0
    for batch in loader:
        for row, right, total in batch:
            if total < 0:
                raise OSError(-total, os.strerror(-total), str(building / PIXELS))
            kept[row], sums[row] = right, total
        done += len(batch)
        if time.monotonic() - told > TOLD_EVERY:
            told = time.monotonic()
            tell(f"image cache: {done} of {rows} images, {done / (told - started):.0f} images/s")
    with open(building / PIXELS, "rb+") as file:
        os.fsync(file.fileno())
    write_arrays(building / INDEX, {"kept": kept, "sums": sums})
    about = {"format": FORMAT, "table": table.name, "images": rows, "size": size, "files": str(table.files[0].parent)}
    write_text(building / ABOUT, json.dumps(about, indent=1) + "\n")
    left_out = int((~kept).sum())
    tell(
        f"image cache: built in {time.monotonic() - started:.0f} s"
        + (f"; {left_out} image(s) that cannot be read or changed meanwhile are not in it" if left_out else "")
    )


class _Decoding(Dataset[tuple[int, bool, int]]):
    """Decodes a row straight into the file; gives the row, whether it is kept, and its checksum.

    An error of the file comes as its negative number in place of the checksum: a loader's process passes on the text
    of an exception alone.
    """

    def __init__(self, table: ImageTable, size: int, stamps: np.ndarray, path: Path) -> None:
        self.table, self.size, self.stamps, self.path = table, size, stamps, path

    def __len__(self) -> int:
        return len(self.table.files)

    def __getitem__(self, row: int) -> tuple[int, bool, int]:
        try:
            image = np.asarray(self.table.fit(self.table.image(row), self.size)).tobytes()
        except UserError:
            return row, False, 0
        if stamp(self.table.files[row]) != tuple(self.stamps[row]):
            return row, False, 0
        try:
            with open(self.path, "rb+", buffering=0) as file:  # not through the map: a full disk is an error, no signal
                file.seek(row * len(image))
                content = memoryview(image)
                while content:
                    content = content[file.write(content) :]
        except OSError as error:
            return row, False, -(error.errno or errno.EIO)
        return row, True, zlib.crc32(image)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _make_room(folder: Path, needed: int, limit_gb: float, what: str, tell: Tell) -> bool:
    """Whether ``needed`` bytes fit below the limit and on the disk; unused entries are removed for them.

    Called under the lock of the folder.
    """
    entries = sorted(_entries(folder))
    taken = sum(size for _, size, _ in entries)
    removable = [entry for entry in entries if not entry[2].name.startswith(BUILDING)]
    while taken + needed > limit_gb * GB and needed <= limit_gb * GB and removable:
        _, size, entry = removable.pop(0)
        if _remove_unused(entry):
            tell(f"image cache: {entry} made room, {size / GB:.2f} GB that were used longest ago")
            taken -= size
    if taken + needed > limit_gb * GB:
        tell(
            f"image cache: {what} need {needed / GB:.2f} GB in {folder}, which holds {taken / GB:.2f} GB in use and "
            f"may hold {limit_gb:g} GB, so they are decoded in every epoch; raise image_cache.limit_gb or name another "
            "image_cache.folder"
        )
        return False
    free = shutil.disk_usage(folder).free
    if needed + RESERVE > free:
        tell(
            f"image cache: {what} need {needed / GB:.2f} GB, but the disk of {folder} has {free / GB:.2f} GB left, so "
            "they are decoded in every epoch; make room or name another image_cache.folder"
        )
        return False
    return True


def _entries(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Time of the last use, bytes and folder of everything kept or being built; the remains of the dead are removed."""
    for entry in folder.iterdir():
        if not entry.is_dir() or not (entry / PIXELS).is_file():
            continue
        if entry.name.startswith(BUILDING):
            lock = FileLock(folder / f".lock-{entry.name.removeprefix(BUILDING)}", timeout=0)
            with contextlib.suppress(Timeout), lock:
                shutil.rmtree(entry, ignore_errors=True)
                continue
        about = entry / ABOUT
        used = about.stat().st_mtime if about.is_file() else 0.0
        yield used, (entry / PIXELS).stat().st_size, entry


def _remove_unused(entry: Path) -> bool:
    """Remove a finished entry that no process has open."""
    try:
        with open(entry / ABOUT, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(entry)
    except FileNotFoundError:
        shutil.rmtree(entry, ignore_errors=True)  # half removed before
    except OSError:
        return False
    return True
