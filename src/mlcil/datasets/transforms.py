"""Image reading, the way to a square, and the training augmentation. No mean/std anywhere.

All randomness comes from the ``numpy.random.Generator`` that is passed in. The way to a square is deterministic
and stands apart from the augmentation, so resized images can be kept. The parts of the augmentation are in
:mod:`mlcil.datasets.randaugment` (KRT) and :mod:`mlcil.datasets.augment` (the single-label papers).
"""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from mlcil.datasets.augment import RESAMPLING, Hole, Step, crop_step, jitter_step, policy_step
from mlcil.datasets.randaugment import Cutout, RandAugment
from mlcil.errors import UserError
from mlcil.protocols import check_option, did_you_mean

#: what is opened as an image; Pillow's others are out, since one of them (EPS) hands the file to a program
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def load_rgb(path: Path) -> Image.Image:
    """An image file of one of the :data:`FORMATS` as RGB, the right way up, whatever its name ends with.

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
            with Image.open(path, formats=FORMATS) as image:
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
        area: of ``resized``: the smallest part, as a share of the image's area.
        policy: ``autoaugment_cifar10``, ``autoaugment_imagenet``, ``autoaugment_svhn`` or timm's string of a
            RandAugment, ``rand-m9-mstd0.5-inc1`` (DKT, DAFormer), after ``crop`` and ``flip``; or ``None``.
        hole: side of a black square in pixels (DKT: 16), after ``policy``; 0 switches it off.
        on_device: leave the work to the training device, see :mod:`mlcil.datasets.tensor_augment`; the same bits.
            For ``cutout``, ``randaugment`` and ``flip``.

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
        area: float = 0.08,
        policy: str | None = None,
        hole: int = 0,
        on_device: bool = False,
    ) -> None:
        if isinstance(cutout, bool) or not isinstance(cutout, (int, float)) or not 0 <= cutout <= 1:
            raise UserError(f"train_transform.cutout is {cutout!r}; expected a share of the image from 0 to 1")
        for name, value in (("flip", flip), ("randaugment", randaugment), ("on_device", on_device)):
            if not isinstance(value, bool):
                raise UserError(f"train_transform.{name} is {value!r}; expected True or False")
        self.size, self.whole = size, crop == "resized"
        self.steps: list[Step] = []
        if jitter is not None:
            self.steps.append(jitter_step(jitter))
        if crop is not None:
            self.steps.append(crop_step(crop, size, padding, fill, interpolation, area))
        if flip:
            self.steps.append(Mirror())
        if policy is not None:
            self.steps.append(policy_step(policy))
        if hole:
            self.steps.append(Hole(hole))
        if cutout > 0:
            self.steps.append(Cutout(cutout))
        if randaugment:
            self.steps.append(RandAugment())
        self.on_device = on_device and bool(self.steps)
        there = [hasattr(step, "draw") for step in self.steps]
        if on_device and not all(there):
            unable = ", ".join(type(step).__name__ for step, able in zip(self.steps, there, strict=True) if not able)
            raise UserError(
                "train_transform.on_device=True is for cutout, randaugment and flip, but the config also has "
                f"{unable}; leave on_device out"
            )

    def draw(self, rng: np.random.Generator) -> list[float]:
        """What the steps draw for an image, one behind the other; of a transform that is ``on_device``."""
        drawn = [step.draw(rng, self.size, self.size) for step in self.steps]  # type: ignore[attr-defined]
        return [float(value) for values in drawn for value in values]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 (H, W, 3) -> uint8 (size, size, 3); H and W are ``size`` unless ``whole``."""
        assert self.whole or image.shape == (self.size, self.size, 3)
        if not self.steps:
            return image
        picture = Image.fromarray(image)
        for step in self.steps:
            picture = step(picture, rng)
        return np.asarray(picture)


class Mirror:
    """Left and right change places in half of the images."""

    def draw(self, rng: np.random.Generator, height: int, width: int) -> list[bool]:
        """Draw whether."""
        del height, width
        return [bool(rng.random() < 0.5)]

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Transform an image."""
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.draw(rng, 0, 0)[0] else image
