"""A linear layer for training, and a mean embedding a class for scoring (iCaRL).

Legend: B images, K embedding width, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlcil.models.heads.linear import LinearHead
from mlcil.schema import AboveZero


class PrototypeHead(nn.Module):
    """Linear outputs until means are set, cosines to the class means afterwards.

    Args:
        in_channels: K.
        scale: the logit of class c is ``scale * cos(embedding, mean_c)``; it does not change a ranking.

    Attributes:
        means: (C, K) normalised class means; zeros before they are set.
        use_means: which of the two the head gives.
    """

    means: Tensor

    pools = True  # the mean over the positions is all that it takes of a map

    def __init__(self, in_channels: int, scale: AboveZero = 10.0) -> None:
        super().__init__()
        self.in_channels, self.scale = in_channels, scale
        self.linear = LinearHead(in_channels)
        self.register_buffer("means", torch.zeros(0, in_channels))
        self.use_means = False

    def grow(self, classes: int) -> None:
        """Add ``classes`` outputs, without means."""
        self.linear.grow(classes)
        self.means = torch.cat([self.means, self.means.new_zeros(classes, self.in_channels)])

    def freeze_old_sessions(self) -> None:
        """Nothing to freeze."""
        self.requires_grad_(True)

    def set_means(self, means_CK: Tensor) -> None:
        """Take the class means and score by them from now on."""
        self.means.copy_(means_CK)
        self.use_means = True

    def get_extra_state(self) -> Tensor:
        """Whether the means are in use, for the ``state_dict``."""
        return torch.tensor(self.use_means)

    def set_extra_state(self, state: Tensor) -> None:
        """Take back :meth:`get_extra_state`."""
        self.use_means = bool(state)

    def forward(self, feature_map: Tensor) -> tuple[Tensor, None]:
        """(B, K, h, w) -> logits (B, C) and no tokens."""
        if not self.use_means:
            return self.linear(feature_map)  # type: ignore[no-any-return]
        return self.logits(F.normalize(feature_map.mean((2, 3)), dim=1)), None

    def logits(self, embedding_BK: Tensor) -> Tensor:
        """Normalised embeddings (B, K) -> scaled cosines to the means (B, C)."""
        return self.scale * embedding_BK @ self.means.to(embedding_BK).T
