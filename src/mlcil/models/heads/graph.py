"""Class weights from a graph convolution over label correlations (AGCN, after ML-GCN).

Legend: B images, K embedding width, C classes, E width of a node's embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlcil.schema import Count


class GraphHead(nn.Module):
    """``logits = embedding @ (GCN(nodes, correlation) + offset)^T`` with one node a class.

    Two graph convolutions with LeakyReLU(0.2) between them; each averages the nodes with the row-normalised
    correlation matrix, every class being fully correlated with itself. AGCN starts the nodes from word
    vectors; here they are learned, N(0, 1) at first.

    Args:
        in_channels: K.
        node_channels: E.
        hidden_channels: width between the two convolutions.

    Attributes:
        correlation: (C, C) in [0, 1], entry (i, j) = P(label i | label j); a buffer that the method fills.
        offset: (C, K), what :meth:`keep` puts on the graph's class weights; zeros at first.
    """

    correlation: Tensor
    offset: Tensor

    def __init__(self, in_channels: int, node_channels: Count = 128, hidden_channels: Count = 256) -> None:
        super().__init__()
        self.node_channels = node_channels
        self.nodes = nn.ParameterList()  # (classes of the session, E) each
        self.first = nn.Linear(node_channels, hidden_channels, bias=False)
        self.second = nn.Linear(hidden_channels, in_channels, bias=False)
        self.register_buffer("correlation", torch.zeros(0, 0))
        self.register_buffer("offset", torch.zeros(0, in_channels))

    def grow(self, classes: int) -> None:
        """Add nodes that are correlated with themselves only."""
        self.nodes.append(nn.Parameter(torch.randn(classes, self.node_channels).to(self.first.weight)))
        self.correlation = torch.block_diag(  # type: ignore[no-untyped-call]
            self.correlation, torch.eye(classes).to(self.correlation)
        )
        self.offset = torch.cat([self.offset, self.offset.new_zeros(classes, self.offset.shape[1])])

    def freeze_old_sessions(self) -> None:
        """Nothing to freeze."""
        self.requires_grad_(True)

    @torch.no_grad()
    def keep(self, weights_OK: Tensor) -> None:
        """Make these the weights of the first O classes, as the graph stands now.

        New classes are neighbours of old ones, so that a graph that grows would move every old class at once.
        """
        old = len(weights_OK)
        self.offset[:old] += weights_OK - self.class_weights()[:old]

    def class_weights(self) -> Tensor:
        """(C, K): what the graph makes of the nodes, and the offset."""
        own = torch.eye(len(self.correlation), dtype=torch.bool, device=self.correlation.device)
        graph_CC = self.correlation.masked_fill(own, 1.0)
        graph_CC = graph_CC / graph_CC.sum(1, keepdim=True)
        hidden = F.leaky_relu(graph_CC @ self.first(torch.cat(list(self.nodes))), 0.2)
        return graph_CC @ self.second(hidden) + self.offset  # type: ignore[no-any-return]

    def forward(self, feature_map: Tensor) -> tuple[Tensor, None]:
        """(B, K, h, w) -> logits (B, C) and no tokens."""
        return feature_map.mean((2, 3)) @ self.class_weights().T, None
