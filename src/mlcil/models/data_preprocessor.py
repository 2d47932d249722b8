"""The last step of a batch, on the training device: whole numbers become the network's numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mlcil.models.network import Maps


def network_input(images: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [0, 1]. No mean/std anywhere; floats stay as they are."""
    if images.is_floating_point():
        return images
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(255)


class ImagePreprocessor(BaseDataPreprocessor):
    """Batches of a loader to the device, their images to :func:`network_input`.

    Images travel as bytes, a quarter of what they are as floats, and pinned ones while the device computes.

    Attributes:
        augment: what is done on the device to images that come with ``draws``: uint8 (B, H, W, 3) and float64 (B, K)
            on the CPU -> uint8 (B, H, W, 3).
    """

    augment: Callable[[Tensor, Tensor], Tensor] | None = None

    def __init__(self) -> None:
        super().__init__(non_blocking=True)

    def forward(self, data: Any, training: bool = False) -> dict[str, Any]:
        """A batch as :class:`mlcil.datasets.loading.Loader` gives it -> the same on the device, for a network.

        ``draws`` are used up; ``maps`` become ``inputs`` of the type :class:`~mlcil.models.network.Maps`.
        """
        del training
        draws = data.get("draws")
        data = self.cast_data({name: value for name, value in data.items() if name != "draws"})
        if "maps" in data:
            return {"inputs": Maps.of(data.pop("maps")), **data}
        if draws is not None:
            assert self.augment is not None, "the images are to be augmented here, but nobody said how"
            data["inputs"] = self.augment(data["inputs"], draws)
        return {**data, "inputs": network_input(data["inputs"])}
