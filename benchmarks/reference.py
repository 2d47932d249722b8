"""The straightforward formulation of incremental cross-attention, on the parameters of our head.

For every session token the whole attention is run again over ``[KT; KR_i; patches]``, with keys and values
projected for all of its vectors, as KRT's released code does. Only the benchmarks and tests use it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlcil.models.heads import ICAHead


def per_session_forward(head: ICAHead, feature_map: Tensor) -> tuple[Tensor, Tensor]:
    """(B, C, h, w) -> logits (B, C_seen) and session embeddings (B, S, D), session by session."""
    block = head.block
    attention = block.attention
    patches_BTD = head.patch_tokens(feature_map)
    if head.pos_embed is not None:
        patches_BTD = patches_BTD + head.position(*feature_map.shape[-2:])
    batch, _, dim = patches_BTD.shape
    size = dim // attention.heads
    kt_B1D = head.kt_token.expand(batch, -1, -1)
    logits, tokens = [], []
    for kr_token, classifier in zip(head.kr_tokens, head.classifiers, strict=True):
        sequence = block.norm1(torch.cat([kt_B1D, kr_token.expand(batch, -1, -1), patches_BTD], 1))
        length = sequence.shape[1]
        q = attention.q(sequence[:, :1]).view(batch, 1, attention.heads, size).transpose(1, 2) * size**-0.5
        k = attention.k(sequence).view(batch, length, attention.heads, size).transpose(1, 2)
        v = attention.v(sequence).view(batch, length, attention.heads, size).transpose(1, 2)
        weights = (q @ k.transpose(-2, -1)).softmax(-1)
        context = attention.proj((weights @ v).transpose(1, 2).reshape(batch, 1, dim))
        c = kt_B1D + context
        token_BD = (c + block.mlp(block.norm2(c)))[:, 0]
        tokens.append(token_BD)
        logits.append(classifier(token_BD))
    return torch.cat(logits, 1), torch.stack(tokens, 1)
