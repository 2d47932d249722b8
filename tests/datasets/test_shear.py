"""Shears against Pillow's, bit by bit."""

import numpy as np
import pytest
from PIL import Image

from mlcil.datasets.augment import FILL
from mlcil.datasets.randaugment import GREY, MAGNITUDES
from mlcil.datasets.shear import shear_x, shear_y

rng = np.random.default_rng(0)
AMOUNTS = [sign * value for value in MAGNITUDES["ShearX"] for sign in (1, -1)]
PICTURES = {
    "noise": rng.integers(0, 256, (67, 67, 3)),
    "noise as large as photos": rng.integers(0, 256, (224, 224, 3)),
    "wide": rng.integers(0, 256, (20, 61, 3)),
    "high": rng.integers(0, 256, (61, 20, 3)),
    "steps": (np.indices((64, 64)).sum(0) // 5 % 2 * 255)[..., None].repeat(3, 2),
    "slope": np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3),
    "one pixel": np.full((1, 1, 3), 77),
}


@pytest.mark.parametrize("fill", [GREY, FILL])
@pytest.mark.parametrize("name", PICTURES)
def test_shears_are_pillows(name, fill):
    image = Image.fromarray(PICTURES[name].astype(np.uint8))
    drawn = np.random.default_rng(1).uniform(-0.3, 0.3, 6)
    for amount in (*AMOUNTS, *drawn, 0.5, -1.0, 7.25):
        for shear, matrix in ((shear_x, (1, amount, 0, 0, 1, 0)), (shear_y, (1, 0, 0, amount, 1, 0))):
            kind, how = Image.Transform.AFFINE, Image.Resampling.BICUBIC
            expected = image.transform(image.size, kind, matrix, how, fillcolor=fill)
            found = shear(image, amount, fill)
            assert (found.mode, found.size) == ("RGB", image.size)
            np.testing.assert_array_equal(np.asarray(found), np.asarray(expected), err_msg=f"{shear} {amount}")


def test_results_are_kept_apart():
    image = Image.fromarray(PICTURES["noise"].astype(np.uint8))
    first = shear_x(image, 0.1, GREY)
    before = np.array(first)
    shear_x(image, -0.2, GREY)
    np.testing.assert_array_equal(np.asarray(first), before)
    np.testing.assert_array_equal(np.asarray(image), PICTURES["noise"])
