"""Batches on their way to the network."""

import numpy as np
import pytest
import torch

from mlcil.datasets.loading import Loader, SessionSampler, SessionView
from mlcil.datasets.table import SingleLabelTable
from mlcil.datasets.tensor_augment import TensorAugment
from mlcil.datasets.transforms import TrainTransform
from mlcil.models.data_preprocessor import ImagePreprocessor, network_input
from mlcil.models.network import Maps

SIDE, ROWS = 24, 10


def images(count=ROWS):
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def test_network_input():
    found = network_input(torch.from_numpy(images()))
    assert found.dtype == torch.float32
    assert found.shape == (ROWS, 3, SIDE, SIDE)
    assert found.is_contiguous()
    np.testing.assert_array_equal(found.numpy(), images().transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))


def test_network_input_leaves_the_bytes_alone():
    given = torch.from_numpy(images())
    network_input(given).zero_()
    np.testing.assert_array_equal(given.numpy(), images())


def test_floats_stay_as_they_are():
    floats = torch.rand(2, 3, 4, 4)
    assert network_input(floats) is floats


@pytest.mark.parametrize("workers", [0, 2])
def test_augmenting_here_gives_the_loaders_images(workers):
    table = SingleLabelTable("train", ("a",), np.zeros(ROWS, int), pixels=images())
    batches = {}
    for on_device in (False, True):
        transform = TrainTransform(SIDE, flip=True, on_device=on_device)
        preprocessor = ImagePreprocessor()
        preprocessor.augment = TensorAugment(transform) if on_device else None
        view = SessionView(table, np.arange(ROWS), table.labels_NC, SIDE, transform)
        loader = Loader(view, SessionSampler(ROWS, 0, 0, shuffle=True), 4, workers)
        loaded = [dict(batch) for batch in loader]
        assert all(("draws" in batch) == on_device for batch in loaded)
        batches[on_device] = [preprocessor(batch) for batch in loaded]
        again = [preprocessor(batch) for batch in loaded]  # a sharpness-aware step asks twice
        for first, second in zip(batches[on_device], again, strict=True):
            assert torch.equal(first["inputs"], second["inputs"])
    for here, there in zip(batches[False], batches[True], strict=True):
        assert sorted(here) == sorted(there) == ["inputs", "origins", "rows", "targets"]
        for name, value in here.items():
            assert torch.equal(value, there[name]), name


def test_a_batch_says_whether_it_holds_images_or_maps():
    maps = np.random.default_rng(1).random((ROWS, 5, 2, 2), np.float32)
    table = SingleLabelTable("train", ("a",), np.zeros(ROWS, int), pixels=images()).with_maps(maps)
    for transform, kind in ((None, "maps"), (TrainTransform(SIDE, flip=True), "inputs")):
        view = SessionView(table, np.array([4, 1]), table.labels_NC[:2], SIDE, transform)
        (batch,) = Loader(view, SessionSampler(2, 0, 0, shuffle=False), 2)
        assert {"maps", "inputs"} & batch.keys() == {kind}
        ready = ImagePreprocessor()(batch)
        assert sorted(ready) == ["inputs", "origins", "rows", "targets"]
        assert isinstance(ready["inputs"], Maps) == (kind == "maps")
        if kind == "maps":
            np.testing.assert_array_equal(ready["inputs"].plain().numpy(), maps[[4, 1]])
