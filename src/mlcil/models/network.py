"""A backbone and a growing head as one module, described by plain values so that a file can rebuild it.

Legend: B images, C classes seen so far, S sessions, D token width, K pooled width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mlcil.models.backbones import build_backbone, grid_of
from mlcil.models.heads import HEADS, TOKEN_HEADS


@dataclass
class NetworkOutput:
    """What one forward pass gives."""

    logits_BC: Tensor
    tokens_BSD: Tensor | None  # session embeddings of an attention head, None for the linear head
    maps: list[Tensor]  # feature maps of the backbone's stages, the last feeds the head
    embedding_BK: Tensor | None = None  # what the head itself calls its embedding

    @property
    def features_BK(self) -> Tensor:
        """Pooled embedding (herding, POD): the head's own, else the mean of the last map over its positions."""
        return self.maps[-1].mean((2, 3)) if self.embedding_BK is None else self.embedding_BK


class IncrementalNetwork(nn.Module):
    """Backbone and head.

    Args:
        backbone: arguments of :func:`~mlcil.models.backbones.build_backbone` (``name`` and options).
        head: ``type`` (a key of :data:`~mlcil.models.heads.HEADS`) and the options of the head.
        image_size: side of the square input in pixels.
        frozen_statistics: batch norm in the backbone uses the pretrained running statistics in training too and
            never changes them; for small batches.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        head: Mapping[str, Any],
        image_size: int = 224,
        frozen_statistics: bool = False,
    ) -> None:
        super().__init__()
        self.spec: dict[str, Any] = {"backbone": dict(backbone), "head": dict(head), "image_size": int(image_size)}
        if frozen_statistics:
            self.spec["frozen_statistics"] = True
        self.frozen_statistics = frozen_statistics
        self.classes_per_session: list[int] = []
        self.backbone = build_backbone(image_size=image_size, **backbone)
        options = dict(head)
        kind = options.pop("type")
        if kind not in HEADS:
            raise ValueError(f"head type {kind!r} is unknown; use one of {', '.join(map(repr, HEADS))}")
        if kind in TOKEN_HEADS:
            options["grid"] = grid_of(self.backbone, image_size)
        self.head: nn.Module = HEADS[kind](self.backbone.out_channels, **options)

    def grow(self, classes: int) -> None:
        """Add the outputs of one more session, where and as the backbone is."""
        self.head.grow(classes)  # type: ignore[operator]
        self.head.to(next(self.backbone.parameters()))  # a new linear layer has nothing to copy that from
        self.classes_per_session.append(int(classes))

    def train(self, mode: bool = True) -> IncrementalNetwork:
        """As any module; with ``frozen_statistics`` the backbone's norm layers stay in evaluation mode."""
        super().train(mode)
        if mode and self.frozen_statistics:
            for module in self.backbone.modules():
                if hasattr(module, "running_mean"):
                    module.eval()
        return self

    def forward(self, images: Tensor) -> NetworkOutput:
        """(B, 3, H, W) in [0, 1] -> :class:`NetworkOutput`."""
        maps = self.backbone(images)
        logits_BC, tokens_BSD, *embedding = self.head(maps[-1])  # the embedding is optional
        return NetworkOutput(logits_BC, tokens_BSD, maps, *embedding)


def build_network(spec: Mapping[str, Any], classes_per_session: list[int]) -> IncrementalNetwork:
    """The network of a spec with a head grown once per entry of ``classes_per_session``."""
    network = IncrementalNetwork(**spec)
    for classes in classes_per_session:
        network.grow(classes)
    return network
