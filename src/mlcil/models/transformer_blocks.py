"""Transformer blocks that DKT and DAFormer are made of.

Legend: B images, T patch tokens in row-major order, D width, H heads, E = D / H.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from timm.models.convit import GPSA
from torch import Tensor, nn

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
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.drop_path(self.attention(self.norm1(x_BTD)))
        return x_BTD + self.drop_path(self.mlp(self.norm2(x_BTD)))


class SingleSafeBatchNorm(nn.BatchNorm2d):
    """A batch norm that takes a single value per channel in training, too: by the running statistics.

    DKT normalises single-token maps over the batch alone, and an epoch's last batch may be a single image.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() == input.shape[1]:
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


class LocalAttention(GPSA):  # type: ignore[misc]
    """Gated positional self-attention (d'Ascoli et al., "ConViT", ICML 2021); timm's parameters and start.

    ``A = (1 - sigmoid(g)) softmax(q k / sqrt(E)) + sigmoid(g) softmax(position)``. Position scores depend on
    no image, so they are computed once a batch; both parts have rows that sum to 1, so that A need not be
    normalised again.
    """

    def __init__(self, dim: int, heads: int, tokens: int) -> None:
        super().__init__(dim, heads)
        self.rel_indices = self.get_rel_indices(tokens)
        for module in (self.qk, self.v, self.proj, self.pos_proj):
            truncated_normal_(module)
        self.local_init()

    def forward(self, x_BTD: Tensor) -> Tensor:
        batch, tokens, dim = x_BTD.shape
        split = (batch, tokens, -1, self.num_heads, dim // self.num_heads)
        q, k = self.qk(x_BTD).view(split).permute(2, 0, 3, 1, 4)  # each (B, H, T, E)
        v = self.v(x_BTD).view(split).permute(2, 0, 3, 1, 4)[0]
        gate_H11 = torch.sigmoid(self.gating_param).view(-1, 1, 1)
        content = F.scaled_dot_product_attention(q, k, v)
        mixed = (1 - gate_H11) * content + gate_H11 * (self.position_map(tokens).to(v.dtype) @ v)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, dim))

    def position_map(self, tokens: int) -> Tensor:
        """Attention by relative position alone, (H, T, T); rows sum to 1."""
        relative = self.rel_indices if self.rel_indices.shape[1] == tokens else self.get_rel_indices(tokens)
        return self.pos_proj(relative[0].to(self.pos_proj.weight)).permute(2, 0, 1).softmax(-1)


def truncated_normal_(linear: nn.Linear) -> None:
    """Weight from a truncated normal of std 0.02, bias 0."""
    nn.init.trunc_normal_(linear.weight, std=0.02)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
