"""The training augmentation. No mean/std anywhere.

All randomness comes from the ``numpy.random.Generator`` that is passed in. Its parts are in
:mod:`mlcil.datasets.randaugment` (KRT) and :mod:`mlcil.datasets.augment` (the single-label papers). How an image
becomes a square is deterministic, stands apart and can be kept (:mod:`mlcil.images`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from mlcil.datasets.augment import Hole, Step, crop_step, jitter_step, policy_step
from mlcil.datasets.randaugment import Cutout, RandAugment
from mlcil.errors import UserError


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
