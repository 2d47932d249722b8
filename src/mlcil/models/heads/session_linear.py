"""A linear layer without bias a session: the classifier of R-DFCIL."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SessionLinearHead(nn.Module):
    """Logits are the concatenated outputs of one bias-free layer a session, on the pooled embedding.

    Args:
        in_channels: channels K of the map.
        init_std: new layers are N(0, init_std^2) (R-DFCIL, ECCV 2022: 0.001).
    """

    pools = True  # the mean over the positions is all that it takes of a map

    def __init__(self, in_channels: int, init_std: float = 0.001) -> None:
        super().__init__()
        self.in_channels, self.init_std = in_channels, init_std
        self.classifiers = nn.ModuleList()

    def grow(self, classes: int) -> None:
        """Add a layer with ``classes`` outputs."""
        layer = nn.Linear(self.in_channels, classes, bias=False)
        nn.init.normal_(layer.weight, std=self.init_std)
        self.classifiers.append(layer)

    def classify(self, features_BK: Tensor) -> Tensor:
        """Pooled embeddings (B, K) -> logits (B, C_seen)."""
        return torch.cat([layer(features_BK) for layer in self.classifiers], 1)

    def forward(self, feature_map: Tensor) -> tuple[Tensor, None]:
        """(B, K, h, w) -> logits (B, C_seen) and no tokens."""
        return self.classify(feature_map.mean((2, 3))), None
