"""The residual networks of the single-label papers, whose blocks differ from the common ones.

====================  =======================================================================================
``resnet32_rdfcil``   R-DFCIL on CIFAR-100 and Tiny-ImageNet: 31 layers and a head, no ReLU after any residual
                      sum, so features may be negative; new channels of a shortcut are zeros behind the old
``resnet18_rdfcil``   R-DFCIL on ImageNet-100 (after PODNet): 3x3 stem without stride, ReLU after the sum of
                      the first block of each stage only
``resnet32_abd``      ABD on CIFAR-100 and Tiny-ImageNet: ReLU after every sum; zero channels on both sides
``resnet18_abd``      what ABD's release calls ResNet-18: the same three stages with two blocks each
====================  =======================================================================================

A common ResNet-18 is timm's ``resnet18``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

VARIANTS: dict[str, dict[str, Any]] = {
    "resnet32_rdfcil": {
        "blocks": (5, 5, 4, 1), "widths": (16, 32, 64, 64), "shortcut": "zeros_behind", "rectify": "never",
        "init": "fan_out",
    },
    "resnet18_rdfcil": {
        "blocks": (2, 2, 2, 2), "widths": (64, 128, 256, 512), "shortcut": "convolution", "rectify": "first",
        "init": "fan_out", "stem_pool": True,
    },
    "resnet32_abd": {
        "blocks": (5, 5, 5), "widths": (16, 32, 64), "shortcut": "zeros_around", "rectify": "always",
        "init": "fan_in",
    },
    "resnet18_abd": {
        "blocks": (2, 2, 2), "widths": (16, 32, 64), "shortcut": "zeros_around", "rectify": "always",
        "init": "fan_in",
    },
}  # fmt: skip
SHORTCUTS = ("zeros_behind", "zeros_around", "convolution")
RECTIFY = ("always", "first", "never")
INITS = ("fan_out", "fan_in")


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm."""

    def __init__(self, inp: int, out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inp, out, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class ZeroShortcut(nn.Module):
    """Every ``stride``-th position, and channels of zeros (option A of He et al., CVPR 2016).

    Args:
        before, behind: how many channels of zeros come before and behind the input's.
        stride: step of the subsampling.
    """

    def __init__(self, before: int, behind: int, stride: int) -> None:
        super().__init__()
        self.padding, self.stride = (0, 0, 0, 0, before, behind), stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[..., :: self.stride, :: self.stride], self.padding)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; a ReLU behind the sum only where ``rectify`` says so."""

    def __init__(self, inp: int, planes: int, stride: int, shortcut: str, rectify: bool) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inp, planes, 3, stride)
        self.conv2 = ConvNorm(planes, planes, 3)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inp != planes:
            if shortcut == "convolution":
                self.shortcut = ConvNorm(inp, planes, 1, stride)
            else:
                before = (planes - inp) // 2 if shortcut == "zeros_around" else 0
                self.shortcut = ZeroShortcut(before, planes - inp - before, stride)
        self.rectify = rectify

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x))) + self.shortcut(x)
        return F.relu(y) if self.rectify else y


class ResNet(nn.Module):
    """The convolutional trunk: images to the maps of its stages.

    Args:
        blocks: blocks in each stage.
        widths: channels of each stage; a stage that widens halves the map.
        shortcut: where the width changes: ``zeros_behind``, ``zeros_around`` or ``convolution`` (1x1).
        rectify: which blocks of a stage end in a ReLU: ``always`` (all), ``first`` or ``never``.
        init: convolutions are Kaiming-normal (gain sqrt 2) by ``fan_out``, with the last norm of every block
            at 0, or by ``fan_in``, with all norms at 1.
        stem_pool: a 3x3 max pooling of stride 2 behind the stem.
        mean, std: normalisation of the images per channel; 0 and 1 leave them in [0, 1].

    Attributes:
        out_channels: channels of the last map.
        stage_channels: of all maps.
        mean, std: buffers (1, 3, 1, 1), in no checkpoint.

    Raises:
        ValueError: an unknown ``shortcut``, ``rectify`` or ``init``, or as many blocks as widths are not given.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        blocks: Sequence[Annotated[int, Ge(1), Le(1000)]] = (5, 5, 5),
        widths: Sequence[int] = (16, 32, 64),
        shortcut: str = "zeros_around",
        rectify: str = "always",
        init: str = "fan_in",
        stem_pool: bool = False,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("shortcut", shortcut, SHORTCUTS),
            ("rectify", rectify, RECTIFY),
            ("init", init, INITS),
        ):
            if value not in known:
                raise ValueError(f"{name} {value!r} is unknown; use one of {', '.join(known)}")
        if len(blocks) != len(widths):
            raise ValueError(f"{len(blocks)} numbers of blocks for {len(widths)} widths; give one a stage")
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.stem = ConvNorm(3, widths[0], 3)
        self.pool: nn.Module = nn.MaxPool2d(3, 2, 1) if stem_pool else nn.Identity()
        stages = []
        channels = widths[0]
        for count, width in zip(blocks, widths, strict=True):
            stage = []
            for position in range(count):
                stride = 2 if position == 0 and width != channels else 1
                ends_in_relu = rectify == "always" or (rectify == "first" and position == 0)
                stage.append(Block(channels, width, stride, shortcut, ends_in_relu))
                channels = width
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.stage_channels = list(widths)
        self.out_channels = channels
        self.init = init
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fresh weights as ``init`` says; batch norms 1/0 (or 0/0 at a block's end) with fresh statistics."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode=self.init, nonlinearity="relu")  # type: ignore[arg-type]
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        if self.init == "fan_out":
            for module in self.modules():
                if isinstance(module, Block):
                    nn.init.zeros_(module.conv2.norm.weight)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> one map a stage; without ``stem_pool`` the first has the images' size."""
        x = self.pool(F.relu(self.stem((images - self.mean) / self.std)))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps
