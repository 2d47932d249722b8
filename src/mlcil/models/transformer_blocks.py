"""Transformer blocks that DKT and DAFormer are made of.

Legend: B images, T patch tokens in row-major order, D width, H heads, E = D / H.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlcil.models.sync_batch_norm import SynchronisedBatchNorm

MLP_RATIO = 4


class PreNormBlock(nn.Module):
    """``x + DropPath(attention(LN(x)))``, then ``x + DropPath(mlp(LN(x)))``.

    Args:
        dim: D.
        attention, mlp: map (B, T, D) to (B, T, D).
        drop_path: probability that an image skips a branch in training.
        eps: of the two layer norms.
    """

    def __init__(
        self, dim: int, attention: nn.Module, mlp: nn.Module, drop_path: float = 0.0, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = mlp
        self.drop_path = drop_branch(drop_path)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.drop_path(self.attention(self.norm1(x_BTD)))
        return x_BTD + self.drop_path(self.mlp(self.norm2(x_BTD)))


class SingleSafeBatchNorm(nn.BatchNorm2d):
    """A batch norm that takes a single value per channel in training, too: by the running statistics.

    DKT normalises single-token maps over the batch alone, and an epoch's last batch may be a single image.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1] and not SynchronisedBatchNorm.active:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class ConvMlp(nn.Module):
    """DKT's feed-forward part: the tokens as a square map through 1x1, depth-wise 3x3 and 1x1 convolutions.

    A batch norm follows each convolution, a GELU each but the last. A single token is a 1x1 map, of which
    the 3x3 convolution sees its centre only.

    Args:
        dim: D; the hidden width is four times that.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = MLP_RATIO * dim
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.bn1 = SingleSafeBatchNorm(hidden)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.bn2 = SingleSafeBatchNorm(hidden)
        self.fc2 = nn.Conv2d(hidden, dim, 1)
        self.bn3 = SingleSafeBatchNorm(dim)

    def forward(self, x_BTD: Tensor) -> Tensor:
        side = math.isqrt(x_BTD.shape[1])
        x = x_BTD.view(len(x_BTD), side, side, -1).permute(0, 3, 1, 2)  # channels last, no copy
        x = F.gelu(self.bn1(self.fc1(x)))
        x = F.gelu(self.bn2(self.dwconv(x)))
        return self.bn3(self.fc2(x)).flatten(2).transpose(1, 2)


class GeneralBlock(PreNormBlock):
    """DKT's general-knowledge attention block: the patches also look at the general token.

    The token is one more key and value. It is neither changed nor passed on.
    """

    def forward(self, x_BTD: Tensor, general: Tensor) -> Tensor:  # type: ignore[override]
        """(B, T, D) and the token (1, 1, D) -> (B, T, D)."""
        length = x_BTD.shape[1]
        sequence = torch.cat([x_BTD, general.expand(len(x_BTD), -1, -1).to(x_BTD.dtype)], 1)
        x_BTD = x_BTD + self.drop_path(self.attention(self.norm1(sequence))[:, :length])
        return x_BTD + self.drop_path(self.mlp(self.norm2(x_BTD)))


def normal_weights_(linear: nn.Linear) -> None:
    """Weight from a normal of deviation 0.02 (the releases cut it at +-2, which is never), bias 0."""
    nn.init.normal_(linear.weight, std=0.02)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def drop_branch(probability: float) -> nn.Module:
    """What leaves a branch out for an image with that probability, in training."""
    if probability <= 0:
        return nn.Identity()
    from timm.layers import DropPath  # heavy: only when asked for

    return DropPath(probability)  # type: ignore[no-any-return]
