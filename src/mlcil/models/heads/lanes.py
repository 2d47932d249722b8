"""MULTI-LANE's head: every session has a lane of a few tokens through the frozen blocks of a vision transformer.

De Min, Mancini, Lathuiliere, Roy and Ricci, "Less is more: Summarizing Patch Tokens for efficient Multi-Label
Class-Incremental Learning", CoLLAs 2024. In every block the lane's selectors ask the image's patches, the answers and
the lane's own class token pass through the block's attention, and of what comes out only the class token is kept: the
selectors are put back. So only the class token needs a query, an MLP and a residual. A lane sees no other lane, so a
later session changes no bit of an earlier session's scores.

Legend: B images, T patch tokens, D width, L blocks, S tokens of a lane, P prompts, E width of an attention head.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn


class Lane(nn.Module):
    """The tokens and prompts of a session, orthogonal to each other at first where the width allows it.

    Args:
        dim: D.
        tokens: S; the first one is the class token, the others are selectors.
        prompts: P, keys and values that join those of the tokens.
        blocks: the first blocks of the transformer, which have prompts.
    """

    def __init__(self, dim: int, tokens: int, prompts: int, blocks: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(nn.init.orthogonal_(torch.empty(tokens, dim)))
        rows = nn.init.orthogonal_(torch.empty(max(2 * blocks * prompts, 1), dim))
        self.prompts = nn.Parameter(rows[: 2 * blocks * prompts].reshape(2 * blocks, prompts, dim).clone())

    def forward(self, patches: Sequence[Tensor], blocks: Sequence[Any]) -> Tensor:
        """Normalised patch tokens (B, T, D) in front of each block, and the blocks -> class token (B, D)."""
        token_B1D = self.tokens[:1].expand(len(patches[0]), 1, -1)
        for number, (block, patches_BTD) in enumerate(zip(blocks, patches, strict=True)):
            asking_RD = block.norm1(self.tokens[1:])
            weights_BRT = (asking_RD @ patches_BTD.transpose(1, 2) / math.sqrt(asking_RD.shape[1])).softmax(-1)
            lane_BSD = torch.cat([block.norm1(token_B1D), weights_BRT @ patches_BTD], 1)
            prompts = self.prompts[2 * number : 2 * number + 2]  # keys and values, or nothing
            token_B1D = token_B1D + block.ls1(first_token_attention(block.attn, lane_BSD, *prompts))
            token_B1D = token_B1D + block.ls2(block.mlp(block.norm2(token_B1D)))
        return token_B1D[:, 0]


def first_token_attention(attention: Any, tokens_BSD: Tensor, *prompts: Tensor) -> Tensor:
    """What timm's ``Attention`` gives the first token when key and value prompts (P, D) join, (B, 1, D)."""
    heads = attention.num_heads
    q_BHSE, k_BHSE, v_BHSE = attention.qkv(tokens_BSD).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    q_BH1E, k_BHSE = attention.q_norm(q_BHSE[:, :, :1]), attention.k_norm(k_BHSE)
    if prompts:
        shape = (len(tokens_BSD), -1, heads, q_BH1E.shape[-1])
        joined = (part[None].expand(len(tokens_BSD), -1, -1).reshape(shape).transpose(1, 2) for part in prompts)
        k_BHSE, v_BHSE = (torch.cat([p.to(own), own], 2) for p, own in zip(joined, (k_BHSE, v_BHSE), strict=True))
    out_BH1E = F.scaled_dot_product_attention(q_BH1E, k_BHSE, v_BHSE)
    out_B1D: Tensor = attention.proj(attention.norm(out_BH1E.transpose(1, 2).flatten(2)))
    return out_B1D


class LaneHead(nn.Module):
    """A lane and a linear layer a session; the layer reads the lane's class token, normed to length 1.

    In training only the newest lane runs, and the logits of earlier sessions are 0 without gradient.

    Args:
        in_channels: D.
        blocks: L, blocks of the backbone.
        tokens: tokens of a lane (published: 20 on COCO, 10 on VOC).
        prompts: key prompts and as many value prompts of a block (published: as many as tokens).
        prompt_blocks: the first blocks, which have prompts.

    Raises:
        ValueError: more blocks with prompts than the backbone has.
    """

    def __init__(
        self,
        in_channels: int,
        blocks: int,
        tokens: Annotated[int, Ge(2)] = 20,
        prompts: Annotated[int, Ge(0)] = 20,
        prompt_blocks: Annotated[int, Ge(0)] = 5,
    ) -> None:
        super().__init__()
        if prompt_blocks > blocks:
            raise ValueError(f"head.prompt_blocks is {prompt_blocks}; the backbone has {blocks} blocks, so lower it")
        self.dim, self.sizes = in_channels, (tokens, prompts, prompt_blocks)
        self.lanes, self.classifiers = nn.ModuleList(), nn.ModuleList()

    def grow(self, classes: int) -> None:
        """Append a lane, a copy of the newest one if there is one, and its classifier."""
        self.lanes.append(copy.deepcopy(self.lanes[-1]) if len(self.lanes) else Lane(self.dim, *self.sizes))
        self.classifiers.append(nn.Linear(self.dim, classes))

    def freeze_old_sessions(self) -> None:
        """Make everything trainable, then freeze all lanes and classifiers but the newest."""
        for parts in (self.lanes, self.classifiers):
            parts.requires_grad_(True)
            parts[:-1].requires_grad_(False)

    def forward(self, maps: Sequence[Tensor], backbone: Any) -> tuple[Tensor, None]:
        """Maps (B, D, h, w) in front of each block and behind the last one -> logits (B, C_seen), no tokens."""
        trunk = backbone.trunk
        patches = [block.norm1(x.flatten(2).transpose(1, 2)) for block, x in zip(trunk.blocks, maps[:-1], strict=True)]
        logits = []
        for number, (lane, classifier) in enumerate(zip(self.lanes, self.classifiers, strict=True)):
            assert isinstance(classifier, nn.Linear)
            if self.training and number + 1 < len(self.lanes):
                logits.append(maps[-1].new_zeros((len(maps[-1]), classifier.out_features)))
            else:
                logits.append(classifier(F.normalize(trunk.norm(lane(patches, trunk.blocks)), dim=1)))
        return torch.cat(logits, 1), None
