"""Other orders than a shuffle: several views of an image in a batch, stored images beside every batch of new ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch

from mlcil.datasets.loading import Key, SessionSampler
from mlcil.errors import UserError

#: an epoch has a whole number of so many images, over all processes
GRANULARITY = 256


class RepeatedAugmentationSampler(SessionSampler):
    """``repeats`` views of each image in a row, and of that stream as many entries as there are images.

    Repeated augmentation (Hoffer et al., CVPR 2020).

    The rule of timm, which DeiT, DyTox, DKT and DAFormer train with: shuffle by the epoch number alone,
    repeat every image, deal the stream to the processes, and use the first ``N // 256 * 256`` entries. So an
    epoch visits about ``N / repeats`` images. Updates are whole: what is left behind the last full one is not
    used, unless it is the only one.

    Args:
        length: images N in the view.
        seed, session: bases of the augmentation keys; the shuffle does not depend on them.
        batch_size: images a process sees in one update; ``None`` does not cut to whole updates.
        repeats: views of an image.
        rank, world_size: this process and how many there are.

    Raises:
        UserError: fewer than 256 images, for which the rule gives an empty epoch.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        session: int,
        batch_size: int | None = None,
        repeats: int = 3,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(length, seed, session, shuffle=True, rank=rank, world_size=world_size)
        if length < GRANULARITY:
            raise UserError(
                f"session {session} has {length} training images, but repeated augmentation needs at least "
                f"{GRANULARITY}; set train_cfg.repeated_augmentation=1"
            )
        self.repeats = repeats
        self.used = length // GRANULARITY * GRANULARITY // world_size
        if batch_size is not None and self.used > batch_size:
            self.used = self.used // batch_size * batch_size

    def __len__(self) -> int:
        return self.used

    def entries(self) -> Iterator[tuple[int, Key]]:
        order = torch.randperm(self.length, generator=torch.Generator().manual_seed(self.epoch))
        stream = order.repeat_interleave(self.repeats)
        short = -len(stream) % self.world_size
        stream = torch.cat([stream, stream[:short]])
        for place in range(self.rank, len(stream), self.world_size)[: self.used]:
            yield int(stream[place]), (self.seed, self.session, self.epoch, place)


class PairedSampler(SessionSampler):
    """A shuffled pass over the new images; behind each batch of them as many stored ones (experience replay).

    Stored images are drawn without repeats inside a batch, where there are enough, and anew for every batch and
    process. Batches of a loader have twice as many images as those of new images.

    Args:
        new, stored: positions (N,) and (M,) in the view, at least one each.
        batch_size: new images a batch.
        seed, session, rank, world_size: see :class:`~mlcil.datasets.loading.SessionSampler`.
    """

    def __init__(
        self,
        new: np.ndarray,
        stored: np.ndarray,
        batch_size: int,
        seed: int,
        session: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(len(new), seed, session, shuffle=True, rank=rank, world_size=world_size)
        self.new, self.stored, self.batch_size = new, stored, batch_size

    def __len__(self) -> int:
        return 2 * super().__len__()

    def entries(self) -> Iterator[tuple[int, Key]]:
        count, key = len(self.stored), (self.seed, self.session, self.epoch)
        order = np.random.default_rng(key).permutation(self.length)
        mine = np.resize(order, len(self) // 2 * self.world_size)[self.rank :: self.world_size]
        for number, start in enumerate(range(0, len(mine), self.batch_size)):
            part = mine[start : start + self.batch_size]
            drawn = np.random.default_rng((*key, 1 + self.rank, number)).permutation(count)
            replayed = np.resize(drawn, len(part))
            for offset, position in enumerate(itertools.chain(self.new[part], self.stored[replayed])):
                yield int(position), (*key, 1 + self.rank, 2 * start + offset)
