"""TResNet (Ridnik et al., "TResNet: High Performance GPU-Dedicated Architecture", WACV 2021).

The variants M, L and XL as ImageNet-21K-P released them and KRT uses them: space-to-depth stem, in-place
activated batch norm, anti-aliased ("blur") downsampling, squeeze-and-excite in stages 1 to 3. Input is RGB
in [0, 1] without mean/std normalisation.

Shapes: B images, C channels, H x W pixels; all convolutions have no bias and padding k // 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mlcil.models.inplace_abn import ABN, repeated_forward
from mlcil.models.sync_batch_norm import SynchronisedBatchNorm

STEM_SLOPE = 0.01  # leaky ReLU of the stem; all blocks use BLOCK_SLOPE
BLOCK_SLOPE = 1e-3

#: name -> (blocks per stage, width factor)
VARIANTS: dict[str, tuple[tuple[int, int, int, int], float]] = {
    "tresnet_m": ((3, 4, 11, 3), 1.0),
    "tresnet_l": ((4, 5, 18, 3), 1.2),
    "tresnet_xl": ((4, 5, 24, 3), 1.3),
}


def space_to_depth(x: Tensor, block: int = 4) -> Tensor:
    """(B, C, H, W) -> (B, block^2 C, H/block, W/block); output channel = (row * block + column) * C + c."""
    b, c, h, w = x.shape
    x = x.view(b, c, h // block, block, w // block, block)
    return x.permute(0, 3, 5, 1, 2, 4).reshape(b, c * block * block, h // block, w // block)


class BlurDownsample(nn.Module):
    """Reflect-pad by 1, then the fixed depthwise filter [1,2,1] x [1,2,1] / 16 with stride 2."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", (row[:, None] * row[None, :] / 16)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(padded, self.kernel.to(x.dtype).expand(channels, 1, 3, 3), stride=2, groups=channels)


class ConvABN(nn.Module):
    """k x k convolution, ABN and, with ``stride=2``, the blur downsample behind the activation."""

    def __init__(
        self, inp: int, out: int, kernel: int, slope: float | None, stride: int = 1, abn: str = "auto"
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inp, out, kernel, padding=kernel // 2, bias=False)
        self.abn = ABN(out, slope, implementation=abn)
        self.blur = BlurDownsample() if stride == 2 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.blur(self.abn(self.conv(x)))


class SqueezeExcite(nn.Module):
    """Channel gates from the spatial mean: two 1x1 convolutions with bias, ReLU between, sigmoid behind."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.expand = nn.Conv2d(reduced, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gates = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(F.relu(self.reduce(gates))))


class Shortcut(nn.Module):
    """Average pool 2x2 (ceil mode, padding not counted) when striding, then 1x1 convolution and ABN(id)."""

    def __init__(self, inp: int, out: int, stride: int, abn: str) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(inp, out, 1, bias=False)
        self.abn = ABN(out, None, implementation=abn)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            x = F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
        return self.abn(self.conv(x))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (stages 1 and 2)."""

    expansion = 1

    def __init__(self, inp: int, planes: int, stride: int = 1, se: bool = True, abn: str = "auto") -> None:
        super().__init__()
        self.conv1 = ConvABN(inp, planes, 3, BLOCK_SLOPE, stride, abn)
        self.conv2 = ConvABN(planes, planes, 3, None, abn=abn)
        self.se = SqueezeExcite(planes, max(planes // 4, 64)) if se else nn.Identity()
        self.shortcut = Shortcut(inp, planes, stride, abn) if stride == 2 or inp != planes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.se(self.conv2(self.conv1(x))) + self.shortcut(x), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a fourfold widening (stages 3 and 4)."""

    expansion = 4

    def __init__(self, inp: int, planes: int, stride: int = 1, se: bool = True, abn: str = "auto") -> None:
        super().__init__()
        out = planes * self.expansion
        self.conv1 = ConvABN(inp, planes, 1, BLOCK_SLOPE, abn=abn)
        self.conv2 = ConvABN(planes, planes, 3, BLOCK_SLOPE, stride, abn)
        self.se = SqueezeExcite(planes, max(planes * self.expansion // 8, 64)) if se else nn.Identity()
        self.conv3 = ConvABN(planes, out, 1, None, abn=abn)
        self.shortcut = Shortcut(inp, out, stride, abn) if stride == 2 or inp != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(self.se(self.conv2(self.conv1(x))))
        return F.relu(y + self.shortcut(x), inplace=True)


class TResNet(nn.Module):
    """The convolutional trunk: images to the maps of its four stages.

    Args:
        layers: blocks in each of the four stages.
        width: factor on all channel counts; stage 1 has ``int(64 * width)`` channels.
        abn: implementation of the activated batch norm, see :class:`~mlcil.models.inplace_abn.ABN`.
        recompute: keep only the blocks' inputs for the backward pass and compute the rest again: less memory for
            one more forward pass a step, same numbers.

    Attributes:
        out_channels: channels of the last map (2048 for M).
        stage_channels: of the four maps.
        stride: input pixels per position of the last map (32).
    """

    stride = 32

    def __init__(
        self,
        layers: Sequence[Annotated[int, Ge(1), Le(1000)]] = (3, 4, 11, 3),
        width: Annotated[float, Gt(0), Le(100)] = 1.0,
        abn: str = "auto",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        planes = int(64 * width)
        self.stem = ConvABN(3 * 16, planes, 3, STEM_SLOPE, abn=abn)
        channels = planes
        blocks: list[type[BasicBlock] | type[Bottleneck]] = [BasicBlock, BasicBlock, Bottleneck, Bottleneck]
        stages = []
        self.stage_channels: list[int] = []
        for index, (block, count) in enumerate(zip(blocks, layers, strict=True)):
            stage_planes = planes * 2**index
            stage = []
            for position in range(count):
                stride = 2 if index > 0 and position == 0 else 1
                stage.append(block(channels, stage_planes, stride, se=index < 3, abn=abn))
                channels = stage_planes * block.expansion
            stages.append(nn.Sequential(*stage))
            self.stage_channels.append(channels)
        self.stages = nn.ModuleList(stages)
        self.out_channels = channels
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming-normal convolutions (fan out, gain sqrt 2), ABN 1/0, last ABN of every branch 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock):
                nn.init.zeros_(module.conv2.abn.weight)
            elif isinstance(module, Bottleneck):
                nn.init.zeros_(module.conv3.abn.weight)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1], H and W multiples of 4 -> maps of stages 1 to 4, the last (B, C, H/32, W/32)."""
        x = self.stem(space_to_depth(images))
        maps = []
        again = self.recompute and self.training and torch.is_grad_enabled()
        for stage in self.stages:
            if again:
                for block in stage:  # type: ignore[attr-defined]
                    x = checkpoint(block, x, use_reentrant=False, context_fn=_contexts)
            else:
                x = stage(x)
            maps.append(x)
        return maps


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around a block's forward pass and around its repetition, which PyTorch makes outside of the step's contexts."""
    return nullcontext(), _repeated(bool(SynchronisedBatchNorm.active))


@contextmanager
def _repeated(synchronised: bool) -> Iterator[None]:
    with repeated_forward(), SynchronisedBatchNorm() if synchronised else nullcontext():
        yield
