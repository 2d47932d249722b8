"""The augmentations of the single-label papers: crops, colour jitter, policies, a black hole.

torchvision does the work and :func:`seeded` lets a ``numpy.random.Generator`` decide its random draws. Sources:
R-DFCIL (ECCV 2022), ABD (ICCV 2021), DKT and DAFormer (their released code).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from mlcil.datasets.shear import shear_x, shear_y
from mlcil.errors import UserError
from mlcil.images import RESAMPLING
from mlcil.protocols import check_option, did_you_mean

#: (mean, std) per channel of images in [0, 1]; the first four are R-DFCIL's (CIFAR-100: also DKT's), then ABD's
NORMALISATIONS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "tiny_imagenet": ((0.4803, 0.4481, 0.3976), (0.2764, 0.2688, 0.2816)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "abd_cifar10": (
        (0.49139967861519607, 0.48215840839460783, 0.44653091444546567),
        (0.2470322324632819, 0.24348512800005573, 0.26158784172796434),
    ),
    "abd_cifar100": (
        (0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
        (0.2673342858792409, 0.25643846291708816, 0.2761504713256834),
    ),
    "abd_tiny_imagenet": ((0.4389, 0.4114, 0.3682), (0.2402, 0.2350, 0.2268)),
}
CROPS = ("padded", "resized")
AUTO_POLICIES = ("autoaugment_cifar10", "autoaugment_imagenet", "autoaugment_svhn")
RAND = "rand-m9-mstd0.5-inc1"  # DKT's and DAFormer's, and the example of a string
Step = Callable[[Image.Image, np.random.Generator], Image.Image]


def colour(name: str) -> tuple[int, int, int]:
    """``black``, or a normalisation's mean as the nearest pixel values.

    Cropping normalised images with zeros around them (R-DFCIL) is cropping images with the mean around them; the
    mean is rounded to whole pixel values, which moves a border by at most 0.5 / 255.
    """
    check_option("train_transform.fill", name, ("black", *NORMALISATIONS))
    if name == "black":
        return 0, 0, 0
    red, green, blue = (round(255 * value) for value in NORMALISATIONS[name][0])
    return red, green, blue


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """Inside, torch's CPU draws follow from ``rng``; outside, nothing has happened to them."""
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(int(rng.integers(2**63)))
    try:
        yield
    finally:
        generator.set_state(state)


class Seeded:
    """A torchvision transform as a step whose draws come from a numpy generator."""

    def __init__(self, transform: Callable[[Image.Image], Image.Image]) -> None:
        self.transform = transform

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Transform an image."""
        with seeded(rng):
            return self.transform(image)


class PaddedCrop:
    """A random crop of ``size`` pixels from a ``size`` x ``size`` image with a border."""

    def __init__(self, size: int, padding: int, fill: tuple[int, int, int]) -> None:
        self.size, self.padding, self.fill = size, padding, fill

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Draw the crop's first row, then its first column, in the bordered image."""
        top, left = (int(v) for v in rng.integers(0, 2 * self.padding + 1, size=2))
        return ImageOps.expand(image, self.padding, self.fill).crop((left, top, left + self.size, top + self.size))


def _torchvision() -> Any:
    from torchvision.transforms import v2  # heavy: only when asked for

    return v2


def crop_step(kind: str, size: int, padding: int, fill: str, interpolation: str, area: float = 0.08) -> Step:
    """A random crop of ``size`` pixels.

    Args:
        kind: ``padded``: from the image with ``padding`` pixels of ``fill`` around it; ``resized``: a share of
            the area from ``area`` to all of it with sides of 3:4 to 4:3, resized (RandomResizedCrop).
        size: side of the result.
        padding, fill: of ``padded``; see :func:`colour`.
        interpolation, area: of ``resized``, ``bilinear`` or ``bicubic``, and the smallest share.

    Raises:
        UserError: an unknown word, a padding that is no whole number of at least 0, or an area outside (0, 1].
    """
    check_option("train_transform.crop", kind, CROPS)
    check_option("train_transform.interpolation", interpolation, tuple(RESAMPLING))
    if isinstance(padding, bool) or not isinstance(padding, int) or padding < 0:
        raise UserError(f"train_transform.padding is {padding!r}; expected a whole number of pixels of at least 0")
    if isinstance(area, bool) or not isinstance(area, (int, float)) or not 0 < area <= 1:
        raise UserError(f"train_transform.area is {area!r}; expected a share of the image above 0 and at most 1")
    if kind == "padded":
        return PaddedCrop(size, padding, colour(fill))
    v2 = _torchvision()
    return Seeded(v2.RandomResizedCrop(size, (area, 1.0), interpolation=v2.InterpolationMode(interpolation)))


def jitter_step(strengths: Mapping[str, float]) -> Step:
    """``ColorJitter`` with ``brightness``, ``contrast``, ``saturation`` and ``hue``; what is left out stays.

    Raises:
        UserError: another key, or a strength that is out of range.
    """
    known = ("brightness", "contrast", "saturation", "hue")
    if not isinstance(strengths, Mapping):
        raise UserError(f"train_transform.jitter is {strengths!r}; expected dict(brightness=..., contrast=...)")
    for key in strengths:
        if key not in known:
            raise UserError(
                f"unknown key {key!r} in train_transform.jitter{did_you_mean(str(key), known)}; use {', '.join(known)}"
            )
    v2 = _torchvision()
    try:
        return Seeded(v2.ColorJitter(**strengths))
    except (TypeError, ValueError) as error:
        raise UserError(f"train_transform.jitter is {dict(strengths)!r}: {error}; correct its value") from error


def policy_step(name: str) -> Step:
    """AutoAugment for a data set, or RandAugment by timm's string, see :meth:`IncreasingRandAugment.of`.

    Raises:
        UserError: an unknown name, or a string with a part that is not known.
    """
    if isinstance(name, str) and name.startswith("rand"):
        return IncreasingRandAugment.of(name)
    check_option("train_transform.policy", name, (*AUTO_POLICIES, RAND))
    v2 = _torchvision()
    return Seeded(v2.AutoAugment(v2.AutoAugmentPolicy(name.removeprefix("autoaugment_"))))


class Hole:
    """A black square around a random pixel, always (DKT's Cutout: side 16 on 32 pixels)."""

    def __init__(self, side: int) -> None:
        if isinstance(side, bool) or not isinstance(side, int) or side < 0:
            raise UserError(f"train_transform.hole is {side!r}; expected a whole number of pixels, 0 for none")
        self.side = side

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Draw the centre's row, then its column; rows y - side // 2 to y + side // 2 - 1, cut at the borders."""
        row, column = int(rng.integers(image.height)), int(rng.integers(image.width))
        array, reach = np.array(image), self.side // 2
        array[max(row - reach, 0) : row + reach, max(column - reach, 0) : column + reach] = 0
        return Image.fromarray(array)


FILL = (124, 116, 104)
_Operation = Callable[[Image.Image, float, int], Image.Image]


def _moved(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=FILL)


def _enhanced(kind: Any) -> _Operation:
    return lambda im, u, s: kind(im).enhance(max(0.1, 1 + s * 0.9 * u))


def _posterized(image: Image.Image, bits: int) -> Image.Image:
    return ImageOps.posterize(image, bits) if bits > 0 else Image.new(image.mode, image.size)


def _added(image: Image.Image, amount: int) -> Image.Image:
    return image.point([min(255, v + amount) if v < 128 else v for v in range(256)] * 3)


#: operation -> (image, strength in [0, 1], sign)
INCREASING: dict[str, _Operation] = {
    "AutoContrast": lambda im, u, s: ImageOps.autocontrast(im),
    "Equalize": lambda im, u, s: ImageOps.equalize(im),
    "Invert": lambda im, u, s: ImageOps.invert(im),
    "Rotate": lambda im, u, s: im.rotate(s * 30 * u, Image.Resampling.BICUBIC, fillcolor=FILL),
    "Posterize": lambda im, u, s: _posterized(im, 4 - int(4 * u)),
    "Solarize": lambda im, u, s: ImageOps.solarize(im, 256 - int(256 * u)),
    "SolarizeAdd": lambda im, u, s: _added(im, int(110 * u)),
    "Color": _enhanced(ImageEnhance.Color),
    "Contrast": _enhanced(ImageEnhance.Contrast),
    "Brightness": _enhanced(ImageEnhance.Brightness),
    "Sharpness": _enhanced(ImageEnhance.Sharpness),
    "ShearX": lambda im, u, s: shear_x(im, s * 0.3 * u, FILL),
    "ShearY": lambda im, u, s: shear_y(im, s * 0.3 * u, FILL),
    "TranslateX": lambda im, u, s: _moved(im, (1, 0, s * 0.45 * u * im.width, 0, 1, 0)),
    "TranslateY": lambda im, u, s: _moved(im, (1, 0, 0, 0, 1, s * 0.45 * u * im.height)),
}


class IncreasingRandAugment:
    """RandAugment of timm in which a larger magnitude always changes more (DKT, DAFormer: m9, mstd0.5).

    ``layers`` of 15 operations, drawn with replacement; each is executed with probability one half, at a magnitude
    from Normal(m, mstd) cut to [0, 10]. Where posterizing asks for no bits the image is black (the official code
    stops there with newer Pillow).

    Args:
        magnitude: m, from 0 to 10.
        deviation: mstd.
        layers: n, operations that are drawn for an image.
    """

    names = tuple(INCREASING)

    def __init__(self, magnitude: float = 9, deviation: float = 0.5, layers: int = 2) -> None:
        self.magnitude, self.deviation, self.layers = magnitude, deviation, layers

    @classmethod
    def of(cls, text: str) -> IncreasingRandAugment:
        """From timm's string, such as ``rand-m9-mstd0.5-inc1``: ``m``, ``mstd``, ``n`` and ``inc1``.

        Raises:
            UserError: another part, a number out of range, or no ``inc1``.
        """
        first, *parts = text.split("-")
        found: dict[str, str] = {}
        for part in parts:
            match = re.fullmatch(r"(mstd|m|n|inc)(\d+(?:\.\d+)?)", part)
            if match is None or match[1] in found:
                raise UserError(
                    f"train_transform.policy is {text!r}, and {part!r} is not understood; expected each of m, mstd, n "
                    f"and inc at most once, such as {RAND!r}"
                )
            found[match[1]] = match[2]
        magnitude, deviation = float(found.get("m", 10)), float(found.get("mstd", 0))
        layers = float(found.get("n", 2))
        if first != "rand" or found.get("inc") != "1":
            raise UserError(
                f"train_transform.policy is {text!r}; only RandAugment whose operations grow with the magnitude is "
                f"known here, so write it as {RAND!r}, with inc1"
            )
        if max(magnitude, deviation) > 10 or layers < 1 or layers % 1:
            raise UserError(
                f"train_transform.policy is {text!r}; expected m and mstd from 0 to 10 and a whole number n of at "
                f"least 1, such as {RAND!r}"
            )
        return cls(magnitude, deviation, int(layers))

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Draw the operations, then for each whether, sign and magnitude."""
        for index in rng.integers(len(self.names), size=self.layers):
            executed, positive = rng.random(2) < 0.5
            strength = float(np.clip(rng.normal(self.magnitude, self.deviation), 0, 10)) / 10
            if executed:
                image = INCREASING[self.names[index]](image, strength, 1 if positive else -1)
        return image
