"""The augmentation of batches against that of single images, bit by bit."""

import numpy as np
import pytest
import torch
from PIL import Image

from mlcil.datasets.randaugment import LEVELS, NAMES, Operation, apply_operation
from mlcil.datasets.tensor_augment import TensorAugment, tensor_operation
from mlcil.datasets.transforms import TrainTransform

SIDE = 48


def pictures():
    """Noise, slopes, and channels with one level, two levels, few dark pixels."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (3, SIDE, SIDE, 3))
    narrow = rng.integers(90, 130, (1, SIDE, SIDE, 3))
    slope = np.linspace(0, 255, SIDE).astype(int)[None, None, :, None] * np.ones((1, SIDE, 1, 3), int)
    flat = np.full((1, SIDE, SIDE, 3), 7)
    two = (rng.random((1, SIDE, SIDE, 3)) < 0.001) * np.array([255, 1, 90])
    rare = np.where(rng.random((1, SIDE, SIDE, 3)) < 0.95, 250, rng.integers(0, 256, (1, SIDE, SIDE, 3)))
    return np.concatenate([noise, narrow, slope, flat, two, rare]).astype(np.uint8)


@pytest.mark.parametrize("name", NAMES)
def test_operations_are_those_of_single_images(name):
    images, expected, operations = [], [], []
    rng = np.random.default_rng(1)
    for picture in pictures():
        for index in range(1, LEVELS):
            for sign in (1, -1):
                operation = Operation(NAMES.index(name), index, sign, *rng.uniform(0, SIDE, 2).tolist())
                centre = (operation.x, operation.y)
                images.append(picture)
                operations.append(operation)
                single = apply_operation(Image.fromarray(picture), name, index, sign, centre)
                expected.append(np.asarray(single))
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    before = batch.clone()
    found = tensor_operation(batch, name, operations)
    np.testing.assert_array_equal(found.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    assert torch.equal(batch, before)


@pytest.mark.parametrize("options", [{}, {"flip": True}, {"cutout": 0.0}, {"randaugment": False, "flip": True}])
def test_whole_transform(options):
    single = TrainTransform(SIDE, **options)
    deferred = TrainTransform(SIDE, **options, on_device=True)
    work, images = TensorAugment(deferred), pictures()
    changed = 0
    for round_ in range(25):
        keys = [(round_, place) for place in range(len(images))]
        expected = [single(image, np.random.default_rng(key)) for image, key in zip(images, keys, strict=True)]
        draws = np.array([deferred.draw(np.random.default_rng(key)) for key in keys])
        found = work(torch.from_numpy(images), torch.from_numpy(draws))
        np.testing.assert_array_equal(found.numpy(), np.stack(expected))
        changed += int((found.numpy() != images).any())
    assert changed == 25
