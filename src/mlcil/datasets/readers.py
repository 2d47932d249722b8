"""Worker processes that read images, the same ones for all sessions of a run.

A worker is told which image and which draws: ``(source, row, key)``. The table of a split does not change while a run
goes on, so nothing that a worker knows becomes old; labels and sessions are added in the main process.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mlcil.datasets.table import ImageTable
from mlcil.errors import UserError

Key = tuple[int, ...]
Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True, eq=False)
class ImageSource:
    """The images of a table at one size, augmented or not.

    Attributes:
        table: the split's images.
        image_size: side of the square images in pixels; the table's ``fit`` brings them to it.
        augment: training augmentation on (H, W, 3) uint8, or ``None``. One with a true ``whole`` gets the image
            as it is and brings it to the size itself; of one with a true ``on_device`` the draws are made here alone.
        skip: worker processes report an image that cannot be read instead of raising.
    """

    table: ImageTable
    image_size: int
    augment: Augment | None = None
    skip: bool = False

    def same_as(self, other: ImageSource) -> bool:
        """Whether both give the same images."""
        parts = (self.table is other.table, self.augment is other.augment)
        return all(parts) and (self.image_size, self.skip) == (other.image_size, other.skip)

    def read(self, row: int, key: Key | None, missing: bool = False) -> tuple[Tensor, Tensor]:
        """uint8 (H, W, 3), and the draws of an augmentation that is still to be done, float64 (K,), else of length 0.

        From a table with maps its float32 (K, h, w) instead of the image.

        Args:
            row: of the table.
            key: seed of the augmentation's draws.
            missing: a black image in its place.

        Raises:
            UserError: the image cannot be read.
        """
        maps = self.table.maps if self.augment is None else None
        if maps is not None and (missing or maps.known[row]):
            return torch.from_numpy(maps.values[row]), torch.empty(0, dtype=torch.float64)
        if missing:
            image = np.zeros((self.image_size, self.image_size, 3), np.uint8)
        elif getattr(self.augment, "whole", False):
            image = np.asarray(self.table.image(row))
        else:
            image = self.table.fitted(row, self.image_size)
        if self.augment is not None:
            assert key is not None, "augmented views are read through a SessionSampler"
            rng = np.random.default_rng(np.random.SeedSequence(key))
            if getattr(self.augment, "on_device", False):
                draws = np.array(self.augment.draw(rng))  # type: ignore[attr-defined]
                return torch.from_numpy(np.array(image)), torch.from_numpy(draws)
            image = self.augment(image, rng)
        if maps is not None:
            raise UserError(
                f"{self.table.files[row]} can be read now but could not when the run began; go on with --resume"
            )
        return torch.from_numpy(np.array(image)), torch.empty(0, dtype=torch.float64)


class _Reading(Dataset[tuple[Tensor, Tensor, str]]):
    """What a worker process does: an image, its draws and an empty string, or a black one and why there is none."""

    def __init__(self, sources: tuple[ImageSource, ...]) -> None:
        self.sources = sources

    def __getitem__(self, item: tuple[int, int, Key]) -> tuple[Tensor, Tensor, str]:
        number, row, key = item
        source = self.sources[number]
        try:
            return *source.read(row, key), ""
        except UserError as error:
            if not source.skip:
                raise
            return *source.read(row, key, missing=True), str(error)


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
        num_workers: how many, at least 1.
        sources: what will be read.
    """

    def __init__(self, num_workers: int, sources: Iterable[ImageSource] = ()) -> None:
        assert num_workers > 0
        self.num_workers, self.sources = num_workers, list(sources)
        self._orders = _Orders()
        self._loader: DataLoader[Any] | None = None
        self._busy = False

    @property
    def pids(self) -> list[int]:
        """Ids of the processes; empty before the first pass."""
        iterator: Any = self._loader._iterator if self._loader is not None else None
        return [worker.pid for worker in iterator._workers] if iterator is not None else []

    def batches(
        self, source: ImageSource, orders: Iterable[list[tuple[int, Key]]]
    ) -> Iterator[tuple[Tensor, Tensor, Any]]:
        """One pass.

        Args:
            source: where the images are.
            orders: for each batch the rows and keys of its B images.

        Yields:
            (B, H, W, 3) uint8, their draws (B, K) and B sentences, each empty unless its image could not be read.

        Raises:
            UserError: an image cannot be read, and the source does not skip it.
            RuntimeError: a process is gone; its text begins with ``DataLoader worker``, as PyTorch's own does.
        """
        if self._busy:  # a pass inside another one has processes of its own
            inner = Readers(self.num_workers, self.sources)
            try:
                yield from inner.batches(source, orders)
            finally:
                inner.close()
            return
        number = self._number_of(source)
        if self._loader is None:
            self._loader = self._begin()
        self._orders.now = ([(number, row, key) for row, key in order] for order in orders)
        self._busy = True
        try:
            yield from self._loader
        except (ConnectionError, EOFError, FileNotFoundError) as error:
            self._check_processes(error)  # one that is killed while it hands over a batch leaves these
            raise
        finally:
            self._busy = False

    def _check_processes(self, error: Exception) -> None:
        iterator: Any = self._loader._iterator if self._loader is not None else None
        for worker in iterator._workers if iterator is not None else []:
            worker.join(1.0)
            if not worker.is_alive():
                raise RuntimeError(f"DataLoader worker (pid {worker.pid}) is gone: {error!r}") from error

    def _number_of(self, source: ImageSource) -> int:
        for number, known in enumerate(self.sources):
            if known.same_as(source):
                return number
        self.close()
        self.sources.append(source)
        return len(self.sources) - 1

    def _begin(self) -> DataLoader[Any]:
        return DataLoader(
            _Reading(tuple(self.sources)),
            batch_sampler=self._orders,  # type: ignore[arg-type]
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=True,
            worker_init_fn=_begin_worker,
            generator=torch.Generator(),  # draws nothing from the run's
        )

    def close(self) -> None:
        """End the processes; a later pass begins new ones."""
        loader, self._loader = self._loader, None
        iterator: Any = loader._iterator if loader is not None else None
        if iterator is not None:
            iterator._shutdown_workers()


def _begin_worker(_: int) -> None:
    gc.freeze()  # other processes' handles, inherited and out of use, are not this process's to end
    torch.set_num_threads(1)
    # Ctrl-C is the parent's business; SIGTERM ends a worker as usual, whatever the parent does at it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
