"""Bicubic shears of an image, the same bits as Pillow's in less than half the time.

A shear moves every row by another amount. Pillow evaluates a polynomial in both directions, of which one is a whole
pixel at a distance of zero; here the other is evaluated alone, with Pillow's formula in Pillow's order of operations:
double precision, the cubic kernel with a = -1, cut off to whole grey levels.
"""

from __future__ import annotations

import threading

import numpy as np
from PIL import Image

_kept = threading.local()  # arrays of the last image's size; new ones for each image cost more than the arithmetic


class _Arrays:
    def __init__(self, height: int, width: int) -> None:
        self.at = np.empty((height, width))
        self.values = np.empty((3, height, width))
        self.bytes = np.empty((3, height, width + 3), np.uint8)
        self.taps = np.empty((3, height, width + 3), np.int16)
        self.between = np.empty((3, height, width + 2), np.int16)
        self.second, self.third, self.fourth = np.empty((3, 3, height, width), np.int16)
        self.pixels = np.empty((3, height, width), np.uint8)


def _arrays(height: int, width: int) -> _Arrays:
    if getattr(_kept, "size", None) != (height, width):
        _kept.size, _kept.arrays = (height, width), _Arrays(height, width)
    return _kept.arrays  # type: ignore[no-any-return]


def shear_x(image: Image.Image, amount: float, fill: tuple[int, int, int]) -> Image.Image:
    """Column x + 1/2 of row y + 1/2 is taken from column x + 1/2 + amount * (y + 1/2), by a cubic.

    Args:
        image: RGB.
        amount: columns a row.
        fill: colour of what lies outside.
    """
    width, height = image.size
    kept = _arrays(height, width)
    packed = np.frombuffer(image.tobytes("raw", "RGBX"), np.uint32).reshape(height, width)
    rows, columns = np.arange(height), np.arange(width, dtype=np.int32)
    at = np.add((columns + 0.5), (amount * (rows + 0.5))[:, None], out=kept.at)
    outside = (at < 0) | (at >= width)
    at -= 0.5
    whole = np.floor(at)
    at -= whole
    first = whole.astype(np.int32)
    shift = first[:, :1]
    sources = np.clip(shift + np.arange(-1, width + 2, dtype=np.int32), 0, width - 1) + rows[:, None] * width
    moved = packed.ravel().take(sources).view(np.uint8).reshape(height, width + 3, 4)
    np.copyto(kept.bytes, np.moveaxis(moved, 2, 0)[:3])
    np.copyto(kept.taps, kept.bytes)
    pixels = _cubic(kept, kept.taps, at)
    np.copyto(pixels, np.array(fill, np.uint8)[:, None, None], where=outside)
    for row in np.flatnonzero((first != shift + columns).any(1)):  # rounding moved a part of the row by one more
        sources = np.clip(first[row] + np.arange(-1, 3)[:, None], 0, width - 1)
        v1, v2, v3, v4 = packed[row][sources].view(np.uint8).reshape(4, width, 4)[..., :3].astype(np.int16)
        d = at[row][:, None]
        values = (((v2 - v1 - v3 + v4) * d + (2 * (v1 - v2) + v3 - v4)) * d + (v3 - v1)) * d + v2
        pixels[:, row] = np.where(outside[row], np.array(fill)[:, None], np.clip(values, 0, 255).astype(np.uint8).T)
    return Image.merge("RGB", [Image.fromarray(channel) for channel in pixels])


def _cubic(kept: _Arrays, taps: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Between the second and the third of every four neighbours in a row.

    Args:
        kept: where results go.
        taps: (3, H, W + 3) int16.
        d: (H, W) float64, how far behind the second, in [0, 1).

    Returns:
        (3, H, W) uint8.
    """
    width = d.shape[1]
    steps = np.subtract(taps[..., 1:], taps[..., :-1], out=kept.between)
    third = np.add(steps[..., :width], steps[..., 2:], out=kept.third)  # -v1 + v2 - v3 + v4
    second = np.add(steps[..., :width], third, out=kept.second)  # -(2 (v1 - v2) + v3 - v4)
    first = np.subtract(taps[..., 2 : width + 2], taps[..., :width], out=kept.fourth)  # -v1 + v3
    values = np.multiply(third, d, out=kept.values)
    values -= second
    values *= d
    values += first
    values *= d
    values += taps[..., 1 : width + 1]
    np.clip(values, 0, 255, out=values)
    np.copyto(kept.pixels, values, casting="unsafe")
    return kept.pixels


def shear_y(image: Image.Image, amount: float, fill: tuple[int, int, int]) -> Image.Image:
    """:func:`shear_x` with rows and columns exchanged."""
    turned = image.transpose(Image.Transpose.TRANSPOSE)
    return shear_x(turned, amount, fill).transpose(Image.Transpose.TRANSPOSE)
