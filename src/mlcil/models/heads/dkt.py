"""DKT's head: specific knowledge from one token a session, and the duplex classifier.

Gao et al., "DKT: Diverse Knowledge Transfer Transformer for Class Incremental Learning", CVPR 2023. The newest
session's token asks; it, the older tokens and the image's patches answer. The query is the same for all images,
so neither keys nor values of the patches are formed (:class:`~mlcil.models.heads.ica.CrossAttention`), and one
pass serves any number of sessions.

Legend: B images, S sessions, T tokens of the sequence, D width, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlcil.models.heads.ica import CrossAttention, SessionClassifier, new_token
from mlcil.models.numerics import at_least_float32
from mlcil.models.transformer_blocks import ConvMlp, normal_weights_
from mlcil.schema import Count


class SpecificBlock(nn.Module):
    """DKT's specific-knowledge attention block: ``s = s0 + CA(LN(sequence))``, then ``s + ConvMLP(LN(s))``."""

    def __init__(self, dim: int, heads: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attention = CrossAttention(dim, heads, bias=True)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = ConvMlp(dim)
        for linear in (self.attention.q, self.attention.k, self.attention.v, self.attention.proj):
            normal_weights_(linear)

    def forward(self, tokens_SD: Tensor, patches_BTD: Tensor) -> Tensor:
        """Session tokens (S, D), the newest last, and patches (B, T, D) -> embedding (B, D)."""
        tokens = self.norm1(tokens_SD)
        patches = self.norm1(patches_BTD)
        sequence = torch.cat([tokens.expand(len(patches), -1, -1).to(patches.dtype), patches], 1)
        keyed_HD, offset_H = self.attention.keyed(tokens[-1])
        score_BHT = at_least_float32(torch.einsum("btd,hd->bht", sequence, keyed_HD))
        if offset_H is not None:
            score_BHT = score_BHT + offset_H[:, None]
        value_BHE = self.attention.values(score_BHT.softmax(-1), sequence)
        s_B1D = (tokens_SD[-1] + self.attention.proj(value_BHE.flatten(1)))[:, None]
        return (s_B1D + self.mlp(self.norm2(s_B1D)))[:, 0]


class DKTHead(nn.Module):
    """Session tokens, specific-knowledge block, duplex classifier.

    The *stability* classifier holds all old classes, the *plasticity* classifier the newest session's. When a
    session begins, the plasticity classifier's rows join the stability classifier and it starts anew.

    Args:
        in_channels: D, the channels of the encoder's map.
        grid: height and width of the map (any size will do).
        num_heads: attention heads, 12 in the released settings.
        copy_bias: keep the biases when the classifiers merge. The released code loses them: all of the
            stability classifier's biases become a fresh draw of ``Linear``'s default, and stay so until the
            balanced fine-tuning.
    """

    def __init__(self, in_channels: int, grid: tuple[int, int], num_heads: Count = 12, copy_bias: bool = False) -> None:
        super().__init__()
        self.dim, self.grid, self.copy_bias = in_channels, grid, copy_bias
        self.tokens = nn.ParameterList()
        self.block = SpecificBlock(in_channels, num_heads)
        self.stability: SessionClassifier | None = None
        self.plasticity: SessionClassifier | None = None

    def grow(self, classes: int) -> None:
        """Append a session: its token, and the classifiers as described above."""
        reference = self.block.norm1.weight
        self.tokens.append(nn.Parameter(new_token(1, 1, self.dim).to(reference)))
        fresh = SessionClassifier(self.dim, classes).to(reference)
        if self.stability is None:
            self.stability = fresh
            return
        if self.plasticity is not None:
            self._merge(self.stability, self.plasticity)
        self.plasticity = fresh

    def _merge(self, stability: SessionClassifier, plasticity: SessionClassifier) -> None:
        """Rows of both classifiers under the stability classifier's norm; the other norm is dropped."""
        parts = (stability.linear, plasticity.linear)
        merged = nn.Linear(self.dim, sum(part.out_features for part in parts)).to(parts[0].weight)
        with torch.no_grad():
            merged.weight.copy_(torch.cat([part.weight for part in parts]))
            if self.copy_bias:
                merged.bias.copy_(torch.cat([part.bias for part in parts]))
        stability.linear = merged

    def freeze_old_sessions(self) -> None:
        """Make everything trainable, then freeze all tokens but the newest and the stability classifier.

        In the first session nothing is frozen.
        """
        self.requires_grad_(True)
        if self.plasticity is None:
            return
        assert self.stability is not None
        self.stability.requires_grad_(False)
        for token in self.tokens[:-1]:  # type: ignore[attr-defined]
            token.requires_grad_(False)

    def freeze_tokens(self) -> None:
        """Make everything trainable but the tokens (balanced fine-tuning)."""
        self.requires_grad_(True)
        self.tokens.requires_grad_(False)

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, D, h, w) -> logits (B, C_seen) in class-index order, embedding (B, 1, D), the same as (B, D)."""
        assert self.stability is not None, "grow() comes before forward()"
        patches_BTD = feature_map.flatten(2).transpose(1, 2)
        embedding_BD = self.block(torch.cat(list(self.tokens)).squeeze(1), patches_BTD)
        logits_BC = self.stability(embedding_BD)
        if self.plasticity is not None:
            logits_BC = torch.cat([logits_BC, self.plasticity(embedding_BD)], 1)
        return logits_BC, embedding_BD[:, None], embedding_BD
