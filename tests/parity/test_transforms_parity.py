"""Cutout and the RandAugment operations against the pictures that the official code made (cases o and p)."""

import random
import re

import numpy as np
from krt_fixtures import each
from PIL import Image

from mlcil.datasets.randaugment import LEVELS, MAGNITUDES, Square, apply_operation, draw_cutout

CUTOUT_FACTOR = 0.5  # of the official configuration
GREY_LEVELS = 2  # interpolation and enhancement round differently between Pillow versions


def operations(Z):
    return [key for key in Z.keys("p/") if re.fullmatch(r"p/\w+/m\d+/s-?\d+", key)]


def names(Z):
    return sorted(str(name) for name in Z["p/op_names"])


@each()
def test_every_operation_is_stored(Z):
    assert {key.split("/")[1] for key in operations(Z)} == set(names(Z))


@each("case", lambda Z: [case for case in Z.parts("o/") if f"o/{case}/out" in Z])
def test_cutout_is_exact(Z, case):
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


@each("case", operations)
def test_operation(Z, case):
    _, name, magnitude, sign = case.split("/")
    image = Image.fromarray(Z["p/image"])
    before = np.array(image)
    draws = np.random.RandomState(int(Z.told(r"numpy seeded (\d+)")[0]))  # of the grey square's centre
    centre = (float(draws.randint(image.width)), float(draws.randint(image.height)))
    found = apply_operation(image, name, int(magnitude[1:]), int(sign[1:]), centre=centre)
    assert (found.mode, found.size) == (image.mode, image.size)
    np.testing.assert_allclose(np.asarray(found, int), Z[case].astype(int), rtol=0, atol=GREY_LEVELS)
    np.testing.assert_array_equal(np.asarray(image), before, err_msg="the given image was changed")


@each("name", names)
def test_magnitudes(Z, name):
    expected = Z[f"p/{name}/magnitude_values_m1_to_m9"]
    np.testing.assert_allclose(MAGNITUDES[name][1:], expected, rtol=1e-12, atol=1e-12)


@each()
def test_number_of_policies(Z):
    assert sorted(MAGNITUDES) == names(Z)
    assert (len(MAGNITUDES) * (LEVELS - 1)) ** 2 == int(Z["p/n_policies"])
