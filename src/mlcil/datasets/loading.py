"""From rows of an :class:`~mlcil.datasets.table.ImageTable` to batches.

Randomness is stateless: the sampler hands out ``(position, key)`` and the augmentation of an image depends
on ``key = (seed, session, epoch, place in the epoch)`` alone. Hence the same figures with any number of
worker processes, and an interrupted run needs no worker state to go on exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from mlcil.datasets.table import ImageTable
from mlcil.datasets.transforms import to_tensor
from mlcil.errors import UserError

Key = tuple[int, ...]
Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class SessionView(Dataset[dict[str, Any]]):
    """Some rows of a table with the labels that may be seen.

    Args:
        table: the split's images.
        rows: (N,) int64 rows of the table.
        targets: (N, C) int8, 1 present, 0 absent, -1 not judged.
        image_size: side of the square images in pixels; the table's ``fit`` brings them to it.
        augment: training augmentation on (H, W, 3) uint8, or ``None``. One with a true ``whole`` gets the image
            as it is and brings it to the size itself.
        origins: (N,) session each image was stored in; by default ``session``.
        session: the running session.
    """

    def __init__(
        self,
        table: ImageTable,
        rows: np.ndarray,
        targets: np.ndarray,
        image_size: int,
        augment: Augment | None = None,
        origins: np.ndarray | None = None,
        session: int = 0,
    ) -> None:
        assert len(rows) == len(targets)
        self.table, self.rows, self.targets = table, rows, targets
        self.origins = np.full(len(rows), session, np.int64) if origins is None else origins
        self.image_size, self.augment = image_size, augment

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int | tuple[int, Key]) -> dict[str, Any]:
        """``inputs`` float32 (3, H, W) in [0, 1], ``targets`` float32 (C), ``rows``, ``origins``."""
        position, key = item if isinstance(item, tuple) else (item, None)
        row = int(self.rows[position])
        if getattr(self.augment, "whole", False):
            image = np.asarray(self.table.image(row))
        else:
            image = self.table.fitted(row, self.image_size)
        if self.augment is not None:
            assert key is not None, "augmented views are read through a SessionSampler"
            image = self.augment(image, np.random.default_rng(np.random.SeedSequence(key)))
        return {
            "inputs": to_tensor(image),
            "targets": torch.from_numpy(self.targets[position].astype(np.float32)),
            "rows": row,
            "origins": int(self.origins[position]),
        }


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
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (restarts at 0 in every session)."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.shuffle:
            return -(-self.length // self.world_size)
        return len(range(self.rank, self.length, self.world_size))

    def __iter__(self) -> Iterator[tuple[int, Key]]:
        key = (self.seed, self.session, self.epoch)
        order = np.arange(self.length)
        if self.shuffle:
            order = np.random.default_rng(key).permutation(self.length)
            order = np.resize(order, len(self) * self.world_size)
        for place in range(self.rank, len(order), self.world_size):
            yield int(order[place]), (*key, place)


class Loader(DataLoader[dict[str, Any]]):
    """A ``DataLoader`` that raises the :class:`UserError` of a worker process as it was raised there."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except UserError as error:
            # torch raises it again with the worker's printed traceback as its text, which ends in the sentence
            sentence = str(error).rstrip().splitlines()[-1]
            raise UserError(sentence.removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")) from None


def build_loader(
    view: SessionView, sampler: SessionSampler, batch_size: int, num_workers: int = 0, drop_last: bool = False
) -> Loader:
    """A loader over the view.

    Args:
        view, sampler: the images and their order.
        batch_size: images a batch.
        num_workers: processes that read images; 0 reads in this one.
        drop_last: leave out the last batch when it is smaller (R-DFCIL and ABD); a view with less than one batch
            keeps it.

    Iterating raises :class:`UserError` when an image cannot be read.
    """
    return Loader(
        view,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        drop_last=drop_last and len(sampler) >= batch_size,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        worker_init_fn=_one_thread if num_workers else None,
    )


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
