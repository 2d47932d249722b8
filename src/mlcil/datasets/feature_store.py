"""Features of a frozen backbone on disk: an image goes through it once, whoever asks for it later.

Runs, sessions, processes and commands share the store. What lies there is found by two digests. One names a folder:
weights of the backbone, preprocessing, what computes (:class:`Engine`), maps or pooled, and the type of the numbers.
The other is of the image's content, so that a photo is found under any path; the digests of files are kept by path,
size and times of change.

Values lie in files that are only ever added: made under a temporary name, renamed, with a checksum that is compared
when the file is opened. So nobody waits for anybody. A damaged file is removed, and its images are computed again.
Above the limit the files that were used longest ago go first; who has one of them open keeps it.

A backbone gets whole batches of one size, the last one filled up, which makes an image's features the same bits beside
whatever other images they are computed.

Legend: N images, B images of a batch, K channels, h, w sides of a map.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from mlcil.datasets.cache import RESERVE, check_place, decoding
from mlcil.datasets.loading import Loader, SessionSampler, SessionView
from mlcil.datasets.table import ImageTable
from mlcil.errors import UserError
from mlcil.files import default_cache, stamp, write_arrays, write_atomically
from mlcil.images import SQUARE, Fit
from mlcil.models.data_preprocessor import network_input
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import autocast

FORMAT = "mlcil-features-1"
BATCH = 16  # images that a backbone sees at once, always
SHARD = 512  # images of a file, at most
DEAD = 3600.0  # seconds after which a temporary file has no writer any more
TOLD_EVERY = 30.0  # seconds between two lines about a long pass
GB = 1e9

Kind = Literal["maps", "pooled"]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class FeatureStoreOptions:
    """``feature_store`` of a config.

    Args:
        enabled: compute the features of a frozen backbone once, where nothing augments the images.
        folder: where they are kept; ``None`` is ``features`` in ``$MLCIL_CACHE`` or in ``~/.cache/mlcil``.
        limit_gb: the folder holds no more than so many GB (1e9 bytes).
        dtype: of the kept numbers; ``float16`` takes half the room and rounds them.

    Raises:
        UserError: a value of another kind.
    """

    enabled: bool = True
    folder: str | None = None
    limit_gb: float = 16.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_place("feature_store", self.enabled, self.folder, self.limit_gb)
        if self.dtype not in ("float32", "float16"):
            raise UserError(f"feature_store.dtype is {self.dtype!r}; expected 'float32' or 'float16'")


class Engine(Protocol):
    """What computes the maps of a frozen backbone.

    Attributes:
        name: all that the bits depend on besides weights and images: library, version, kind of device.
        weights: digest of the weights, see :func:`weights_digest`; the same for every engine of a network.
        image_size: side of the images in pixels.
        shape: (K, h, w) of a map.
    """

    name: str
    weights: str
    image_size: int
    shape: tuple[int, int, int]

    def __call__(self, images: Tensor) -> np.ndarray:
        """uint8 (:data:`BATCH`, H, W, 3) -> maps (BATCH, K, h, w), float32."""


class TorchEngine:
    """A backbone in PyTorch, on the device where the network is: in float32, in channels-last layout.

    Args:
        network: with batch norms as they were trained, not :func:`~mlcil.models.folding.folded`, so that every
            command finds what another has computed. It is copied and stays as it is.
    """

    def __init__(self, network: IncrementalNetwork) -> None:
        self.weights, self.image_size = weights_digest(network), int(network.spec["image_size"])
        device = next(network.backbone.parameters()).device
        layout = torch.channels_last
        self._backbone = copy.deepcopy(network.backbone).eval().requires_grad_(False).to(memory_format=layout)  # type: ignore[call-overload]
        place = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
        self._device = device
        self.name = f"torch {torch.__version__} {device.type} {place}"
        dtype = next(network.backbone.parameters()).dtype
        with torch.no_grad():
            empty = torch.zeros(1, 3, self.image_size, self.image_size, dtype=dtype, device=device)
            _, *shape = self._backbone(empty)[-1].shape
        self.shape = (shape[0], shape[1], shape[2])

    def __call__(self, images: Tensor) -> np.ndarray:
        parameter = next(self._backbone.parameters())
        inputs = network_input(images.to(self._device)).to(parameter.dtype, memory_format=torch.channels_last)
        with torch.inference_mode(), autocast(self._device, torch.float32):
            maps: Tensor = self._backbone(inputs)[-1]
        return maps.float().cpu().contiguous().numpy()


def weights_digest(network: IncrementalNetwork) -> str:
    """SHA-256 of a network's backbone: its description, and every number of it; layout and device do not matter."""
    spec = {"backbone": network.spec["backbone"], "image_size": network.spec["image_size"]}
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True, default=str).encode())
    for name, value in network.backbone.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def table_of(files: Sequence[Path], fit: Fit = SQUARE) -> ImageTable:
    """Image files without labels as a table, for :func:`features_of`.

    Args:
        files: N image files.
        fit: how an image becomes a square.
    """
    nothing = np.zeros((len(files), 0), np.int8)
    return ImageTable("photos", (), tuple(range(len(files))), tuple(files), nothing, nothing.astype(bool), fit=fit)


def features_of(
    engine: Engine,
    table: ImageTable,
    store: FeatureStore | None,
    kind: Kind = "pooled",
    rows: np.ndarray | None = None,
    workers: int = 0,
    tell: Tell = lambda line: None,
) -> Features:
    """Maps or pooled features of a table's images: from the store, else computed and put there.

    Args:
        engine: what computes, such as :class:`TorchEngine`.
        table: the images; :func:`table_of` makes one of files.
        store: ``None`` keeps nothing on disk.
        kind: ``maps`` (K, h, w), or ``pooled`` (K,), their mean over the positions.
        rows: which of them; ``None`` takes all that can be read.
        workers: processes that read images; 0 reads in this one.
        tell: called with lines for the log.

    Raises:
        UserError: an image cannot be read.
    """
    rows = table.readable_rows() if rows is None else np.asarray(rows, np.int64)
    shape = engine.shape if kind == "maps" else engine.shape[:1]
    dtype = np.dtype(np.float32 if store is None else store.dtype)
    key = _key(engine, table.fit, kind, dtype)
    stamps = _stamps(table, rows)
    digests = _digests(table, rows) if store is None else store.digests(table, rows, stamps)
    found = {} if store is None else store.find(key, set(digests), shape, tell)
    first: dict[bytes, int] = {}  # an image that is there twice is computed once
    for position, digest in enumerate(digests):
        if digest not in found:
            first.setdefault(digest, position)
    computed = list(first.items())
    positions = np.array([position for _, position in computed], np.int64)
    images = _images(table, rows[positions], engine.image_size, workers)
    started = told = time.monotonic()
    for low in range(0, len(computed), SHARD):
        part = computed[low : low + SHARD]
        values = np.empty((len(part), *shape), dtype)
        for place in range(0, len(part), BATCH):
            inputs = next(images)
            count = len(inputs)
            filling = inputs[:1].expand(BATCH - count, *inputs.shape[1:])
            maps = engine(torch.cat([inputs, filling]))[:count]
            values[place : place + count] = maps if kind == "maps" else pooled(maps)
            if time.monotonic() - told > TOLD_EVERY:
                told, done = time.monotonic(), low + place + count
                tell(f"features: {done} of {len(computed)} images, {done / (told - started):.0f} images/s")
        names = [digest for digest, _ in part]
        same = bool((_stamps(table, rows[positions[low : low + SHARD]]) == stamps[positions[low : low + SHARD]]).all())
        kept = store.add(key, names, values, tell) if store is not None and same else values
        found.update((digest, (kept, place)) for place, digest in enumerate(names))
    return Features(len(table), shape, rows, [found[digest] for digest in digests], len(computed))


def pooled(maps_NKhw: np.ndarray) -> np.ndarray:
    """Mean over the positions, as the heads take it: (N, K) float32."""
    return torch.from_numpy(maps_NKhw).mean((2, 3)).numpy()


class Features:
    """Features of a table's rows, of which an index gives float32 copies: ``features[3]``, ``features[np.arange(8)]``.

    Args:
        length: rows of the table.
        shape: of a row's features.
        rows: (N,) which rows there are.
        places: of each the array that holds it, perhaps a memory map, and its index there.
        computed: how many of them were computed now.

    Attributes:
        shape: (length, ...) as an array's.
    """

    def __init__(
        self,
        length: int,
        shape: tuple[int, ...],
        rows: np.ndarray,
        places: Sequence[tuple[np.ndarray, int]],
        computed: int,
    ) -> None:
        self.shape, self.computed = (length, *shape), computed
        self._places = dict(zip(rows.tolist(), places, strict=True))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        if isinstance(rows, (int, np.integer)):
            array, place = self._places[int(rows)]
            return np.array(array[place], np.float32)
        values = np.empty((len(rows), *self.shape[1:]), np.float32)
        for value, row in zip(values, np.asarray(rows).tolist(), strict=True):
            array, place = self._places[row]
            value[...] = array[place]
        return values

    def part(self, rows: np.ndarray) -> Features:
        """Those of some rows, for a table of these rows."""
        places = [self._places[row] for row in rows.tolist()]
        return Features(len(rows), self.shape[1:], np.arange(len(rows)), places, 0)

    def as_maps(self) -> Features:
        """Pooled features as maps of one position, (K, 1, 1); maps as they are."""
        if len(self.shape) == 4:
            return self
        rows = np.fromiter(self._places, np.int64, len(self._places))
        places = [(array[:, :, None, None], place) for array, place in self._places.values()]
        return Features(self.shape[0], (*self.shape[1:], 1, 1), rows, places, self.computed)


class FeatureStore:
    """The folder that features are kept in.

    Args:
        folder, limit_gb, dtype: see :class:`FeatureStoreOptions`.
    """

    def __init__(self, folder: Path | None = None, limit_gb: float = 16.0, dtype: str = "float32") -> None:
        self.folder = default_cache() / "features" if folder is None else folder
        self.limit_gb, self.dtype = limit_gb, np.dtype(dtype)
        self._in_use: set[Path] = set()
        self._full = False

    @classmethod
    def of(cls, options: FeatureStoreOptions) -> FeatureStore:
        """The store of a config's section."""
        return cls(None if options.folder is None else Path(options.folder), options.limit_gb, options.dtype)

    def takes(self, images: int, shape: Sequence[int]) -> bool:
        """Whether the features of so many images would fit below the limit."""
        return images * math.prod(shape) * self.dtype.itemsize <= self.limit_gb * GB

    def digests(self, table: ImageTable, rows: np.ndarray, stamps: np.ndarray) -> list[bytes]:
        """Of the content of images, 16 bytes each; those of files are looked up by path and times of change."""
        if table.pixels is not None:
            return _digests(table, rows)
        paths = json.dumps([os.path.abspath(table.files[row]) for row in rows])
        name = hashlib.sha256(paths.encode() + np.ascontiguousarray(stamps, "<i8").tobytes()).hexdigest()[:24]
        file = self.folder / "digests" / f"{name}.npz"
        with contextlib.suppress(Exception):  # not there, or damaged in one of many ways
            with np.load(file, allow_pickle=False) as content:
                known = content["digests"]
            if known.shape == (len(rows), 16) and known.dtype == np.uint8:
                os.utime(file)
                return [bytes(row) for row in known]
        found = _digests(table, rows)
        if (_stamps(table, rows) == stamps).all():
            with contextlib.suppress(UserError):
                array = np.frombuffer(b"".join(found), np.uint8).reshape(-1, 16)
                write_arrays(file, {"digests": array})
        return found

    def find(
        self, key: str, wanted: set[bytes], shape: tuple[int, ...], tell: Tell
    ) -> dict[bytes, tuple[np.ndarray, int]]:
        """Where the wanted features lie: digest -> memory map of a file and index in it."""
        found: dict[bytes, tuple[np.ndarray, int]] = {}
        for path in sorted((self.folder / key).glob("*.bin")):
            try:
                array, names = _open_shard(path, wanted.difference(found), shape, self.dtype)
            except FileNotFoundError:  # another process made room
                continue
            except OSError as error:  # which says nothing of what is in it
                tell(f"feature store: {path} cannot be read ({error.strerror}); its images are computed again")
                continue
            except Exception as error:  # damaged in one of many ways
                tell(f"feature store: {path} is damaged ({error}); it is removed and its images are computed again")
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            if array is not None:
                self._in_use.add(path)
                found.update((name, (array, place)) for name, place in names.items())
        return found

    def add(self, key: str, names: Sequence[bytes], values: np.ndarray, tell: Tell) -> np.ndarray:
        """Write a file; returns a memory map of it, or the values where there is no room for them."""
        path = self.folder / key / f"{hashlib.sha256(b''.join(names)).hexdigest()[:24]}.bin"
        head = {"shape": values.shape, "dtype": values.dtype.name, "digests": [name.hex() for name in names]}
        text = json.dumps(head).encode()
        text = text.ljust(-(-len(text) // 64) * 64)  # the numbers begin at a multiple of 64 bytes
        checksum = zlib.crc32(values.tobytes(), zlib.crc32(text))
        first = json.dumps({"format": FORMAT, "head": len(text), "crc": checksum}).encode().ljust(127) + b"\n"

        def write(file: Any) -> None:
            file.write(first + text)
            file.write(values.data)

        try:
            if self._full or not self._make_room(values.nbytes + len(first) + len(text)):
                raise UserError(f"it may hold {self.limit_gb:g} GB (feature_store.limit_gb) or its disk is full")
            write_atomically(path, write)
            self._in_use.add(path)
            return _map(path, len(first) + len(text), values.shape, values.dtype)
        except (OSError, UserError) as error:
            if not self._full:
                tell(f"feature store: {self.folder} takes no more ({error}); features stay in memory from here on")
            self._full = True
            return values

    def _make_room(self, needed: int) -> bool:
        """Whether so many bytes fit below the limit and on the disk; files of others, oldest use first, go for them."""
        files = []
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                found = path.stat()
                if path.name.endswith(".tmp") and time.time() - found.st_mtime > DEAD:
                    path.unlink()  # its writer died
                elif path.is_file():
                    files.append((found.st_mtime, found.st_size, path))
        taken = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if taken + needed <= self.limit_gb * GB:
                break
            if path not in self._in_use:
                path.unlink(missing_ok=True)
                taken -= size
        return taken + needed <= self.limit_gb * GB and shutil.disk_usage(self.folder).free > needed + RESERVE


def _key(engine: Engine, fit: Fit, kind: str, dtype: np.dtype[Any]) -> str:
    """Name of the folder: 24 hexadecimal digits over all that the features of an image depend on."""
    facts = {
        "format": FORMAT,
        "weights": engine.weights,
        "engine": engine.name,
        "batch": BATCH,
        "decoding": decoding(fit, engine.image_size),
        "kind": kind,
        "dtype": dtype.name,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _open_shard(
    path: Path, wanted: set[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[np.ndarray | None, dict[bytes, int]]:
    """Memory map and places of what is wanted of a file; ``None`` when that is nothing.

    Raises:
        ValueError: damaged.
    """
    with open(path, "rb") as file:
        first = json.loads(file.readline(1024))
        if first["format"] != FORMAT:
            raise ValueError("another format")
        if not 0 <= first["head"] <= os.fstat(file.fileno()).st_size:
            raise ValueError("it is shorter than it says")
        text = file.read(first["head"])
        head = json.loads(text)
        names = {bytes.fromhex(name): place for place, name in enumerate(head["digests"])}
        names = {name: place for name, place in names.items() if name in wanted}
        if not names:
            return None, {}
        sum_, length = zlib.crc32(text), 0
        while chunk := file.read(2**22):
            sum_, length = zlib.crc32(chunk, sum_), length + len(chunk)
    whole = (len(head["digests"]), *shape)
    fits = tuple(head["shape"]) == whole and head["dtype"] == dtype.name
    if not fits or length != math.prod(whole) * dtype.itemsize or sum_ != first["crc"]:
        raise ValueError("its checksum does not fit")
    with contextlib.suppress(OSError):
        os.utime(path)  # used last
    return _map(path, 128 + first["head"], whole, dtype), names


def _map(path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    return np.asarray(np.memmap(path, dtype, "r", offset, shape))


def _stamps(table: ImageTable, rows: np.ndarray) -> np.ndarray:
    """(R, 3) what :func:`~mlcil.files.stamp` says of the files; zeros for pixels in memory."""
    if table.pixels is not None:
        return np.zeros((len(rows), 3), np.int64)
    return np.array([stamp(table.files[row]) for row in rows], np.int64).reshape(-1, 3)


def _digests(table: ImageTable, rows: np.ndarray) -> list[bytes]:
    """Of the content of images, 16 bytes each."""
    if table.pixels is not None:
        shape = str(table.pixels.shape[1:]).encode()
        return [hashlib.sha256(shape + table.pixels[row].tobytes()).digest()[:16] for row in rows]
    return [_content(table, row) for row in rows]


def _content(table: ImageTable, row: int) -> bytes:
    try:
        return hashlib.sha256(table.files[row].read_bytes()).digest()[:16]
    except OSError:
        table.image(row)  # says what is wrong with it
        raise


def _images(table: ImageTable, rows: np.ndarray, size: int, workers: int) -> Iterator[Tensor]:
    """Batches uint8 (B, H, W, 3) of :data:`BATCH` images, none across the border of two files."""
    for low in range(0, len(rows), SHARD):
        part = rows[low : low + SHARD]
        view = SessionView(table, part, np.zeros((len(part), 0), np.int8), size)
        for batch in Loader(view, SessionSampler(len(part), 0, 0, shuffle=False), BATCH, min(workers, len(part))):
            yield batch["inputs"]
