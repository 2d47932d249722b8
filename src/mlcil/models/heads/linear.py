"""One linear layer on the pooled embedding, growing by rows: the classifier of the baselines."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearHead(nn.Module):
    """``Linear(mean over positions)``; a new session copies the old rows into a wider layer.

    The first layer's weight is N(0, 0.01); the new rows of later sessions have PyTorch's default
    initialisation (behaviour of the baseline released with KRT).
    """

    pools = True  # the mean over the positions is all that it takes of a map

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.linear: nn.Linear | None = None

    def grow(self, classes: int) -> None:
        """Add ``classes`` output rows."""
        old = self.linear
        if old is None:
            self.linear = nn.Linear(self.in_channels, classes)
            nn.init.normal_(self.linear.weight, std=0.01)
            return
        wider = nn.Linear(self.in_channels, old.out_features + classes).to(old.weight)
        with torch.no_grad():
            wider.weight[: old.out_features] = old.weight
            wider.bias[: old.out_features] = old.bias
        self.linear = wider

    def freeze_old_sessions(self) -> None:
        """Nothing to freeze: all rows stay trainable."""
        self.requires_grad_(True)

    def forward(self, feature_map: Tensor) -> tuple[Tensor, None]:
        """(B, C, h, w) -> logits (B, C_seen) and no tokens."""
        assert self.linear is not None, "grow() comes before forward()"
        return self.linear(feature_map.mean((2, 3))), None
