"""From rows of an :class:`~mlcil.datasets.table.ImageTable` to batches, with and without worker processes.

:class:`Readers` are told which images and which draws, ``(source, row, key)``, and read them in this process or in
worker processes that live as long as the run. A table does not change while a run goes on, so nothing that a worker
knows becomes old; a :class:`Loader` adds labels, rows and sessions in the main process.

Randomness is stateless: the sampler hands out ``(position, key)`` and the augmentation of an image depends on
``key = (seed, session, epoch, place in the epoch)`` alone. Hence the same figures with any number of worker processes,
and an interrupted run needs no worker state to go on exactly.
"""

from __future__ import annotations

import gc
import itertools
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from mlcil.datasets.table import ImageTable
from mlcil.errors import UserError

Key = tuple[int, ...]
Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class ImageSource:
    """The images of a table at one size, augmented or not; equal ones give the same images.

    Attributes:
        table: the split's images.
        image_size: side of the square images in pixels; the table's ``fit`` brings them to it.
        augment: training augmentation on (H, W, 3) uint8, or ``None``. One with a true ``whole`` gets the image
            as it is and brings it to the size itself; of one with a true ``on_device`` the draws are made here alone.
    """

    table: ImageTable
    image_size: int
    augment: Augment | None = None

    @property
    def kind(self) -> str:
        """``inputs``, images, or ``maps`` of a frozen backbone where the table has them and nothing augments them."""
        return "inputs" if self.table.maps is None or self.augment is not None else "maps"

    def read(self, row: int, key: Key | None) -> tuple[Tensor, Tensor]:
        """uint8 (H, W, 3), and the draws of an augmentation that is still to be done, float64 (K,), else of length 0.

        From a table with maps its float32 (K, h, w) instead of the image.

        Args:
            row: of the table.
            key: seed of the augmentation's draws.

        Raises:
            UserError: the image cannot be read.
        """
        if self.kind == "maps":
            assert self.table.maps is not None
            return torch.from_numpy(self.table.maps[row]), torch.empty(0, dtype=torch.float64)
        whole = getattr(self.augment, "whole", False)
        image = np.asarray(self.table.image(row)) if whole else self.table.fitted(row, self.image_size)
        draws: list[float] = []
        if self.augment is not None:
            assert key is not None, "augmented views are read through a SessionSampler"
            rng = np.random.default_rng(np.random.SeedSequence(key))
            if getattr(self.augment, "on_device", False):
                draws = self.augment.draw(rng)  # type: ignore[attr-defined]
            else:
                image = self.augment(image, rng)
        return torch.from_numpy(np.array(image)), torch.tensor(draws, dtype=torch.float64)


# -- reading -------------------------------------------------------------------------------------------------


class _Reading(Dataset[tuple[Tensor, Tensor]]):
    """The one way from a row to an image, in this process or in a worker."""

    def __init__(self, sources: tuple[ImageSource, ...]) -> None:
        self.sources = sources

    def __getitem__(self, item: tuple[int, int, Key]) -> tuple[Tensor, Tensor]:
        source, row, key = item
        return self.sources[source].read(row, key)


@dataclass
class _Orders:
    """The batches of the running pass; the ``DataLoader`` asks for them at the beginning of each pass."""

    now: Iterator[list[tuple[int, int, Key]]] = field(default_factory=lambda: iter(()))

    def __iter__(self) -> Iterator[list[tuple[int, int, Key]]]:
        return self.now


class Readers:
    """Worker processes that live until :meth:`close`, and read for any number of loaders.

    They begin with the first pass. A source that was not named by then is added, at the price of new processes.

    Args:
        num_workers: how many; 0 reads in this process.
        sources: what will be read.
    """

    def __init__(self, num_workers: int, sources: Iterable[ImageSource] = ()) -> None:
        self.num_workers, self.sources = num_workers, list(sources)
        self._orders = _Orders()
        self._loader: DataLoader[Any] | None = None
        self._busy = False

    @property
    def _workers(self) -> list[Any]:
        iterator: Any = self._loader._iterator if self._loader is not None else None
        return [] if iterator is None else list(iterator._workers)

    @property
    def pids(self) -> list[int]:
        """Ids of the processes; empty before the first pass."""
        return [worker.pid for worker in self._workers]

    def batches(self, source: ImageSource, orders: Iterable[list[tuple[int, Key]]]) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass.

        Args:
            source: where the images are.
            orders: for each batch the rows and keys of its B images.

        Yields:
            (B, H, W, 3) uint8 and their draws (B, K).

        Raises:
            UserError: an image cannot be read.
            RuntimeError: a process is gone; its text begins with ``DataLoader worker``, as PyTorch's own does.
        """
        if self._busy:  # a pass inside another one has processes of its own
            inner = Readers(self.num_workers, self.sources)
            try:
                yield from inner.batches(source, orders)
            finally:
                inner.close()
            return
        if source not in self.sources:
            self.close()
            self.sources.append(source)
        number = self.sources.index(source)
        if self._loader is None:
            self._loader = self._begin()
        self._orders.now = ([(number, row, key) for row, key in order] for order in orders)
        self._busy = True
        try:
            yield from self._loader
        except UserError as error:
            # torch raises it again with the worker's printed traceback as its text, which ends in the sentence
            sentence = str(error).rstrip().splitlines()[-1]
            raise UserError(sentence.removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")) from None
        except (ConnectionError, EOFError, FileNotFoundError) as error:
            for worker in self._workers:  # one that is killed while it hands over a batch leaves these
                worker.join(1.0)
                if not worker.is_alive():
                    raise RuntimeError(f"DataLoader worker (pid {worker.pid}) is gone: {error!r}") from error
            raise
        finally:
            self._busy = False

    def _begin(self) -> DataLoader[Any]:
        return DataLoader(
            _Reading(tuple(self.sources)),
            batch_sampler=self._orders,  # type: ignore[arg-type]
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            worker_init_fn=begin_worker,
            generator=torch.Generator(),  # draws nothing from the run's
        )

    def close(self) -> None:
        """End the processes; a later pass begins new ones."""
        loader, self._loader = self._loader, None
        iterator: Any = loader._iterator if loader is not None else None
        if iterator is not None:
            iterator._shutdown_workers()


def begin_worker(_: int) -> None:
    """Make a worker process obey its parent: one thread, deaf to Ctrl-C, ended by SIGTERM."""
    gc.freeze()  # other processes' handles, inherited and out of use, are not this process's to end
    torch.set_num_threads(1)
    # Ctrl-C is the parent's business; SIGTERM ends a worker as usual, whatever the parent does at it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


# -- what is read --------------------------------------------------------------------------------------------


class SessionView:
    """Some rows of a table with the labels that may be seen.

    Args:
        table: the split's images.
        rows: (N,) int64 rows of the table.
        targets: (N, C) int8, 1 present, 0 absent, -1 not judged.
        image_size, augment: see :class:`ImageSource`.
        origins: (N,) session each image was stored in; by default the first.
    """

    def __init__(
        self,
        table: ImageTable,
        rows: np.ndarray,
        targets: np.ndarray,
        image_size: int,
        augment: Augment | None = None,
        origins: np.ndarray | None = None,
    ) -> None:
        assert len(rows) == len(targets)
        self.source = ImageSource(table, image_size, augment)
        self.rows, self.targets = rows, targets
        self.origins = np.zeros(len(rows), np.int64) if origins is None else origins

    def __len__(self) -> int:
        return len(self.rows)


class SessionSampler(Sampler[tuple[int, Key]]):
    """Positions of a view for one process, each with the key of its random draws.

    Shuffled sampling pads by repeating from the start so that all processes get equally many (every image
    stays in); unshuffled sampling gives each position to exactly one process, without repeats.

    Args:
        length: images in the view.
        seed: base of the shuffle and of the augmentation keys.
        session: index of the session.
        shuffle: training order or plain order.
        rank, world_size: this process and how many there are.
    """

    def __init__(self, length: int, seed: int, session: int, shuffle: bool, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.seed, self.session, self.shuffle = length, seed, session, shuffle
        self.rank, self.world_size = rank, world_size
        self.epoch, self.start = 0, 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch (restarts at 0 in every session), and how many of its entries are left out."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        if self.shuffle:
            return -(-self.length // self.world_size)
        return len(range(self.rank, self.length, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, Key]]:
        return itertools.islice(self.entries(), self.start, None)

    def entries(self) -> Iterator[tuple[int, Key]]:
        """All entries of the epoch for this process."""
        key = (self.seed, self.session, self.epoch)
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng(key).permutation(self.length)
            order = np.resize(order, len(self) * self.world_size)
        for place in range(self.rank, len(order), self.world_size):
            yield int(order[place]), (*key, place)


class Loader:
    """Batches of a view.

    Args:
        dataset, sampler: the view and its order.
        batch_size: images a batch.
        num_workers: processes that read images; 0 reads in this one.
        drop_last: leave out the last batch when it is smaller (R-DFCIL and ABD); a view with less than one batch
            keeps it.
        readers: these processes when they outlive the loader; else each pass has its own.
    """

    def __init__(
        self,
        dataset: SessionView,
        sampler: SessionSampler,
        batch_size: int,
        num_workers: int = 0,
        drop_last: bool = False,
        readers: Readers | None = None,
    ) -> None:
        self.dataset, self.sampler, self.batch_size = dataset, sampler, batch_size
        self.num_workers, self.readers = num_workers, readers if num_workers else None
        drop_last = drop_last and len(sampler) >= batch_size
        self._batches: Any = BatchSampler(sampler, batch_size, drop_last)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Read one pass.

        Yields:
            ``inputs`` uint8 (B, H, W, 3) or ``maps`` float32 (B, K, h, w), ``targets`` float32 (B, C), ``rows``
            int64 (B,), ``origins`` int64 (B,); with an augmentation on the device also ``draws`` float64 (B, K).

        Raises:
            UserError, RuntimeError: see :meth:`Readers.batches`.
        """
        readers = self.readers if self.readers is not None else Readers(self.num_workers, [self.dataset.source])
        view, sent = self.dataset, deque[list[int]]()

        def orders() -> Iterator[list[tuple[int, Key]]]:
            for entries in self._batches:
                sent.append([position for position, _ in entries])
                yield [(int(view.rows[position]), key) for position, key in entries]

        try:
            for inputs, draws in readers.batches(view.source, orders()):
                positions = sent.popleft()
                labels = {
                    "targets": torch.from_numpy(view.targets[positions].astype(np.float32)),
                    "rows": torch.from_numpy(view.rows[positions].astype(np.int64)),
                    "origins": torch.from_numpy(view.origins[positions].astype(np.int64)),
                }
                if inputs.is_pinned():
                    labels = {name: values.pin_memory() for name, values in labels.items()}
                yield {view.source.kind: inputs, **labels, **({"draws": draws} if draws.shape[1] else {})}
        finally:
            if readers is not self.readers:
                readers.close()


# -- images that cannot be read ------------------------------------------------------------------------------


class _Trying(Dataset[tuple[int, str]]):
    """A row, and why its image cannot be read or an empty string."""

    def __init__(self, table: ImageTable) -> None:
        self.table = table

    def __getitem__(self, row: int) -> tuple[int, str]:
        try:
            self.table.image(row)
        except UserError as error:
            return row, str(error)
        return row, ""


def find_unreadable(
    table: ImageTable, num_workers: int = 0, progress: Callable[[int, int], None] | None = None
) -> dict[int, str]:
    """Decode every image of a table once, but for those that its cache holds, which were decoded when it was built.

    Args:
        table: images from files; of a table in memory nothing is read.
        num_workers: processes that decode; 0 decodes in this one.
        progress: called now and then with the numbers of images that are done and that there are to do.

    Returns:
        The sentence of each image that cannot be read, by row, ascending.
    """
    if not table.files:
        return {}
    kept_N = np.zeros(len(table), bool) if table.cache is None else table.cache.kept_N
    rows = np.flatnonzero(~kept_N).tolist()
    batch = 32
    loader: DataLoader[Any] = DataLoader(
        _Trying(table),
        batch,
        sampler=rows,
        num_workers=min(num_workers, -(-len(rows) // batch)),
        collate_fn=list,
        worker_init_fn=begin_worker,
        generator=torch.Generator(),
    )
    found: dict[int, str] = {}
    done = 0
    for part in loader:
        found.update((row, sentence) for row, sentence in part if sentence)
        done += len(part)
        if progress is not None:
            progress(done, len(rows))
    return found
