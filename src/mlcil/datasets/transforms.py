"""Image reading, the way to a square, and the training augmentation. No mean/std anywhere.

All randomness comes from the ``numpy.random.Generator`` that is passed in. The way to a square is deterministic
and stands apart from the augmentation, so resized images can be kept. KRT's augmentation (Cutout, RandAugment) is
here, that of the single-label papers in :mod:`mlcil.datasets.augment`.
"""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps, UnidentifiedImageError
from torch import Tensor

from mlcil.datasets.augment import RESAMPLING, Hole, Step, crop_step, jitter_step, policy_step
from mlcil.errors import UserError
from mlcil.protocols import check_option, did_you_mean

GREY = (128, 128, 128)
CUTOUT_GREY = (125, 122, 113)
LEVELS = 10  # magnitudes are points 1..9 of ten equal steps from nothing to the strongest
EXECUTED = 0.5  # probability that a drawn operation is executed
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def load_rgb(path: Path) -> Image.Image:
    """An image file as RGB, the right way up.

    Grey (8 or 16 bits), CMYK and palette images are converted, an animation gives its first frame, and a photo is
    turned as its EXIF orientation says.

    Raises:
        UserError: missing, no regular file, empty, truncated, larger than Pillow's limit, or no image.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe or a device would be read for ever
            raise UserError(f"{path} is no regular file; expected an image, so replace it or remove it from the data")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would cut off at 255
                    whole = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
                else:
                    whole = image.convert("RGB")
                orientation = image.getexif().get(_ORIENTATION)
        return whole.transpose(_TURNS[orientation]) if orientation in _TURNS else whole
    except FileNotFoundError:
        raise UserError(f"{path} does not exist, but the annotations name it; put the image there") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(
            f"{path} is no image that can be read ({error}); replace it or remove it from the data"
        ) from error
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, struct.error, zlib.error) as error:
        size = path.stat().st_size if path.is_file() else 0
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UserError(
            f"{path} is a damaged image ({reason}; {size} bytes); replace it or remove it from the data"
        ) from error


@dataclass(frozen=True)
class Fit:
    """How an image of any shape becomes a square of a given size.

    Attributes:
        kind: ``square`` forces both sides to the size (KRT official behaviour); ``centre`` brings the shorter side
            to ``short_side`` and cuts the square out of the middle.
        short_side: pixels, of ``centre``; ``None`` is 256 for 224 pixels and in proportion for other sizes.
        interpolation: ``bilinear`` or ``bicubic``, antialiased when shrinking.

    Raises:
        UserError: an unknown word, or a side that is no positive whole number.
    """

    kind: str = "square"
    short_side: int | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        check_option("fit", self.kind, ("square", "centre"))
        check_option("fit.interpolation", self.interpolation, tuple(RESAMPLING))
        side = self.short_side
        if side is not None and (isinstance(side, bool) or not isinstance(side, int) or side < 1):
            raise UserError(f"fit.short_side is {side!r}; expected a whole number of pixels, such as 256")

    @classmethod
    def of(cls, value: str | Mapping[str, object]) -> Fit:
        """From a config: a kind, or a dictionary of the attributes.

        Raises:
            UserError: an unknown key or value.
        """
        if isinstance(value, str):
            return cls(value)
        if not isinstance(value, Mapping):
            raise UserError(f"fit is {value!r}; expected 'square', 'centre' or dict(kind='centre', ...)")
        for key in value:
            known = tuple(cls.__dataclass_fields__)
            if key not in known:
                raise UserError(f"unknown key {key!r} in fit{did_you_mean(str(key), known)}; use {', '.join(known)}")
        return cls(**value)  # type: ignore[arg-type]

    def __call__(self, image: Image.Image, size: int) -> Image.Image:
        """An image (PIL, RGB) -> (size, size)."""
        if self.kind == "square":
            return image if image.size == (size, size) else image.resize((size, size), RESAMPLING[self.interpolation])
        from torchvision.transforms.v2 import InterpolationMode  # heavy: only when asked for
        from torchvision.transforms.v2 import functional as F

        side = self.short_side or round(size * 256 / 224)
        return F.center_crop(F.resize(image, [side], InterpolationMode(self.interpolation)), [size, size])


SQUARE = Fit()


def decode(path: Path, size: int, fit: Fit = SQUARE) -> np.ndarray:
    """File -> uint8 (size, size, 3)."""
    return np.asarray(fit(load_rgb(path), size))


def to_tensor(array: np.ndarray) -> Tensor:
    """uint8 (H, W, 3) -> float32 (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1))).div(255)


def draw_cutout(image: Image.Image, row: int, column: int, side: int, colour: tuple[int, int, int]) -> Image.Image:
    """Fill the square around a centre; corners are centre -+ side // 2 clipped to the image, ends inclusive."""
    height, width = image.height, image.width
    top, bottom = np.clip([row - side // 2, row + side // 2], 0, height)
    left, right = np.clip([column - side // 2, column + side // 2], 0, width)
    image = image.copy()
    ImageDraw.Draw(image).rectangle((int(left), int(top), int(right), int(bottom)), fill=colour)
    return image


class Cutout:
    """A square of ``factor`` times the image side in a random colour, always applied (KRT: factor 0.5)."""

    def __init__(self, factor: float = 0.5) -> None:
        self.factor = factor

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Draw centre row, centre column, then the colour."""
        side = int(self.factor * image.width + 0.5)
        row, column = int(rng.integers(image.height)), int(rng.integers(image.width))
        red, green, blue = (int(v) for v in rng.integers(0, 256, size=3))
        return draw_cutout(image, row, column, side, (red, green, blue))


def _affine(image: Image.Image, coefficients: tuple[float, ...], resample: Image.Resampling) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, resample, fillcolor=GREY)


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    turned = image.convert("RGBA").rotate(degrees)
    return Image.composite(turned, Image.new("RGBA", image.size, (128,) * 4), turned).convert(image.mode)


def _grey_square(image: Image.Image, reach: int, centre: tuple[float, float]) -> Image.Image:
    x, y = centre
    left, top = int(max(0, x - reach)), int(max(0, y - reach))
    right, bottom = int(min(image.width, x + reach)), int(min(image.height, y + reach))
    array = np.array(image)
    array[top:bottom, left:right] = CUTOUT_GREY
    return Image.fromarray(array)


def _steps(strongest: float, weakest: float = 0.0) -> tuple[float, ...]:
    return tuple(float(v) for v in np.linspace(weakest, strongest, LEVELS))


def _whole(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(round(v)) for v in values)


#: operation -> its parameter at index 0..9 (index 0 is never drawn); pip package randaugment 1.0.2
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
_BICUBIC, _NEAREST = Image.Resampling.BICUBIC, Image.Resampling.NEAREST
_Operation = Callable[[Image.Image, float, int], Image.Image]
_OPERATIONS: dict[str, _Operation] = {
    "ShearX": lambda im, m, s: _affine(im, (1, m * s, 0, 0, 1, 0), _BICUBIC),
    "ShearY": lambda im, m, s: _affine(im, (1, 0, 0, m * s, 1, 0), _BICUBIC),
    "TranslateX": lambda im, m, s: _affine(im, (1, 0, m * im.width * s, 0, 1, 0), _NEAREST),
    "TranslateY": lambda im, m, s: _affine(im, (1, 0, 0, 0, 1, m * im.height * s), _NEAREST),
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


class RandAugment:
    """Two operations drawn uniformly from 15 x 9 each; each is executed with probability one half."""

    names = tuple(MAGNITUDES)

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Draw the pair, then per operation whether, sign and centre."""
        for name_index, index in rng.integers((0, 1), (len(self.names), LEVELS), size=(2, 2)):
            executed, positive = rng.random(2) < (EXECUTED, 0.5)
            centre = (float(rng.uniform(0, image.width)), float(rng.uniform(0, image.height)))
            if executed:
                image = apply_operation(image, self.names[name_index], int(index), 1 if positive else -1, centre)
        return image


class TrainTransform:
    """The training augmentation, on an image that was brought to the size.

    Its parts in the order in which they run; KRT's are ``cutout`` and ``randaugment``.

    Args:
        size: side of the result in pixels.
        cutout: side of KRT's cut-out square as a share of the image; 0 switches it off.
        randaugment: whether KRT's RandAugment follows it, as the last part.
        flip: mirror half of the images (KRT does not).
        jitter: strengths of a random change of ``brightness``, ``contrast``, ``saturation`` and ``hue`` (ABD:
            ``dict(brightness=63/255, contrast=0.8)``), before everything else.
        crop: ``padded``, a random crop of ``size`` from the image with a border; ``resized``, a random part of the
            whole image; or ``None``. Follows ``jitter``.
        padding: width of the border in pixels.
        fill: its colour, ``black`` or the name of a normalisation, whose mean it has (R-DFCIL).
        interpolation: of ``resized``: ``bilinear`` or ``bicubic``.
        policy: ``autoaugment_cifar10``, ``autoaugment_imagenet``, ``autoaugment_svhn`` or timm's string of a
            RandAugment, ``rand-m9-mstd0.5-inc1`` (DKT, DAFormer), after ``crop`` and ``flip``; or ``None``.
        hole: side of a black square in pixels (DKT: 16), after ``policy``; 0 switches it off.

    Attributes:
        whole: the transform takes images of any shape, because it crops them itself.

    Raises:
        UserError: an unknown word or a number out of range.
    """

    def __init__(
        self,
        size: int,
        cutout: float = 0.5,
        randaugment: bool = True,
        flip: bool = False,
        jitter: Mapping[str, float] | None = None,
        crop: str | None = None,
        padding: int = 4,
        fill: str = "black",
        interpolation: str = "bilinear",
        policy: str | None = None,
        hole: int = 0,
    ) -> None:
        if isinstance(cutout, bool) or not isinstance(cutout, (int, float)) or not 0 <= cutout <= 1:
            raise UserError(f"train_transform.cutout is {cutout!r}; expected a share of the image from 0 to 1")
        for name, value in (("flip", flip), ("randaugment", randaugment)):
            if not isinstance(value, bool):
                raise UserError(f"train_transform.{name} is {value!r}; expected True or False")
        self.size, self.whole = size, crop == "resized"
        self.steps: list[Step] = []
        if jitter is not None:
            self.steps.append(jitter_step(jitter))
        if crop is not None:
            self.steps.append(crop_step(crop, size, padding, fill, interpolation))
        if flip:
            self.steps.append(mirror)
        if policy is not None:
            self.steps.append(policy_step(policy))
        if hole:
            self.steps.append(Hole(hole))
        if cutout > 0:
            self.steps.append(Cutout(cutout))
        if randaugment:
            self.steps.append(RandAugment())

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (size, size, 3); H and W are ``size`` unless ``whole``."""
        assert self.whole or image.shape == (self.size, self.size, 3)
        if not self.steps:
            return image
        picture = Image.fromarray(image)
        for step in self.steps:
            picture = step(picture, rng)
        return np.asarray(picture)


def mirror(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Left and right change places in half of the images."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image
