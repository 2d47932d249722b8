"""KBK's head: every class has an embedding that draws its own feature from the image, and a row that scores it.

"Knowing Beyond the Known" (arXiv 2608.30316) and HCP (AAAI 2025, arXiv 2503.17017). Image tokens and class embeddings
attend jointly; what a class embedding has become is the purified feature o_c, and the logit of class c is
``w_c . o_c + b_c``. The rows of earlier sessions are the *stability* head and stay; those of the newest session and a
row for "unknown" are the *plasticity* head. Growth merges the two, drops the unknown row and makes a new one.

What the paper leaves open, and what is done here:

* a block is ``x + attention(LN(x))`` without a feed-forward part, which is what the published cost of the model leaves
  room for; there is no positional embedding and no norm behind the last block;
* the last block computes its outputs for the class embeddings alone, the same numbers;
* D is the width of the backbone (2048 of TResNet-M); ``width`` puts a linear projection in front, for small machines;
* an MLP is linear, ReLU, linear, both of width D;
* without purification (the plain network of the ablation) every class reads the mean of the image's tokens.

Legend: B images, T image tokens, N tokens in a sequence, C classes seen, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlcil.models.heads.ica import new_token
from mlcil.schema import Count

PURIFY = ("off", "flat", "hier")
MOST_BLOCKS = 64


class JointAttention(nn.Module):
    """``x + attention(LN(x))`` over one sequence of image tokens and class embeddings."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, x_BND: Tensor, first: int = 0) -> Tensor:
        """(B, N, D) -> the outputs of the tokens from ``first`` on."""
        normed_BND = self.norm(x_BND)
        attended, _ = self.attention(normed_BND[:, first:], normed_BND, normed_BND, need_weights=False)
        return x_BND[:, first:] + attended


class KBKHead(nn.Module):
    """Purified class features and their rows.

    Args:
        in_channels: channels of the backbone's last map.
        middle_channels: of the map before it, ``None`` where the backbone gives none.
        purify: ``hier`` draws from ``F_deep + MLP1(pool(F_mid)) + MLP2(F_deep)`` (KBK), ``flat`` from F_deep (HCP),
            ``off`` is the plain network.
        depth: blocks, 1 on COCO and 3 on VOC in the paper.
        num_heads: attention heads.
        width: D; ``None`` is ``in_channels``, as in the paper.

    Raises:
        ValueError: another ``purify``, no block or more than 64, a width that the heads do not divide, or ``hier`` on a
            backbone with a single map.
    """

    def __init__(
        self,
        in_channels: int,
        middle_channels: int | None = None,
        purify: str = "hier",
        depth: Count = 1,
        num_heads: Count = 4,
        width: Count | None = None,
    ) -> None:
        super().__init__()
        dim = width or in_channels
        if purify not in PURIFY:
            raise ValueError(f"purify is {purify!r}; use one of {', '.join(map(repr, PURIFY))}")
        if not 1 <= depth <= MOST_BLOCKS:
            raise ValueError(f"depth is {depth}; expected 1 to {MOST_BLOCKS} blocks")
        if dim % num_heads:
            raise ValueError(f"width {dim} is not divisible by num_heads {num_heads}; choose a multiple of {num_heads}")
        if purify == "hier" and middle_channels is None:
            raise ValueError("purify='hier' needs a backbone with maps of several stages; use purify='flat' here")
        self.dim, self.purify = dim, purify
        self.project: nn.Module = nn.Linear(in_channels, dim) if width else nn.Identity()
        if purify == "hier":
            assert middle_channels is not None
            self.middle = mlp(middle_channels, dim)
            self.deep = mlp(dim, dim)
        blocks = depth if purify != "off" else 0
        self.blocks = nn.ModuleList(JointAttention(dim, num_heads) for _ in range(blocks))
        self.embeddings = nn.ParameterList()  # (classes of the session, D) each
        self.rows = nn.ModuleList()  # a linear layer a session, applied to each class's own feature
        self.unknown = nn.Linear(dim, 1)

    def grow(self, classes: int) -> None:
        """Append a session's embeddings (normal, std 0.02) and rows, and begin the unknown row anew."""
        if self.blocks:
            self.embeddings.append(nn.Parameter(new_token(classes, self.dim)))
        self.rows.append(nn.Linear(self.dim, classes))
        self.unknown.reset_parameters()

    def freeze_old_sessions(self) -> None:
        """Make everything trainable, then freeze embeddings and rows of all sessions but the newest."""
        self.requires_grad_(True)
        for part in (*self.embeddings[:-1], *self.rows[:-1]):  # type: ignore[misc]
            part.requires_grad_(False)

    def image_tokens(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps of the backbone, the last of them (B, K, h, w) -> F (B, T, D), row-major."""
        deep_BTD: Tensor = self.project(maps[-1].flatten(2).transpose(1, 2))
        if self.purify != "hier":
            return deep_BTD
        height, width = maps[-1].shape[-2:]
        middle = F.adaptive_avg_pool2d(maps[-2], (height, width)).flatten(2).transpose(1, 2)
        return deep_BTD + self.middle(middle) + self.deep(deep_BTD)

    def class_features(self, tokens_BTD: Tensor) -> Tensor:
        """Image tokens (B, T, D) -> features (B, C, D)."""
        if not self.blocks:
            classes = sum(layer.out_features for layer in self.rows)  # type: ignore[misc]
            return tokens_BTD.mean(1, keepdim=True).expand(-1, classes, -1)
        embeddings_CD = torch.cat(list(self.embeddings))
        x_BND = torch.cat([tokens_BTD, embeddings_CD.expand(len(tokens_BTD), -1, -1)], 1)
        for block in self.blocks[:-1]:  # type: ignore[union-attr]
            x_BND = block(x_BND)
        return self.blocks[-1](x_BND, tokens_BTD.shape[1])  # type: ignore[no-any-return]

    def plastic_logits(self, features_BD: Tensor) -> Tensor:
        """Features (B, D) of no class in particular -> the newest session's classes and unknown, (B, C_t + 1)."""
        return torch.cat([self.rows[-1](features_BD), self.unknown(features_BD)], 1)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps of the backbone -> logits (B, C) in class-index order, class features (B, C, D)."""
        features_BCD = self.class_features(self.image_tokens(maps))
        weight_CD = torch.cat([layer.weight for layer in self.rows])  # type: ignore[misc]
        bias_C = torch.cat([layer.bias for layer in self.rows])  # type: ignore[misc]
        return torch.einsum("bcd,cd->bc", features_BCD, weight_CD.to(features_BCD.dtype)) + bias_C, features_BCD


def mlp(inp: int, dim: int) -> nn.Sequential:
    """Linear, ReLU, linear."""
    return nn.Sequential(nn.Linear(inp, dim), nn.ReLU(), nn.Linear(dim, dim))
