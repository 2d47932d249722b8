"""A linear layer a session: the classifier of R-DFCIL, and of the methods whose old scores never change."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mlcil.schema import Natural, Weight


class SessionLinearHead(nn.Module):
    """Logits are the concatenated outputs of one layer a session, on the pooled embedding.

    A layer's outputs are the same bits whatever other layers there are.

    Args:
        in_channels: channels K of the map.
        init_std: weights of new layers are N(0, init_std^2) (R-DFCIL, ECCV 2022: 0.001), biases 0.
        bias: layers with a bias.
        hidden: 0, or H: the layers see ``relu(R x)`` of the pooled embedding x, with a random matrix R (H, K) that
            stays as it is (McDonnell et al., "RanPAC", NeurIPS 2023; L3A), uniform in +-K^-1/2.
        seed: of R, which is drawn anew where the network is built and lies in no file.
    """

    pools = True  # the mean over the positions is all that it takes of a map

    projection: Tensor | None

    def __init__(
        self, in_channels: int, init_std: Weight = 0.001, bias: bool = False, hidden: Natural = 0, seed: Natural = 0
    ) -> None:
        super().__init__()
        self.in_channels, self.init_std, self.bias = in_channels, init_std, bias
        projection = None
        if hidden:
            drawn = np.random.default_rng(seed).uniform(-1, 1, (hidden, in_channels)) / in_channels**0.5
            projection = torch.from_numpy(drawn.astype(np.float32))
        self.register_buffer("projection", projection, persistent=False)
        self.width = hidden or in_channels
        self.classifiers = nn.ModuleList()

    def grow(self, classes: int) -> None:
        """Add a layer with ``classes`` outputs."""
        layer = nn.Linear(self.width, classes, bias=self.bias)
        nn.init.normal_(layer.weight, std=self.init_std)
        if self.bias:
            nn.init.zeros_(layer.bias)
        self.classifiers.append(layer)

    def classify(self, features_BK: Tensor) -> Tensor:
        """What the layers see (B, K), or (B, H) with ``hidden``, -> logits (B, C_seen)."""
        return torch.cat([layer(features_BK) for layer in self.classifiers], 1)

    def forward(self, feature_map: Tensor) -> tuple[Tensor, ...]:
        """(B, K, h, w) -> logits (B, C_seen), no tokens, and with ``hidden`` what the layers see."""
        features_BK = feature_map.mean((2, 3))
        if self.projection is None:
            return self.classify(features_BK), None  # type: ignore[return-value]
        features_BH = torch.relu(features_BK @ self.projection.to(features_BK.dtype).T)
        return self.classify(features_BH), None, features_BH  # type: ignore[return-value]
