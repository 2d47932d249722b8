"""Image files and their way to a square of bytes. Pillow and numpy, nothing heavier."""

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

from mlcil.errors import UserError
from mlcil.protocols import check_option, did_you_mean

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
#: what can be done at an image that cannot be read
BAD_IMAGE = ("raise", "skip")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
#: what is opened as an image; Pillow's others are out, since one of them (EPS) hands the file to a program
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
#: what Pillow raises at a file that is broken somewhere
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, MemoryError, struct.error, zlib.error)
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
                return upright_rgb(image)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist, but the annotations name it; put the image there") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(
            f"{path} is no image that can be read ({error}); replace it or remove it from the data"
        ) from error
    except UserError:
        raise
    except DAMAGED as error:
        size = path.stat().st_size if path.is_file() else 0
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UserError(
            f"{path} is a damaged image ({reason}; {size} bytes); replace it or remove it from the data"
        ) from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """An opened image as :func:`load_rgb` gives it. Raises what Pillow raises."""
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would cut off at 255
        whole = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    else:
        whole = image.convert("RGB")
    orientation = image.getexif().get(_ORIENTATION)
    return whole.transpose(_TURNS[orientation]) if orientation in _TURNS else whole


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
            return _resized(image, size, size, RESAMPLING[self.interpolation])
        side = self.short_side or round(size * 256 / 224)
        width, height = image.size
        short = min(width, height)  # whole pixels of the longer side and the cut's corner as in torchvision
        image = _resized(image, side * width // short, side * height // short, RESAMPLING[self.interpolation])
        left, top = (round((n - size) / 2) if n >= size else -((size - n) // 2) for n in image.size)
        return image.crop((left, top, left + size, top + size))


def _resized(image: Image.Image, width: int, height: int, how: Image.Resampling) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), how)


SQUARE = Fit()


def decode(path: Path, size: int, fit: Fit = SQUARE) -> np.ndarray:
    """File -> uint8 (size, size, 3)."""
    return np.asarray(fit(load_rgb(path), size))


def images_below(folder: Path) -> list[Path]:
    """Image files anywhere below a folder, sorted, hidden ones left out; empty when there is no such folder."""
    found: list[str] = []
    for place, _, files in os.walk(folder):
        found += [os.path.join(place, f) for f in files if f.lower().endswith(IMAGE_SUFFIXES) and not f.startswith(".")]
    return [Path(file) for file in sorted(found)]


def find_images(path: Path) -> list[Path]:
    """The image itself, or all images below a folder in sorted order.

    Raises:
        UserError: no such path, or a folder without images.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path} does not exist; expected an image or a folder of images")
    images = images_below(path)
    if not images:
        raise UserError(f"{path} holds no images; expected files ending in {', '.join(IMAGE_SUFFIXES)}")
    return images
