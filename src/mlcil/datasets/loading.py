"""From rows of an :class:`~mlcil.datasets.table.ImageTable` to batches.

Randomness is stateless: the sampler hands out ``(position, key)`` and the augmentation of an image depends
on ``key = (seed, session, epoch, place in the epoch)`` alone. Hence the same figures with any number of
worker processes, and an interrupted run needs no worker state to go on exactly.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mlcil.datasets.readers import Augment, ImageSource, Key, Readers
from mlcil.datasets.table import ImageTable
from mlcil.errors import UserError
from mlcil.protocols import check_option

BAD_IMAGE = ("raise", "skip")


class BadImages:
    """What happens to an image that cannot be read, and which ones there were.

    Args:
        policy: ``raise`` stops with its sentence. ``skip`` goes on: in training the next readable image of the view
            stands in for it, with its own labels; in a prediction pass it is left out, so that it is neither
            stored nor counted in a metric.
        tell: called once for every such image with its sentence.

    Attributes:
        found: sentences by split and row.
    """

    def __init__(self, policy: str = "raise", tell: Callable[[str], None] | None = None) -> None:
        check_option("on_bad_image", policy, BAD_IMAGE)
        self.policy, self.tell = policy, tell
        self.found: dict[str, dict[int, str]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.found.values()))

    def add(self, split: str, row: int, sentence: str) -> None:
        """Remember an image; tell of it when it is new."""
        known = self.found.setdefault(split, {})
        if row not in known:
            known[row] = sentence
            if self.tell is not None:
                self.tell(f"image skipped: {sentence}")

    def merge(self, found: dict[str, dict[int, str]]) -> None:
        """Add what another process found."""
        for split, rows in found.items():
            for row, sentence in rows.items():
                self.add(split, row, sentence)

    def state_dict(self) -> dict[str, Any]:
        """Builtins only."""
        return {split: dict(rows) for split, rows in self.found.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.found = {split: {int(row): str(why) for row, why in rows.items()} for split, rows in state.items()}


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
        bad_images: what happens to images that cannot be read; they raise when it is ``None``.
        whole_pass: a prediction pass: an image that is skipped is a black one, which the caller leaves out.
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
        bad_images: BadImages | None = None,
        whole_pass: bool = False,
    ) -> None:
        assert len(rows) == len(targets)
        self.bad_images, self.whole_pass = bad_images, whole_pass
        self.skips = bad_images is not None and bad_images.policy == "skip"
        self.source = ImageSource(table, image_size, augment, self.skips)
        self.table, self.rows, self.targets = table, rows, targets
        self.origins = np.full(len(rows), session, np.int64) if origins is None else origins

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int | tuple[int, Key]) -> dict[str, Any]:
        """``inputs`` uint8 (H, W, 3), ``targets`` float32 (C), ``rows``, ``origins``.

        With an augmentation on the device also ``draws`` float64 (K). Where images may be skipped also ``bad_row``
        (-1 or the row that could not be read) and ``bad_reason``.
        """
        position, key = item if isinstance(item, tuple) else (item, None)
        if not self.skips:
            return self._item(position, key)
        first: tuple[int, str] = (-1, "")
        for step in range(len(self)):
            place = (position + step) % len(self)
            try:
                return {**self._item(place, key), "bad_row": first[0], "bad_reason": first[1]}
            except UserError as error:
                first = first if step else (int(self.rows[place]), str(error))
            if self.whole_pass:
                return {**self._item(place, key, missing=True), "bad_row": first[0], "bad_reason": first[1]}
        raise UserError(f"none of the {len(self)} images of a session can be read; the first one: {first[1]}")

    def _item(self, position: int, key: Key | None, missing: bool = False) -> dict[str, Any]:
        row = int(self.rows[position])
        image, draws = self.source.read(row, key, missing)
        item = {
            "inputs": image,
            "targets": torch.from_numpy(self.targets[position].astype(np.float32)),
            "rows": row,
            "origins": int(self.origins[position]),
        }
        return {**item, "draws": draws} if len(draws) else item

    def batch(
        self, entries: list[tuple[int, Key]], inputs: Tensor, draws: Tensor, reasons: list[str]
    ) -> dict[str, Any]:
        """The batch of these entries, as collated from single items, around images that another process has read.

        Args:
            entries: B positions and keys.
            inputs: (B, H, W, 3) their images.
            draws: (B, K) of an augmentation on the device; K is 0 without one.
            reasons: B sentences, each empty unless its image could not be read; that one is tried again here.
        """
        positions = [position for position, _ in entries]
        labels = {
            "targets": torch.from_numpy(self.targets[positions].astype(np.float32)),
            "rows": torch.from_numpy(self.rows[positions].astype(np.int64)),
            "origins": torch.from_numpy(self.origins[positions].astype(np.int64)),
        }
        if inputs.is_pinned():
            labels = {name: values.pin_memory() for name, values in labels.items()}
        batch: dict[str, Any] = {"inputs": inputs, **labels}
        if draws.shape[1]:
            batch["draws"] = draws
        if self.skips:
            batch.update(bad_row=torch.full((len(entries),), -1), bad_reason=[""] * len(entries))
            for place in np.flatnonzero([bool(reason) for reason in reasons]):
                for name, value in self[entries[place]].items():
                    batch[name][place] = value
        return batch


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


class Loader(DataLoader[dict[str, Any]]):
    """A ``DataLoader`` of this process, or one that lets worker processes read the images.

    It raises the :class:`UserError` of a worker process as it was raised there.

    Args:
        view: the images.
        readers: the worker processes; ``None`` reads in this process.
        close_readers: end these processes behind every pass.
        options: of ``DataLoader``.

    Attributes:
        unreadable: rows of images that were skipped in the passes so far.
    """

    def __init__(
        self, view: SessionView, readers: Readers | None = None, close_readers: bool = False, **options: Any
    ) -> None:
        super().__init__(view, **options)
        self.readers, self.close_readers = readers, close_readers
        self.unreadable: set[int] = set()

    @property
    def view(self) -> SessionView:
        """The images."""
        view = self.dataset
        assert isinstance(view, SessionView)
        return view

    @property
    def order(self) -> SessionSampler:
        """Which of them come when."""
        order = self.sampler
        assert isinstance(order, SessionSampler)
        return order

    def _take_out(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch without the report on skipped images, which is kept."""
        view: Any = self.dataset
        for row, reason in zip(batch.pop("bad_row", torch.zeros(0)).tolist(), batch.pop("bad_reason", []), strict=True):
            if row >= 0:
                self.unreadable.add(row)
                view.bad_images.add(view.table.name, row, reason)
        return batch

    def _read_by(self, readers: Readers) -> Iterator[dict[str, Any]]:
        view: Any = self.dataset
        torch.empty((), dtype=torch.int64).random_()  # a pass in this process draws a number too
        sent: deque[list[tuple[int, Key]]] = deque()

        def orders() -> Iterator[list[tuple[int, Key]]]:
            batches: Any = self.batch_sampler
            for entries in batches:
                sent.append(entries)
                yield [(int(view.rows[position]), key) for position, key in entries]

        for inputs, draws, reasons in readers.batches(view.source, orders()):
            yield view.batch(sent.popleft(), inputs, draws, reasons)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            for batch in super().__iter__() if self.readers is None else self._read_by(self.readers):
                yield self._take_out(batch)
        except UserError as error:
            # torch raises it again with the worker's printed traceback as its text, which ends in the sentence
            sentence = str(error).rstrip().splitlines()[-1]
            raise UserError(sentence.removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")) from None
        finally:
            if self.readers is not None and self.close_readers:
                self.readers.close()


def build_loader(
    view: SessionView,
    sampler: SessionSampler,
    batch_size: int,
    num_workers: int = 0,
    drop_last: bool = False,
    readers: Readers | None = None,
) -> Loader:
    """A loader over the view.

    Args:
        view, sampler: the images and their order.
        batch_size: images a batch.
        num_workers: processes that read images; 0 reads in this one.
        drop_last: leave out the last batch when it is smaller (R-DFCIL and ABD); a view with less than one batch
            keeps it.
        readers: these processes when they outlive the loader; else each pass has its own.

    Iterating raises :class:`UserError` when an image cannot be read.
    """
    own = Readers(num_workers, [view.source]) if num_workers and readers is None else None
    return Loader(
        view,
        own or (readers if num_workers else None),
        close_readers=own is not None,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=drop_last and len(sampler) >= batch_size,
        pin_memory=torch.cuda.is_available(),
    )
