"""CSC's head: class activation maps, and two graphs over one node a class.

Du et al., "Confidence Self-Calibration for Multi-Label Class-Incremental Learning", ECCV 2024 (arXiv 2403.12559). A
node is the part of the image that its class's map points at. The *general* graph mixes the nodes by learned numbers,
the *image-specific* one by numbers that the image's nodes give. Both branches score every class; as in the release the
logit is their mean (the paper writes a sum, which is the same ranking).

    M = cam(X)                               V0 = softmax(M over positions)^T project(X)
    V1 = V0 + LReLU(general(LReLU(mix V0)))
    A  = sigmoid(relation([LReLU(BN(pooled(mean V1))); V1]))         C x C of each image
    V2 = LReLU(specific(LReLU(A V1)))        logit_c = (max M_c + readout_c . (V0 + V2)_c) / 2

Growth copies every old block with its biases, and new blocks have PyTorch's initial values, but for one: what old nodes
take from new ones in the general graph starts at 0, so that V1 of old classes and their maps are unchanged by growth
itself. (The release copies neither biases nor all of the blocks.)

Legend: B images, T positions, K channels of the map, C classes seen, E width of a node.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlcil.models.transformer_blocks import SingleSafeBatchNorm
from mlcil.schema import Count

SLOPE = 0.2


class CSCHead(nn.Module):
    """Mean of the map branch and the graph branch.

    Args:
        in_channels: K.
        node_channels: E, 1024 in the paper.

    Attributes:
        grown: the layers whose size is the number of classes: ``cam``, ``mix``, ``relation`` and ``readout``.
    """

    def __init__(self, in_channels: int, node_channels: Count = 1024) -> None:
        super().__init__()
        self.in_channels, self.node_channels = in_channels, node_channels
        self.project = nn.Linear(in_channels, node_channels)
        self.general = nn.Linear(node_channels, node_channels)
        self.pooled = nn.Linear(node_channels, node_channels)
        self.norm = SingleSafeBatchNorm(node_channels)
        self.specific = nn.Linear(node_channels, node_channels)
        self.grown = nn.ModuleDict()

    def grow(self, classes: int) -> None:
        """Widen by ``classes``: old blocks are copied."""
        old = self.grown["cam"].out_features if self.grown else 0
        assert isinstance(old, int)
        seen = old + classes
        wider = {
            "cam": nn.Linear(self.in_channels, seen, bias=False),
            "mix": nn.Linear(seen, seen, bias=False),
            "relation": nn.Linear(2 * self.node_channels, seen),
            "readout": nn.Linear(self.node_channels, seen),
        }
        with torch.no_grad():
            for name, layer in wider.items() if old else ():
                former = self.grown[name]
                assert isinstance(former, nn.Linear)
                layer.to(former.weight)
                layer.weight[:old, : former.in_features] = former.weight
                if former.bias is not None:
                    layer.bias[:old] = former.bias
            wider["mix"].weight[:old, old:] = 0
        self.grown.update(wider)

    def freeze_old_sessions(self) -> None:
        """Nothing to freeze."""
        self.requires_grad_(True)

    def branches(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """(B, K, h, w) -> logits (B, C) of the maps and of the graphs."""
        x_BTK = feature_map.flatten(2).transpose(1, 2)
        cam_BTC = self.grown["cam"](x_BTK)
        v0_BCE = cam_BTC.softmax(1).transpose(1, 2) @ self.project(x_BTK)
        mixed_BCE = self.grown["mix"](v0_BCE.transpose(1, 2)).transpose(1, 2)
        v1_BCE = v0_BCE + leaky(self.general(leaky(mixed_BCE)))
        v2_BCE = leaky(self.specific(leaky(self.relations(v1_BCE) @ v1_BCE)))
        readout = self.grown["readout"]
        graph_BC = torch.einsum("bce,ce->bc", v0_BCE + v2_BCE, readout.weight.to(v2_BCE.dtype)) + readout.bias  # type: ignore[operator, union-attr]
        return cam_BTC.amax(1), graph_BC

    def relations(self, v1_BCE: Tensor) -> Tensor:
        """The image-specific graph (B, C, C): row c says how much node c takes of each."""
        whole_BE11 = self.norm(self.pooled(v1_BCE.mean(1))[..., None, None])
        whole_BCE = leaky(whole_BE11).flatten(1)[:, None].expand(-1, v1_BCE.shape[1], -1)
        return torch.sigmoid(self.grown["relation"](torch.cat([whole_BCE, v1_BCE.to(whole_BCE.dtype)], 2)))

    def forward(self, feature_map: Tensor) -> tuple[Tensor, None]:
        """(B, K, h, w) -> logits (B, C) and no tokens."""
        cam_BC, graph_BC = self.branches(feature_map)
        return (cam_BC + graph_BC) / 2, None


def leaky(x: Tensor) -> Tensor:
    """LeakyReLU of the paper's slope."""
    return F.leaky_relu(x, SLOPE)
