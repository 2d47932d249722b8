"""KRT's training augmentation: Cutout, then RandAugment of the pip package randaugment 1.0.2.

What is drawn stands apart from what is done with it, because :mod:`mlcil.datasets.tensor_augment` does the same to
whole batches on the training device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mlcil.datasets.shear import shear_x, shear_y

GREY = (128, 128, 128)
CUTOUT_GREY = (125, 122, 113)
LEVELS = 10  # magnitudes are points 1..9 of ten equal steps from nothing to the strongest
EXECUTED = 0.5  # probability that a drawn operation is executed


class Square(NamedTuple):
    """What :class:`Cutout` draws: a side in pixels, its centre and its colour."""

    side: int
    row: int
    column: int
    red: int
    green: int
    blue: int


def box_of(square: Square, height: int, width: int) -> tuple[int, int, int, int]:
    """First column, first row, and the column and row behind the last ones.

    Corners are centre -+ side // 2 clipped to the image, ends inclusive.
    """
    reach = square.side // 2
    left, top = max(square.column - reach, 0), max(square.row - reach, 0)
    return left, top, min(square.column + reach + 1, width), min(square.row + reach + 1, height)


def draw_cutout(image: Image.Image, square: Square) -> Image.Image:
    """A copy of the image with the square in its colour."""
    image = image.copy()
    image.paste((square.red, square.green, square.blue), box_of(square, image.height, image.width))
    return image


class Cutout:
    """A square of ``factor`` times the image side in a random colour, always applied (KRT: factor 0.5)."""

    def __init__(self, factor: float = 0.5) -> None:
        self.factor = factor

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Square:
        """Draw centre row, centre column, then the colour."""
        row, column = int(rng.integers(height)), int(rng.integers(width))
        return Square(int(self.factor * width + 0.5), row, column, *rng.integers(0, 256, size=3).tolist())

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Transform an image."""
        return draw_cutout(image, self.draw(rng, image.height, image.width))


def translated(image: Image.Image, across: float, down: float) -> Image.Image:
    """Every pixel from so many pixels further right and further down, the nearest one; grey from outside."""
    matrix = (1, 0, across, 0, 1, down)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=GREY)


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    turned = image.convert("RGBA").rotate(degrees)
    return Image.composite(turned, Image.new("RGBA", image.size, (128,) * 4), turned).convert(image.mode)


def grey_box(reach: int, centre: tuple[float, float], height: int, width: int) -> tuple[int, int, int, int]:
    """First column, first row, and the column and row behind the last ones, of the Cutout operation."""
    x, y = centre
    return int(max(0, x - reach)), int(max(0, y - reach)), int(min(width, x + reach)), int(min(height, y + reach))


def _grey_square(image: Image.Image, reach: int, centre: tuple[float, float]) -> Image.Image:
    image = image.copy()
    image.paste(CUTOUT_GREY, grey_box(reach, centre, image.height, image.width))
    return image


def _steps(strongest: float, weakest: float = 0.0) -> tuple[float, ...]:
    return tuple(float(v) for v in np.linspace(weakest, strongest, LEVELS))


def _whole(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(round(v)) for v in values)


#: operation -> its parameter at index 0..9 (index 0 is never drawn)
MAGNITUDES: dict[str, tuple[float, ...]] = {
    "ShearX": _steps(0.3),
    "ShearY": _steps(0.3),
    "TranslateX": _steps(150 / 331),
    "TranslateY": _steps(150 / 331),
    "Rotate": _steps(30),
    "Color": _steps(0.9),
    "Posterize": _whole(_steps(4, 8)),
    "Solarize": _steps(0, 256),
    "Contrast": _steps(0.9),
    "Sharpness": _steps(0.9),
    "Brightness": _steps(0.9),
    "AutoContrast": (0.0,) * LEVELS,
    "Equalize": (0.0,) * LEVELS,
    "Invert": (0.0,) * LEVELS,
    "Cutout": _whole(_steps(20)),
}
NAMES = tuple(MAGNITUDES)
_Operation = Callable[[Image.Image, float, int], Image.Image]
_OPERATIONS: dict[str, _Operation] = {
    "ShearX": lambda im, m, s: shear_x(im, m * s, GREY),
    "ShearY": lambda im, m, s: shear_y(im, m * s, GREY),
    "TranslateX": lambda im, m, s: translated(im, m * im.width * s, 0),
    "TranslateY": lambda im, m, s: translated(im, 0, m * im.height * s),
    "Rotate": lambda im, m, s: _rotate(im, m),
    "Color": lambda im, m, s: ImageEnhance.Color(im).enhance(1 + m * s),
    "Contrast": lambda im, m, s: ImageEnhance.Contrast(im).enhance(1 + m * s),
    "Sharpness": lambda im, m, s: ImageEnhance.Sharpness(im).enhance(1 + m * s),
    "Brightness": lambda im, m, s: ImageEnhance.Brightness(im).enhance(1 + m * s),
    "Posterize": lambda im, m, s: ImageOps.posterize(im, int(m)),
    "Solarize": lambda im, m, s: im.point([v if v < m else 255 - v for v in range(256)] * 3),
    "AutoContrast": lambda im, m, s: ImageOps.autocontrast(im),
    "Equalize": lambda im, m, s: ImageOps.equalize(im),
    "Invert": lambda im, m, s: ImageOps.invert(im),
}


def apply_operation(
    image: Image.Image, name: str, index: int, sign: int = 1, centre: tuple[float, float] | None = None
) -> Image.Image:
    """One RandAugment operation.

    Args:
        image: RGB.
        name: key of :data:`MAGNITUDES`.
        index: magnitude index 1..9.
        sign: +1 or -1 where the operation has a direction.
        centre: (x, y) of the Cutout operation, which needs it.
    """
    magnitude = MAGNITUDES[name][index]
    if name == "Cutout":
        assert centre is not None, "the Cutout operation needs a centre"
        return _grey_square(image, int(magnitude) // 2, centre)
    return _OPERATIONS[name](image, magnitude, sign)


class Operation(NamedTuple):
    """What :class:`RandAugment` draws for one operation.

    Attributes:
        number: place in :data:`NAMES`, or -1 when the operation is not executed.
        level: index of the magnitude, 1..9.
        sign: +1 or -1.
        x, y: centre of the Cutout operation.
    """

    number: int
    level: int
    sign: int
    x: float
    y: float


def operations_of(drawn: list[float]) -> list[Operation]:
    """The operations of :meth:`RandAugment.draw`."""
    width = len(Operation._fields)
    parts = [drawn[start : start + width] for start in range(0, len(drawn), width)]
    return [Operation(int(number), int(index), int(sign), x, y) for number, index, sign, x, y in parts]


class RandAugment:
    """Two operations drawn uniformly from 15 x 9 each; each is executed with probability one half."""

    names = NAMES

    def draw(self, rng: np.random.Generator, height: int, width: int) -> list[float]:
        """Draw the pair, then per operation whether, sign and centre; an :class:`Operation` behind the other."""
        drawn: list[float] = []
        for number, index in rng.integers((0, 1), (len(NAMES), LEVELS), size=(2, 2)).tolist():
            executed, sign = rng.random(2).tolist()
            x, y = float(rng.uniform(0, width)), float(rng.uniform(0, height))
            drawn += Operation(number if executed < EXECUTED else -1, index, 1 if sign < 0.5 else -1, x, y)
        return drawn

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Transform an image."""
        drawn = self.draw(rng, image.height, image.width)
        for operation in operations_of(drawn):
            if operation.number >= 0:
                name, centre = NAMES[operation.number], (operation.x, operation.y)
                image = apply_operation(image, name, operation.level, operation.sign, centre)
        return image
