"""Repeated augmentation: several views of an image in the same batch (Hoffer et al., CVPR 2020)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mlcil.datasets.loading import Key, SessionSampler
from mlcil.errors import UserError

#: an epoch has a whole number of so many images, over all processes
GRANULARITY = 256


class RepeatedAugmentationSampler(SessionSampler):
    """``repeats`` views of each image in a row, and of that stream as many entries as there are images.

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
