"""Incremental cross-attention (ICA), KRT's classifier (Dong et al., ICCV 2023, section 3.4).

One shared *knowledge transfer* (KT) token asks; the image's patch tokens, the KT token itself and one
*knowledge retention* (KR) token per session answer. For session ``i`` the official code attends over
``[KT; KR_i; P_1 .. P_49]`` and repeats all of it for every session. Query, scale and all keys and values
but one are the same each time, so here they are computed once, and each session's KR token enters its own
softmax in closed form. With scores ``s``, ``lse`` the log-sum-exp of the shared scores and ``o`` the
attention output over the shared tokens,

    a_i = (1 - g_i) o + g_i v(KR_i),      g_i = sigmoid(s(KR_i) - lse)

which is the same number (two groups of one softmax, recombined) at the cost of one key and one value.
Because there is a single query, keys and values of the shared tokens need not be formed either: the
scores are ``X (W_k^T q)`` and the output is ``W_v (attn X)``.

Legend: B images, S sessions, T shared tokens (KT and patches), D embedding, H heads, E = D / H, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlcil.models.numerics import at_least_float32
from mlcil.schema import Count

TOKEN_STD = 0.02


class CrossAttention(nn.Module):
    """Multi-head attention of one query that all images share; the output projection has a bias.

    Args:
        dim: D.
        heads: H.
        bias: whether q, k and v have one.

    Raises:
        ValueError: D is no multiple of H.
    """

    def __init__(self, dim: int, heads: int, bias: bool = False) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"embed_dim {dim} is not divisible by num_heads {heads}; choose a multiple of {heads}")
        self.heads = heads
        self.q = nn.Linear(dim, dim, bias=bias)
        self.k = nn.Linear(dim, dim, bias=bias)
        self.v = nn.Linear(dim, dim, bias=bias)
        self.proj = nn.Linear(dim, dim)

    def keyed(self, query_D: Tensor) -> tuple[Tensor, Tensor | None]:
        """The query seen through the key projection: scores are ``x . keyed_HD + offset_H``.

        ``q . (W_k x + b_k) = (W_k^T q) . x + q . b_k``: project the one query instead of all the keys.
        """
        dim = query_D.shape[-1]
        size = dim // self.heads
        q_HE = self.q(query_D).view(self.heads, size) * size**-0.5
        keyed_HD = torch.einsum("he,hed->hd", q_HE, self.k.weight.view(self.heads, size, dim))
        return keyed_HD, None if self.k.bias is None else (q_HE * self.k.bias.view(self.heads, size)).sum(1)

    def values(self, attention_BHT: Tensor, x_BTD: Tensor) -> Tensor:
        """Attention-weighted values (B, H, E).

        ``W_v (attn X)`` instead of ``attn (W_v X)``: H weighted sums are projected instead of T values.
        """
        dim = x_BTD.shape[-1]
        context_BHD = torch.einsum("bht,btd->bhd", attention_BHT.to(x_BTD.dtype), x_BTD)
        weight_HED = self.v.weight.view(self.heads, dim // self.heads, dim)
        value_BHE = torch.einsum("bhd,hed->bhe", context_BHD, weight_HED)
        return value_BHE if self.v.bias is None else value_BHE + self.v.bias.view(self.heads, -1)

    def weights(self, query_D: Tensor, session_SD: Tensor, shared_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """Attention over the shared tokens alone (B, H, T), and each session token's share g (B, S, H).

        The official softmax over ``[shared; KR_i]`` is ``(1 - g_i) * shared weights`` and ``g_i``.
        """
        keyed_HD, _ = self.keyed(query_D)
        score_BHT = at_least_float32(torch.einsum("btd,hd->bht", shared_BTD, keyed_HD))
        score_SH = at_least_float32(torch.einsum("sd,hd->sh", session_SD, keyed_HD))
        lse_BH = score_BHT.logsumexp(-1)
        return (score_BHT - lse_BH[..., None]).exp(), torch.sigmoid(score_SH[None] - lse_BH[:, None])

    def forward(self, query_D: Tensor, session_SD: Tensor, shared_BTD: Tensor) -> Tensor:
        """Attention of the query over ``[shared tokens; session token i]`` for every i -> (B, S, D)."""
        attention_BHT, gate_BSH = self.weights(query_D, session_SD, shared_BTD)
        shared_BHE = self.values(attention_BHT, shared_BTD)
        session_SHE = self.v(session_SD).view(-1, self.heads, shared_BHE.shape[-1])
        gate = gate_BSH[..., None].to(shared_BHE.dtype)
        mixed_BSHE = shared_BHE[:, None] * (1 - gate) + gate * session_SHE[None]
        return self.proj(mixed_BSHE.flatten(2))


class TokenBlock(nn.Module):
    """``e_i = c_i + MLP(LN2(c_i))`` with ``c_i = KT + attention_i``; one block shared by all sessions."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = CrossAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, kt_D: Tensor, kr_SD: Tensor, patches_BTD: Tensor) -> Tensor:
        """KT token (D), KR tokens (S, D), patch tokens (B, T-1, D) -> session embeddings (B, S, D)."""
        kt_normed_D = self.norm1(kt_D)
        patches_normed = self.norm1(patches_BTD)
        shared = torch.cat([kt_normed_D.expand(len(patches_BTD), 1, -1).to(patches_normed.dtype), patches_normed], 1)
        c_BSD = kt_D + self.attention(kt_normed_D, self.norm1(kr_SD), shared)
        return c_BSD + self.mlp(self.norm2(c_BSD))


class SessionClassifier(nn.Module):
    """LayerNorm and Linear of one session's classes."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, classes)

    def forward(self, token_BD: Tensor) -> Tensor:
        return self.linear(self.norm(token_BD))


class ICAHead(nn.Module):
    """Patch projection, token block, and one KR token and classifier per session.

    Args:
        in_channels: channels of the backbone's last map.
        grid: height and width of that map at the training image size; the positional embedding has this
            size and is interpolated when a map of another size arrives.
        embed_dim: D, 384 on COCO and 768 on VOC in the official settings.
        num_heads: attention heads H.
        pos_embed: whether a positional embedding is added to the patch tokens.
    """

    def __init__(
        self,
        in_channels: int,
        grid: tuple[int, int],
        embed_dim: Count = 384,
        num_heads: Count = 8,
        pos_embed: bool = True,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.grid = (int(grid[0]), int(grid[1]))
        self.project = nn.Conv2d(in_channels, embed_dim, 1)
        nn.init.kaiming_normal_(self.project.weight, mode="fan_out", nonlinearity="relu")
        self.pos_embed = nn.Parameter(new_token(1, self.grid[0] * self.grid[1], embed_dim)) if pos_embed else None
        self.kt_token = nn.Parameter(new_token(1, 1, embed_dim))
        self.block = TokenBlock(embed_dim, num_heads)
        self.kr_tokens = nn.ParameterList()
        self.classifiers = nn.ModuleList()
        for module in self.block.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def grow(self, classes: int) -> None:
        """Append a session: a KR token (normal, std 0.02) and a classifier.

        The first classifier's weight is N(0, 0.01), later ones have PyTorch's default initialisation, as in
        the official code.
        """
        classifier = SessionClassifier(self.embed_dim, classes)
        if not self.classifiers:
            nn.init.normal_(classifier.linear.weight, std=0.01)
        reference = self.kt_token
        self.kr_tokens.append(nn.Parameter(new_token(1, 1, self.embed_dim).to(reference)))
        self.classifiers.append(classifier.to(reference))

    def freeze_old_sessions(self) -> None:
        """Make everything trainable, then freeze all KR tokens and classifiers but the newest."""
        self.requires_grad_(True)
        for token, classifier in zip(self.kr_tokens[:-1], self.classifiers[:-1], strict=True):  # type: ignore[arg-type]
            token.requires_grad_(False)
            classifier.requires_grad_(False)

    def patch_tokens(self, feature_map: Tensor) -> Tensor:
        """(B, C, h, w) -> projected tokens without position (B, h w, D), row-major."""
        return self.project(feature_map).flatten(2).transpose(1, 2)

    def position(self, height: int, width: int) -> Tensor:
        """The positional embedding for a map of that size, (1, h w, D)."""
        assert self.pos_embed is not None
        return resize_pos_embed(self.pos_embed, self.grid, (height, width))

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> logits (B, C_seen) in class-index order, session embeddings (B, S, D)."""
        patches_BTD = self.patch_tokens(feature_map)
        if self.pos_embed is not None:
            patches_BTD = patches_BTD + self.position(*feature_map.shape[-2:])
        kr_SD = torch.cat(list(self.kr_tokens)).squeeze(1)
        tokens_BSD = self.block(self.kt_token.flatten(), kr_SD, patches_BTD)
        logits = [classifier(tokens_BSD[:, i]) for i, classifier in enumerate(self.classifiers)]
        return torch.cat(logits, 1), tokens_BSD


def new_token(*shape: int) -> Tensor:
    """Normal with deviation 0.02; the release cuts it at +-2, which is never."""
    return nn.init.normal_(torch.empty(*shape), std=TOKEN_STD)


def resize_pos_embed(pos_embed: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """(1, old_h old_w, D) -> (1, new_h new_w, D) by bicubic interpolation; unchanged when the sizes agree."""
    if tuple(old) == tuple(new):
        return pos_embed
    map_ = pos_embed.reshape(1, *old, -1).permute(0, 3, 1, 2).float()
    map_ = F.interpolate(map_, size=tuple(new), mode="bicubic", align_corners=False)
    return map_.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], -1).to(pos_embed.dtype)
