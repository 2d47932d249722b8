"""Stored images beside every batch of new ones; repeated augmentation is tested against the official rule."""

import numpy as np
import pytest

from mlcil.datasets.sampling import PairedSampler

NEW, STORED = np.arange(100, 110), np.arange(200, 206)


def sampler(batch_size=4, stored=STORED, rank=0, world_size=1, epoch=0):
    made = PairedSampler(NEW, stored, batch_size, seed=1, session=2, rank=rank, world_size=world_size)
    made.set_epoch(epoch)
    return made


def test_every_batch_has_as_many_stored_images_as_new_ones():
    positions = [position for position, _ in sampler()]
    assert len(positions) == len(sampler()) == 20
    for start, new in ((0, 4), (8, 4), (16, 2)):
        batch = positions[start : start + 2 * new]
        assert set(batch[:new]) <= set(NEW)
        assert set(batch[new:]) <= set(STORED)
        assert len(set(batch)) == 2 * new  # drawn without repeats
    assert sorted(p for p in positions if p < 200) == NEW.tolist()


def test_a_small_memory_is_repeated():
    positions = [position for position, _ in sampler(stored=STORED[:1])]
    assert positions.count(200) == 10


def test_draws_change_with_epoch_and_process_and_keys_are_all_different():
    passes = [list(sampler(rank=rank, world_size=2, epoch=epoch)) for epoch in (0, 1) for rank in (0, 1)]
    assert passes[0] == list(sampler(rank=0, world_size=2))
    assert len({tuple(p for p, _ in entries if p >= 200) for entries in passes}) == 4
    keys = [key for entries in passes for _, key in entries]
    assert len(set(keys)) == len(keys)
    for epoch in (0, 1):  # each new image in one of the processes
        new = [p for entries in passes[2 * epoch : 2 * epoch + 2] for p, _ in entries if p < 200]
        assert sorted(new) == NEW.tolist()


@pytest.mark.parametrize("batch", [1, 2])
def test_an_epoch_goes_on_inside(batch):
    whole, rest = list(sampler()), sampler()
    rest.set_epoch(0, start=8 * batch)
    assert list(rest) == whole[8 * batch :]
