"""Straightforward formulations: of the attention heads, on the parameters of our heads, and of reading images.

KRT and DAFormer: for every session the whole attention is run again, with everything projected anew; DKT:
keys and values are formed for the whole sequence. Images are decoded and resized whenever they are asked for, augmented
by Pillow alone, and floats from then on. Tests and ``benchmarks/`` compare with them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from mlcil.datasets.randaugment import GREY, MAGNITUDES, NAMES, Cutout, RandAugment, apply_operation, operations_of
from mlcil.images import load_rgb
from mlcil.models.heads import DAFormerHead, DKTHead, ICAHead
from mlcil.models.heads.daformer import DualAttention
from mlcil.models.network import NetworkOutput


class PerSession(nn.Module):
    """A network that runs the attention block once per session."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> NetworkOutput:
        """As :class:`mlcil.models.network.IncrementalNetwork`."""
        maps = self.network.backbone(images)  # type: ignore[operator]
        return NetworkOutput(*per_session_forward(self.network.head, maps[-1]), maps)  # type: ignore[arg-type]


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


def whole_block_forward(head: DAFormerHead, feature_map: Tensor) -> tuple[Tensor, Tensor]:
    """(B, D, h, w) -> logits (B, C_seen) and embeddings (B, S, D): the dual block once a session, then the mean.

    With edition S the block runs once a session too, with the shared key.
    """
    block = head.block
    patches_BTD = feature_map.flatten(2).transpose(1, 2)
    logits, tokens = [], []
    for index, classifier in enumerate(head.classifiers):
        key = head.keys[min(index, len(head.keys) - 1)]
        q, k, v = block.attention.split(block.norm1(patches_BTD))
        internal, external = DualAttention.internal_map(q, k), DualAttention.external_map(q, key)
        x_BTD = patches_BTD + block.drop_path(DualAttention.merge(internal @ v + external @ v))
        x_BTD = x_BTD + block.drop_path(block.mlp(block.norm2(x_BTD)))
        tokens.append(x_BTD.mean(1))
        logits.append(classifier(tokens[-1]))
    return torch.cat(logits, 1), torch.stack(tokens if head.edition == "M" else tokens[:1], 1)


def whole_sequence_forward(head: DKTHead, feature_map: Tensor) -> tuple[Tensor, Tensor]:
    """(B, D, h, w) -> logits (B, C_seen) and embedding (B, 1, D): newest token, other tokens, patches; all keys."""
    block, attention = head.block, head.block.attention
    patches_BTD = feature_map.flatten(2).transpose(1, 2)
    batch, _, dim = patches_BTD.shape
    tokens = [head.tokens[-1], *head.tokens[:-1]]
    sequence = torch.cat([*(token.expand(batch, -1, -1) for token in tokens), patches_BTD], 1)
    normed = block.norm1(sequence)
    size = dim // attention.heads
    q = attention.q(normed[:, :1]).view(batch, 1, attention.heads, size).transpose(1, 2) * size**-0.5
    k, v = (f(normed).view(batch, -1, attention.heads, size).transpose(1, 2) for f in (attention.k, attention.v))
    context = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(batch, 1, dim)
    s_B1D = sequence[:, :1] + attention.proj(context)
    embedding_BD = (s_B1D + block.mlp(block.norm2(s_B1D)))[:, 0]
    classifiers = [head.stability, head.plasticity] if head.plasticity is not None else [head.stability]
    return torch.cat([f(embedding_BD) for f in classifiers if f is not None], 1), embedding_BD[:, None]


class DecodedAnew(Dataset[Tensor]):
    """Image files as float32 (3, S, S) in [0, 1], with KRT's augmentation or without."""

    def __init__(self, files: list[Path], size: int, augment: bool) -> None:
        self.files, self.size = files, size
        self.cutout, self.randaugment = (Cutout(0.5), RandAugment()) if augment else (None, None)

    def __getitem__(self, entry: tuple[int, tuple[int, ...]]) -> Tensor:
        position, key = entry
        image = load_rgb(self.files[position]).resize((self.size, self.size), Image.Resampling.BILINEAR)
        if self.cutout is not None and self.randaugment is not None:
            rng = np.random.default_rng(np.random.SeedSequence(key))
            image = self.cutout(image, rng)
            for operation in operations_of(self.randaugment.draw(rng, self.size, self.size)):
                if operation.number >= 0:
                    image = _by_pillow(image, NAMES[operation.number], operation.level, operation.sign, operation[3:])
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)


def _by_pillow(image: Image.Image, name: str, level: int, sign: int, centre: tuple[float, float]) -> Image.Image:
    amount = MAGNITUDES[name][level] * sign
    matrix = {"ShearX": (1, amount, 0, 0, 1, 0), "ShearY": (1, 0, 0, amount, 1, 0)}.get(name)
    if matrix is None:
        return apply_operation(image, name, level, sign, centre)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=GREY)
