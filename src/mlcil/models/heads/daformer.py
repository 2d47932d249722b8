"""DAFormer's head: dual attention with one external key a session, and one classifier a session.

DAFormer ("A Tale of Two Memories", IEEE TMM). The *internal* map of the block comes from the image
(softmax of q k), the *external* map from a learned key that is applied to the queries; both weight the
image's own values. Per session only the external key differs, so q, k, v and the internal attention are
computed once a batch, and because an embedding is the mean over the tokens, the last linear layer of the
feed-forward part is applied behind the mean. The numbers are those of running the whole block once a session.

Edition M has an external key a session, edition S one key for all. **Edition S is not in the released
code**: it is this project's reading of the paper's abstract.

Legend: B images, T tokens, N external positions (= T), S sessions, D width, H heads, E = D / H, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlcil.models.heads.ica import SessionClassifier
from mlcil.models.transformer_blocks import MLP_RATIO, drop_branch, normal_weights_
from mlcil.schema import Count, Share


class DualAttention(nn.Module):
    """Queries, keys and values without bias; there is no output projection."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by num_heads {heads}; choose a multiple of {heads}")
        self.heads = heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)

    def split(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled queries, keys and values, each (B, H, T, E)."""
        shape = (*x_BTD.shape[:2], self.heads, -1)
        q, k, v = (linear(x_BTD).view(shape).transpose(1, 2) for linear in (self.q, self.k, self.v))
        return q * q.shape[-1] ** -0.5, k, v

    @staticmethod
    def internal_map(q: Tensor, k: Tensor) -> Tensor:
        """softmax(q k), (B, H, T, T)."""
        return (q @ k.transpose(-2, -1)).softmax(-1)

    @staticmethod
    def external_map(q: Tensor, key: nn.Linear) -> Tensor:
        """Softmax of the key applied to every query, (B, H, T, N)."""
        return key(q).softmax(-1)

    @staticmethod
    def merge(y_BHTE: Tensor) -> Tensor:
        """Heads side by side, (B, T, D)."""
        return y_BHTE.transpose(1, 2).flatten(2)


class DualBlock(nn.Module):
    """``x + DropPath(internal v + external v)``, then ``x + DropPath(MLP(LN(x)))``, averaged over the tokens."""

    def __init__(self, dim: int, heads: int, drop_path: float = 0.0) -> None:
        from timm.layers import Mlp  # heavy: only when asked for

        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = DualAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, MLP_RATIO * dim)
        for linear in (self.attention.q, self.attention.k, self.attention.v, self.mlp.fc1, self.mlp.fc2):
            normal_weights_(linear)
        self.drop_path = drop_branch(drop_path)

    def forward(self, x_BTD: Tensor, keys: list[nn.Linear]) -> Tensor:
        """Patches (B, T, D) and S external keys -> embeddings (B, S, D)."""
        attention = self.attention
        q, k, v = attention.split(self.norm1(x_BTD))
        internal = F.scaled_dot_product_attention(q, k, v, scale=1.0)  # (B, H, T, E), once for all keys
        embeddings = []
        for key in keys:
            y_BTD = attention.merge(internal + attention.external_map(q, key).to(v.dtype) @ v)
            x_i = x_BTD + self.drop_path(y_BTD)
            hidden = self.mlp.act(self.mlp.fc1(self.norm2(x_i)))  # (B, T, 4 D)
            # mean(x + DP(fc2(hidden))): the mean passes through the linear layer, DropPath is one factor an image
            embeddings.append(x_i.mean(1) + self.drop_path(self.mlp.fc2(hidden.mean(1))))
        return torch.stack(embeddings, 1)


class DAFormerHead(nn.Module):
    """Dual block, external keys, a classifier a session, and the divergence classifier.

    Args:
        in_channels: D, the channels of the encoder's map.
        grid: height and width of the map; an external key has one output a position.
        edition: ``M`` (an external key a session, the released code) or ``S`` (one shared key).
        num_heads: attention heads, 12 in the released settings.
        drop_path: 0.1 in the released settings.

    Raises:
        ValueError: another edition.
    """

    def __init__(
        self,
        in_channels: int,
        grid: tuple[int, int],
        edition: str = "M",
        num_heads: Count = 12,
        drop_path: Share = 0.1,
    ) -> None:
        super().__init__()
        if edition not in ("M", "S"):
            raise ValueError(f"edition {edition!r} is unknown; use 'M' (a key a session) or 'S' (one shared key)")
        self.dim, self.positions, self.edition = in_channels, grid[0] * grid[1], edition
        self.block = DualBlock(in_channels, num_heads, drop_path)
        self.keys = nn.ModuleList()
        self.classifiers = nn.ModuleList()
        self.divergence: SessionClassifier | None = None

    def grow(self, classes: int) -> None:
        """Append a session: classifier, a new divergence classifier, and with edition M a key.

        The first key has PyTorch's default start, later ones are zero: their external map starts uniform. The
        divergence classifier (old / each new class) of the last session is thrown away.
        """
        reference = self.block.norm1.weight
        if self.edition == "M" or not self.keys:
            key = nn.Linear(self.dim // self.block.attention.heads, self.positions).to(reference)
            if self.keys:
                nn.init.zeros_(key.weight)
                nn.init.zeros_(key.bias)
            self.keys.append(key)
        if self.classifiers:
            self.divergence = SessionClassifier(self.dim, classes + 1).to(reference)
        self.classifiers.append(SessionClassifier(self.dim, classes).to(reference))

    def freeze_old_sessions(self) -> None:
        """Make everything trainable, then freeze the classifiers and (edition M) keys of earlier sessions."""
        self.requires_grad_(True)
        self.classifiers[:-1].requires_grad_(False)  # type: ignore[operator]
        if self.edition == "M":
            self.keys[:-1].requires_grad_(False)  # type: ignore[operator]

    def freeze_divergence(self) -> None:
        """Make everything trainable but the divergence classifier (balanced fine-tuning does without it)."""
        self.requires_grad_(True)
        if self.divergence is not None:
            self.divergence.requires_grad_(False)

    def divergence_logits(self, tokens_BSD: Tensor) -> Tensor:
        """Logits (B, 1 + new classes) of the newest embedding: column 0 is "some old class"."""
        assert self.divergence is not None, "the first session has no divergence classifier"
        return self.divergence(tokens_BSD[:, -1])

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, D, h, w) -> logits (B, C_seen), embeddings (B, S, D) or with edition S (B, 1, D), all of them (B, S D).

        Raises:
            ValueError: the map has not as many positions as the external keys.
        """
        patches_BTD = feature_map.flatten(2).transpose(1, 2)
        if patches_BTD.shape[1] != self.positions:
            raise ValueError(
                f"the map has {patches_BTD.shape[1]} positions but the external keys {self.positions}; use images of "
                "the size that the network was built for"
            )
        tokens_BSD = self.block(patches_BTD, list(self.keys))
        shared = self.edition == "S"
        logits = [head(tokens_BSD[:, 0 if shared else i]) for i, head in enumerate(self.classifiers)]
        return torch.cat(logits, 1), tokens_BSD, tokens_BSD.flatten(1)
