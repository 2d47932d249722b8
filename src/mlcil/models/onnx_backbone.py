"""A feature extractor in an ONNX file as a frozen backbone: its graph is in the state, and onnxruntime computes it.

The graph takes images as float32 (N, 3, H, W) or (N, H, W, 3), of one size or any, a fixed number N of them or any. It
gives maps (N, K, h, w) or (N, h, w, K) with h = w, or features (N, K). What happens to the pixels before,
``(pixel / 255 - mean) / std`` for each channel, is in the file's metadata as ``mean`` and ``std`` (json, such as
``[0.5, 0.5, 0.5]``), or that of ImageNet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlcil.errors import UserError
from mlcil.system.onnx_graph import Graph, read_graph, reason_of

ONNX = "onnx"  # its name in the description of a network
SUFFIX = ".onnx"  # of a file that stands for one
BLOCK = 2**20  # bytes; a graph's length is told in so many and the rest
EXPECTED = "a feature extractor as ONNX"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class Pixels(nn.Module):
    """(B, 3, H, W) in [0, 1] -> what a graph takes."""

    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], channels_last: bool) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean).view(1, 3, 1, 1), requires_grad=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.channels_last = channels_last

    def forward(self, images: Tensor) -> Tensor:
        pixels = (images.float() - self.mean) / self.std
        return pixels.permute(0, 2, 3, 1) if self.channels_last else pixels


class AsMaps(nn.Module):
    """What a graph gives -> [(B, K, h, w)]."""

    def forward(self, output: Tensor) -> list[Tensor]:
        if output.ndim == 2:
            return [output[:, :, None, None]]
        _, first, second, third = output.shape
        return [output.permute(0, 3, 1, 2) if first == second != third else output]


class OnnxBackbone(nn.Module):
    """See the module; :func:`describe` gives the arguments, :meth:`put` the graph.

    Args:
        channels: K.
        grid: h and w of a map; (1, 1) for features.
        length: bytes of the graph, as whole :data:`BLOCK` and the rest.
        channels_last: it takes (N, H, W, 3).
        mean, std: of the channels, for pixels in [0, 1].
    """

    graph: Tensor

    def __init__(
        self,
        channels: int,
        grid: Sequence[int],
        length: Sequence[int],
        channels_last: bool = False,
        mean: Sequence[float] = IMAGENET["mean"],
        std: Sequence[float] = IMAGENET["std"],
    ) -> None:
        super().__init__()
        self.out_channels, self.grid = int(channels), (int(grid[0]), int(grid[1]))
        self.before, self.behind = Pixels(mean, std, channels_last), AsMaps()
        self.register_buffer("graph", torch.zeros(length[0] * BLOCK + length[1], dtype=torch.uint8))
        self._opened: Graph | None = None

    def put(self, content: bytes) -> None:
        """Take the bytes of a file."""
        self.graph, self._opened = torch.frombuffer(bytearray(content), dtype=torch.uint8), None

    def content(self) -> bytes:
        """The bytes of the file."""
        return self.graph.cpu().numpy().tobytes()

    def _load_from_state_dict(self, *given: Any) -> None:
        super()._load_from_state_dict(*given)
        self._opened = None

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> [(B, K, h, w)], without gradients.

        Raises:
            UserError: gradients of the images are asked for, or the graph does not give what it was described with.
        """
        if images.requires_grad:
            raise UserError(
                "this method needs gradients of images, which a backbone in an ONNX file does not give; choose another"
            )
        name = "the ONNX graph of the backbone"
        if self._opened is None:
            self._opened = Graph(self.content(), name, torch.get_num_threads())
        (maps,) = self.behind(torch.from_numpy(_run(self._opened, self.before(images).cpu().numpy(), name)))
        found, expected = tuple(maps.shape[1:]), (self.out_channels, *self.grid)
        if found != expected:
            raise UserError(f"{name} gives {found} for an image, but {expected} is said of it; take the file again")
        return [maps.to(images.device)]


def _run(graph: Graph, images: np.ndarray, name: str) -> np.ndarray:
    try:
        return graph(images)
    except Exception as error:  # onnxruntime has a class of its own for every reason
        raise UserError(
            f"{name} does not take images of {images.shape[1:]} ({reason_of(error)}); give another size with "
            "network.image_size=SIDE"
        ) from error


def describe(path: Path, image_size: int, given: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The description of a backbone, and the side of its images in pixels.

    Args:
        path: an ONNX file.
        image_size: side, where the graph takes any.
        given: ``mean`` and ``std``, where the file's own do not hold.

    Raises:
        UserError: the file cannot be read, or is no feature extractor.
    """
    content = read_graph(path, EXPECTED)
    graph = Graph(content, str(path))

    def refused(found: str) -> UserError:
        return UserError(
            f"{path} is no feature extractor: {found}; expected one input, float32 (N, 3, side, side) or (N, side, "
            "side, 3), and one output, float32 (N, channels, h, w) or (N, channels), so export its features alone"
        )

    if "classes" in graph.metadata:
        raise refused("its metadata name classes, so it is a tagger")
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise refused(f"it has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs")
    found = graph.inputs[0]
    if found.type != "tensor(float)" or len(found.shape) != 4 or 3 not in (found.shape[1], found.shape[3]):
        raise refused(f"its input is {found.type} of the shape {found.shape}")
    last = found.shape[1] != 3
    sides = found.shape[1:3] if last else found.shape[2:]
    fixed = {side for side in sides if isinstance(side, int)}
    if len(fixed) > 1:
        raise refused(f"its images are {sides[0]} x {sides[1]} pixels")
    size = fixed.pop() if fixed else image_size
    shape = (2, size, size, 3) if last else (2, 3, size, size)
    output = _run(graph, np.zeros(shape, np.float32), str(path))
    if output.dtype != np.float32 or output.ndim not in (2, 4) or len(output) != 2:
        raise refused(f"its output for two images is {output.dtype} of the shape {output.shape}")
    _, channels, *grid = AsMaps()(torch.from_numpy(output))[0].shape
    words = {
        key: _numbers(given.get(key) or graph.metadata.get(key) or usual, f"{key} of {path}")
        for key, usual in IMAGENET.items()
    }
    length = list(divmod(len(content), BLOCK))
    shape_of = {"channels": channels, "grid": grid, "length": length, "channels_last": last}
    return {"name": ONNX, **shape_of, **words}, size


def _numbers(value: Any, name: str) -> list[float]:
    """Three numbers, or json of them."""
    try:
        found = [float(number) for number in (json.loads(value) if isinstance(value, str) else value)]
        if len(found) == 3 and np.isfinite(found).all():
            return found
    except (ValueError, TypeError, RecursionError):
        pass
    raise UserError(f"{name} is {str(value)[:60]}; expected three numbers, such as [0.5, 0.5, 0.5]")
