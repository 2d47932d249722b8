"""Cutout and the RandAugment operations against the pictures that the official code made (cases o and p)."""

import random
import re

import numpy as np
import parity_fixtures
import pytest
from PIL import Image

from mlcil.datasets.randaugment import LEVELS, MAGNITUDES, Square, apply_operation, draw_cutout

Z = parity_fixtures.load()
CUTOUT_FACTOR = 0.5  # of the official configuration
NUMPY_SEED = 5  # of the grey-square centres, told in krt_parity.md
GREY_LEVELS = 2  # interpolation and enhancement round differently between Pillow versions

CUTOUTS = sorted({name.split("/")[1] for name in Z.files if re.fullmatch(r"o/[^/]+/out", name)})
OPERATIONS = sorted(name for name in Z.files if re.fullmatch(r"p/\w+/m\d+/s-?\d+", name))
NAMES = sorted(str(name) for name in Z["p/op_names"])


def test_there_is_something_to_compare():
    assert CUTOUTS
    assert {name.split("/")[1] for name in OPERATIONS} == set(NAMES)


@pytest.mark.parametrize("case", CUTOUTS)
def test_cutout_is_exact(case):
    image = Image.fromarray(Z["o/image_square"])
    before = np.array(image)
    seed = int(Z[f"o/{case}/seed_value"])
    draws, colours = np.random.RandomState(seed), random.Random(seed)
    row, column = int(draws.randint(image.height)), int(draws.randint(image.width))
    red, green, blue = (colours.randint(0, 255) for _ in range(3))
    side = int(CUTOUT_FACTOR * image.width + 0.5)
    found = draw_cutout(image, Square(side, row, column, red, green, blue))
    np.testing.assert_array_equal(np.asarray(found), Z[f"o/{case}/out"])
    np.testing.assert_array_equal(np.asarray(image), before, err_msg="the given image was changed")


@pytest.mark.parametrize("case", OPERATIONS)
def test_operation(case):
    _, name, magnitude, sign = case.split("/")
    image = Image.fromarray(Z["p/image"])
    before = np.array(image)
    draws = np.random.RandomState(NUMPY_SEED)
    centre = (float(draws.randint(image.width)), float(draws.randint(image.height)))
    found = apply_operation(image, name, int(magnitude[1:]), int(sign[1:]), centre=centre)
    assert (found.mode, found.size) == (image.mode, image.size)
    np.testing.assert_allclose(np.asarray(found, int), Z[case].astype(int), rtol=0, atol=GREY_LEVELS)
    np.testing.assert_array_equal(np.asarray(image), before, err_msg="the given image was changed")


@pytest.mark.parametrize("name", NAMES)
def test_magnitudes(name):
    expected = Z[f"p/{name}/magnitude_values_m1_to_m9"]
    np.testing.assert_allclose(MAGNITUDES[name][1:], expected, rtol=1e-12, atol=1e-12)


def test_number_of_policies():
    assert sorted(MAGNITUDES) == NAMES
    assert (len(MAGNITUDES) * (LEVELS - 1)) ** 2 == int(Z["p/n_policies"])
