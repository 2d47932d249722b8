"""The encoders of DKT and DAFormer: small vision transformers without a class token.

Both are backbones in the sense of :mod:`mlcil.models.backbones`: images (B, 3, H, W) in [0, 1] to a list
with one feature map (B, D, h, w). What depends on sessions is in the heads
(:mod:`mlcil.models.heads.dkt`, :mod:`mlcil.models.heads.daformer`).

Legend: B images, T = h w patch tokens in row-major order, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from mlcil.models.heads.ica import new_token, resize_pos_embed
from mlcil.models.transformer_blocks import (
    MLP_RATIO,
    ConvMlp,
    GeneralBlock,
    PreNormBlock,
    normal_weights_,
)

#: mean and standard deviation of the pixels, as DKT and DAFormer were released with
CIFAR_STATISTICS = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Normalise(nn.Module):
    """(x - mean) / std per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(tuple(std)).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


def conv_stem(dim: int, kind: str) -> nn.Sequential:
    """DKT's patch stem: 32x32 images to 8x8 patches (``cifar``), 224x224 to 14x14 (``imagenet``).

    Raises:
        ValueError: unknown kind.
    """
    if kind == "cifar":
        first, last = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, dim, 2, stride=2)
    elif kind == "imagenet":
        first, last = nn.Conv2d(3, 32, 7, stride=2, padding=2), nn.Conv2d(32, dim, 4, stride=4)
    else:
        raise ValueError(f"stem {kind!r} is unknown; use 'cifar' or 'imagenet'")
    return nn.Sequential(first, nn.BatchNorm2d(32), nn.MaxPool2d(3, stride=2, padding=1), last)


def check_heads(dim: int, heads: int) -> None:
    """Refuse a width that attention heads cannot share.

    Raises:
        ValueError: names both numbers.
    """
    if heads < 1 or dim % heads:
        raise ValueError(f"backbone width {dim} is not divisible by heads {heads}; choose a multiple of {heads}")


class DKTEncoder(nn.Module):
    """DKT's encoder (Gao et al., "DKT: Diverse Knowledge Transfer Transformer", CVPR 2023).

    Convolutional stem, ``depth`` transformer blocks, the last of which attends to the general token as well.
    There is no positional embedding.

    Args:
        dim: D, 384 in the released settings.
        depth: blocks, 5 in the released settings.
        heads: attention heads, 12 in the released settings.
        drop_path: the rate grows from 0 by ``drop_path / depth`` a block; DKT's last encoder block has 0.08.
        stem: ``cifar`` or ``imagenet``, see :func:`conv_stem`.
        mean, std: pixel normalisation; ``None`` takes that of the stem's data set.

    Raises:
        ValueError: unknown stem, or D is no multiple of the heads.
    """

    def __init__(
        self,
        dim: int = 384,
        depth: Annotated[int, Ge(1), Le(1000)] = 5,
        heads: int = 12,
        drop_path: float = 0.1,
        stem: str = "cifar",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        from timm.layers import Attention  # heavy: only when asked for

        super().__init__()
        check_heads(dim, heads)
        default_mean, default_std = CIFAR_STATISTICS if stem == "cifar" else IMAGENET_STATISTICS
        self.out_channels = dim
        self.normalise = Normalise(mean or default_mean, std or default_std)
        self.stem = conv_stem(dim, stem)
        self.blocks = nn.ModuleList()
        for index in range(depth):
            kind = GeneralBlock if index == depth - 1 else PreNormBlock
            attention = Attention(dim, heads, qkv_bias=True)
            self.blocks.append(kind(dim, attention, ConvMlp(dim), drop_path * index / depth))
        self.general_token = nn.Parameter(new_token(1, 1, dim))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> [(B, D, h, w)]."""
        x = self.stem(self.normalise(images))
        grid = x.shape[-2:]
        x_BTD = x.flatten(2).transpose(1, 2)
        for block in self.blocks[:-1]:
            x_BTD = block(x_BTD)
        x_BTD = self.blocks[-1](x_BTD, self.general_token)
        return [x_BTD.transpose(1, 2).unflatten(2, grid)]


class DAFormerEncoder(nn.Module):
    """DAFormer's encoder ("A Tale of Two Memories", IEEE TMM): patches, positions, local blocks.

    Args:
        dim: D, 384 in the released settings.
        depth: local blocks, 5 in the released settings.
        heads: attention heads, 12 in the released settings.
        drop_path: rate of the dual block in the head; the local blocks have ``0 ... drop_path`` in equal
            steps up to it.
        patch: side of a patch in pixels, 4 for 32x32 images and 16 for 224x224.
        image_size: side of the images in pixels.
        mean, std: pixel normalisation; ``None`` takes CIFAR's up to 64 pixels and ImageNet's above.

    Raises:
        ValueError: the image is no whole number of patches wide, or D is no multiple of the heads.
    """

    def __init__(
        self,
        dim: int = 384,
        depth: Annotated[int, Ge(1), Le(1000)] = 5,
        heads: int = 12,
        drop_path: float = 0.1,
        patch: int = 4,
        image_size: int = 32,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        from timm.layers import Mlp  # heavy: only when asked for

        from mlcil.models.local_attention import LocalAttention

        super().__init__()
        check_heads(dim, heads)
        if image_size % patch:
            raise ValueError(f"image_size {image_size} is no multiple of the patch of {patch} pixels")
        default_mean, default_std = CIFAR_STATISTICS if image_size <= 64 else IMAGENET_STATISTICS
        self.out_channels = dim
        self.grid = (image_size // patch, image_size // patch)
        tokens = self.grid[0] * self.grid[1]
        self.normalise = Normalise(mean or default_mean, std or default_std)
        self.stem = nn.Conv2d(3, dim, patch, stride=patch)
        self.pos_embed = nn.Parameter(new_token(1, tokens, dim))
        self.blocks = nn.ModuleList()
        for index in range(depth):
            mlp = Mlp(dim, MLP_RATIO * dim)
            normal_weights_(mlp.fc1)
            normal_weights_(mlp.fc2)
            attention = LocalAttention(dim, heads, tokens)
            self.blocks.append(PreNormBlock(dim, attention, mlp, drop_path * index / depth, eps=1e-5))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> [(B, D, h, w)]."""
        x = self.stem(self.normalise(images))
        grid = (x.shape[-2], x.shape[-1])
        x_BTD = x.flatten(2).transpose(1, 2) + resize_pos_embed(self.pos_embed, self.grid, grid)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return [x_BTD.transpose(1, 2).unflatten(2, grid)]
