"""The attention of DAFormer's local blocks.

Legend: B images, T patch tokens in row-major order, D width, H heads, E = D / H.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.convit import GPSA
from torch import Tensor

from mlcil.models.transformer_blocks import normal_weights_


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
            normal_weights_(module)
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
