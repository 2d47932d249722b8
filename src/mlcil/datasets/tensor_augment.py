"""KRT's augmentation of whole batches on the training device, the same bits as with Pillow on a CPU.

The draws come from the loader (:meth:`mlcil.datasets.transforms.TrainTransform.draw`). Every operation runs once for
all images of the batch that drew it. Positions of the operations that move whole pixels are Pillow's own, taken from
an image of numbers that it has moved; the others follow its formulas in its order of operations. Copies to the device
are asked for without waiting for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mlcil.datasets.randaugment import (
    CUTOUT_GREY,
    GREY,
    MAGNITUDES,
    NAMES,
    Cutout,
    Operation,
    RandAugment,
    Square,
    box_of,
    grey_box,
    operations_of,
)
from mlcil.datasets.transforms import Mirror, TrainTransform


class TensorAugment:
    """The steps of a transform that is ``on_device``, for batches.

    Args:
        transform: of which the images have their draws.
    """

    def __init__(self, transform: TrainTransform) -> None:
        assert transform.on_device
        widths = {Mirror: 1, Cutout: len(Square._fields), RandAugment: 2 * len(Operation._fields)}
        work = {Mirror: mirrored, Cutout: with_squares, RandAugment: rand_augmented}
        self.steps = [(widths[type(step)], work[type(step)]) for step in transform.steps]  # type: ignore[index]

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Augment a batch.

        Args:
            images: uint8 (B, H, W, 3).
            draws: float64 (B, K), on the CPU.

        Returns:
            uint8 (B, H, W, 3).
        """
        drawn = draws.tolist()
        images = images.permute(0, 3, 1, 2).contiguous()
        first = 0
        for width, work in self.steps:
            images = work(images, [values[first : first + width] for values in drawn])
            first += width
        return images.permute(0, 2, 3, 1)


# the steps: uint8 (B, 3, H, W) and B lists of draws


def mirrored(images: Tensor, drawn: Sequence[Sequence[float]]) -> Tensor:
    """Left and right exchanged where 1 was drawn."""
    chosen = torch.tensor([value for (value,) in drawn], dtype=torch.bool)
    return torch.where(chosen.to(images.device, non_blocking=True)[:, None, None, None], images.flip(3), images)


def with_squares(images: Tensor, drawn: Sequence[Sequence[float]]) -> Tensor:
    """A square each."""
    height, width = images.shape[2:]
    squares = [Square(*(int(value) for value in values)) for values in drawn]
    boxes = [box_of(square, height, width) for square in squares]
    return _filled(images, boxes, [(square.red, square.green, square.blue) for square in squares])


def rand_augmented(images: Tensor, drawn: Sequence[list[float]]) -> Tensor:
    """RandAugment's operations, the first of all images, then the second of all images."""
    for operations in zip(*map(operations_of, drawn), strict=True):
        numbers = [operation.number for operation in operations]
        for number in sorted(set(numbers) - {-1}):
            places = [place for place, found in enumerate(numbers) if found == number]
            index = torch.tensor(places).to(images.device, non_blocking=True)
            changed = tensor_operation(images[index], NAMES[number], [operations[place] for place in places])
            images = images.index_copy(0, index, changed)
    return images


def tensor_operation(images: Tensor, name: str, operations: Sequence[Operation]) -> Tensor:
    """One operation of :data:`~mlcil.datasets.randaugment.MAGNITUDES` on all images.

    Args:
        images: uint8 (B, 3, H, W).
        name: the operation.
        operations: B draws, of which ``level``, ``sign``, ``x`` and ``y`` are used.
    """
    height, width = images.shape[2:]
    amounts = [MAGNITUDES[name][operation.level] for operation in operations]
    signed = [amount * operation.sign for amount, operation in zip(amounts, operations, strict=True)]
    if name in ("TranslateX", "TranslateY", "Rotate"):
        return _moved(images, name, amounts if name == "Rotate" else signed)
    if name in ("ShearX", "ShearY"):
        return _sheared(images, signed, along_x=name == "ShearX")
    if name == "Cutout":
        centres = [(operation.x, operation.y) for operation in operations]
        boxes = [grey_box(int(a) // 2, c, height, width) for a, c in zip(amounts, centres, strict=True)]
        return _filled(images, boxes, [CUTOUT_GREY] * len(boxes))
    if name in _DEGENERATE:
        return _blended(_DEGENERATE[name](images), images, [1 + value for value in signed])
    return _TONES[name](images, _column(amounts, images, torch.float64))


def _column(values: Sequence[float], like: Tensor, dtype: torch.dtype) -> Tensor:
    """One number an image, (B, 1, 1, 1), on the images' device."""
    return torch.tensor(values, dtype=torch.float64).to(dtype).to(like.device, non_blocking=True)[:, None, None, None]


def _filled(images: Tensor, boxes: Sequence[tuple[int, ...]], colours: Sequence[tuple[int, ...]]) -> Tensor:
    """Boxes (first column, first row, and those behind the last) in their colours."""
    left, top, right, bottom = _column_of(boxes, images)
    rows = torch.arange(images.shape[2], device=images.device)[:, None]
    columns = torch.arange(images.shape[3], device=images.device)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    fill = torch.tensor(colours, dtype=torch.uint8).to(images.device, non_blocking=True)[:, :, None, None]
    return torch.where(inside, fill, images)


def _column_of(rows: Sequence[tuple[int, ...]], like: Tensor) -> Sequence[Tensor]:
    """(B, K) whole numbers -> K tensors (B, 1, 1, 1)."""
    table = torch.tensor(rows).to(like.device, non_blocking=True)
    return [part[:, None, None, None] for part in table.unbind(1)]


# operations that move pixels


@functools.lru_cache(maxsize=64)
def _positions(name: str, amount: float, height: int, width: int, device: torch.device) -> Tensor:
    """Where every pixel comes from, (H * W) int64, -1 for grey: numbers that Pillow has moved."""
    numbers = Image.fromarray(np.arange(height * width, dtype=np.int32).reshape(height, width))
    if name == "Rotate":
        moved = numbers.rotate(amount, fillcolor=-1)
    else:
        across, down = (amount * width, 0.0) if name == "TranslateX" else (0.0, amount * height)
        matrix = (1, 0, across, 0, 1, down)
        moved = numbers.transform(
            (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=-1
        )
    return torch.from_numpy(np.array(moved)).flatten().long().to(device)


def _moved(images: Tensor, name: str, amounts: Sequence[float]) -> Tensor:
    height, width = images.shape[2:]
    tables = [_positions(name, amount, height, width, images.device) for amount in amounts]
    sources = torch.stack(tables)[:, None].expand(-1, 3, -1)
    found = images.flatten(2).gather(2, sources.clamp(min=0))
    return found.masked_fill_(sources < 0, GREY[0]).view_as(images)


def _sheared(images: Tensor, amounts: Sequence[float], along_x: bool) -> Tensor:
    """See :mod:`mlcil.datasets.shear`; rows and columns exchanged unless along the rows."""
    if not along_x:
        return _sheared(images.transpose(2, 3), amounts, True).transpose(2, 3).contiguous()
    height, width = images.shape[2:]
    rows = torch.arange(height, dtype=torch.float64, device=images.device)[:, None] + 0.5
    columns = torch.arange(width, dtype=torch.float64, device=images.device) + 0.5
    at = columns + _column(amounts, images, torch.float64) * rows  # (B, 1, H, W)
    outside = (at < 0) | (at >= width)
    at = at - 0.5
    first = at.floor()
    d = at - first
    taps = [(first.long() + k).clamp_(0, width - 1).expand_as(images) for k in (-1, 0, 1, 2)]
    v1, v2, v3, v4 = (images.gather(3, places).short() for places in taps)
    values = (v2 - v1 - v3 + v4) * d
    values += 2 * (v1 - v2) + v3 - v4
    values *= d
    values += v3 - v1
    values *= d
    values += v2
    return values.clamp_(0, 255).to(torch.uint8).masked_fill_(outside, GREY[0])


# operations that blend the image with a poorer one


def _luminance(images: Tensor) -> Tensor:
    """Pillow's grey values, int32 (B, 1, H, W)."""
    red, green, blue = images.int().unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16)[:, None]


def _mean_grey(images: Tensor) -> Tensor:
    grey = _luminance(images)
    mean = grey.sum((1, 2, 3), dtype=torch.float64) / grey[0].numel()
    return (mean + 0.5).int()[:, None, None, None].expand_as(images)


def _smooth(images: Tensor) -> Tensor:
    """The mean of 3 x 3 pixels in which the middle counts five times, to the nearest grey level; borders stay."""
    whole = images.int()
    across = whole[..., :-2] + whole[..., 1:-1] + whole[..., 2:]
    total = across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :] + 4 * whole[..., 1:-1, 1:-1]
    result = whole.clone()
    result[..., 1:-1, 1:-1] = torch.div(2 * total + 13, 26, rounding_mode="floor")
    return result


_DEGENERATE: dict[str, Callable[[Tensor], Tensor]] = {
    "Color": lambda images: _luminance(images).expand_as(images),
    "Contrast": _mean_grey,
    "Sharpness": _smooth,
    "Brightness": lambda images: torch.zeros_like(images, dtype=torch.int32),
}


def _blended(poorer: Tensor, images: Tensor, factors: Sequence[float]) -> Tensor:
    """``poorer + factor * (images - poorer)`` in single precision, cut off to whole grey levels."""
    share = _column(factors, images, torch.float32) * (images - poorer).float()
    return (poorer.float() + share).clamp_(0, 255).to(torch.uint8)


# operations that change the grey levels of a channel; the amounts are (B, 1, 1, 1) float64


def _posterized(images: Tensor, bits: Tensor) -> Tensor:
    return (images.int() & ~((1 << (8 - bits.int())) - 1)).to(torch.uint8)


def _solarized(images: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(images < threshold, images, 255 - images)


def _stretched(images: Tensor, _: Tensor) -> Tensor:
    """The darkest level of a channel becomes 0, the lightest 255."""
    low, high = (edge(images, dim=(2, 3), keepdim=True).double() for edge in (torch.amin, torch.amax))
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)  # a number over a tensor is rounded twice
    stretched = (images * scale + -low * scale).clamp_(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, images)


def _equalized(images: Tensor, _: Tensor) -> Tensor:
    """Every grey level of a channel about equally often."""
    ordered = images.flatten(2).sort(2).values
    levels = torch.arange(256, dtype=torch.uint8, device=images.device).expand(*images.shape[:2], 256).contiguous()
    below = torch.searchsorted(ordered, levels)  # pixels darker than a level
    total = ordered.shape[2]
    lightest = total - below.gather(2, ordered[..., -1:].long())  # pixels of the lightest level
    step = (total - lightest) // 255
    table = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    table = torch.where((step > 0) & (lightest < total), table, levels)
    return table.gather(2, images.flatten(2).long()).to(torch.uint8).view_as(images)


_TONES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Posterize": _posterized,
    "Solarize": _solarized,
    "AutoContrast": _stretched,
    "Equalize": _equalized,
    "Invert": lambda images, _: 255 - images,
}
