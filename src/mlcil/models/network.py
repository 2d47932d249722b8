"""A backbone and a growing head as one module, described by plain values so that a file can rebuild it.

Legend: B images, C classes seen so far, S sessions, D token width, K pooled width.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from mlcil.models.backbones import build_backbone, give_every_block, give_middle, grid_of
from mlcil.models.composed import build_head
from mlcil.models.heads import BLOCK_HEADS, STAGE_HEADS, TOKEN_HEADS

LARGEST_IMAGE = 4096  # pixels a side


@dataclass
class NetworkOutput:
    """What one forward pass gives."""

    logits_BC: Tensor
    tokens_BSD: Tensor | None  # embeddings of an attention head, a session's or (KBK) a class's, else None
    maps: list[Tensor]  # feature maps of the backbone's stages, the last feeds the head
    embedding_BK: Tensor | None = None  # what the head itself calls its embedding

    @property
    def features_BK(self) -> Tensor:
        """Pooled embedding (herding, POD): the head's own, else the mean of the last map over its positions."""
        return self.maps[-1].mean((2, 3)) if self.embedding_BK is None else self.embedding_BK


class Maps(Tensor):
    """Last maps (B, K, h, w) of a frozen backbone, which :class:`IncrementalNetwork` takes in the place of images.

    A slice, a copy or another type of them are maps as well; :meth:`of` makes them and :meth:`plain` ends it.
    """

    @classmethod
    def of(cls, maps_BKhw: Tensor) -> Maps:
        """The same numbers as maps."""
        return maps_BKhw.as_subclass(cls)

    def plain(self) -> Tensor:
        """The same numbers as an ordinary tensor."""
        return self.as_subclass(Tensor)


class LastMaps:
    """The maps of the images that a frozen backbone saw last; student and teacher ask for the same ones."""

    def __init__(self) -> None:
        self._images: weakref.ref[Tensor] | None = None
        self._state: tuple[object, ...] = ()
        self._maps: list[Tensor] = []

    def of(self, images: Tensor, backbone: nn.Module) -> list[Tensor]:
        """``backbone(images)`` without gradients, computed once for one tensor, its content and one precision.

        Images that are being learnt, as an inversion's are, get their gradients.
        """
        if images.requires_grad and torch.is_grad_enabled():
            return list(backbone(images))
        if torch.compiler.is_compiling():
            with torch.no_grad():
                return list(backbone(images))
        inference = torch.is_inference_mode_enabled()
        kind = images.device.type
        state = (
            None if images.is_inference() else images._version,
            next(backbone.parameters())._version,
            inference,
            torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind),
        )
        if self._images is None or self._images() is not images or self._state != state:
            with torch.no_grad():
                self._maps = list(backbone(images))
            self._images, self._state = weakref.ref(images), state
        return self._maps


class IncrementalNetwork(nn.Module):
    """Backbone and head.

    Args:
        backbone: arguments of :func:`~mlcil.models.backbones.build_backbone` (``name`` and options).
        head: ``type`` (a key of :data:`~mlcil.models.heads.HEADS`) and the options of the head; or the heads of
            :class:`~mlcil.models.composed.ComposedHead`.
        image_size: side of the square input in pixels.
        frozen_statistics: batch norm in the backbone uses the pretrained running statistics in training too and
            never changes them; for small batches.
        frozen_backbone: the backbone keeps the weights that it starts with, and a teacher shares it: one forward
            pass without gradients serves both.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        head: Mapping[str, Any],
        image_size: Annotated[int, Ge(1), Le(LARGEST_IMAGE)] = 224,
        frozen_statistics: bool = False,
        frozen_backbone: bool = False,
    ) -> None:
        super().__init__()
        self.spec: dict[str, Any] = {"backbone": dict(backbone), "head": dict(head), "image_size": int(image_size)}
        if frozen_statistics:
            self.spec["frozen_statistics"] = True
        if frozen_backbone:
            self.spec["frozen_backbone"] = True
        self.frozen_statistics, self.frozen_backbone = frozen_statistics, frozen_backbone
        self._last_maps = LastMaps()
        self.classes_per_session: list[int] = []
        self.backbone = build_backbone(image_size=image_size, **backbone)
        self._all_maps, self._head_on_blocks = head["type"] in STAGE_HEADS, head["type"] in BLOCK_HEADS
        self.head = build_head(head, int(self.backbone.out_channels), self._told)  # type: ignore[arg-type]

    def _told(self, kind: str) -> dict[str, Any]:
        """What heads of a kind are told of the backbone."""
        if kind in TOKEN_HEADS:
            return {"grid": grid_of(self.backbone, self.spec["image_size"])}
        if kind in STAGE_HEADS:
            return {"middle_channels": give_middle(self.backbone)}
        return {"blocks": give_every_block(self.backbone)} if kind in BLOCK_HEADS else {}

    def grow(self, classes: int) -> None:
        """Add the outputs of one more session, where and as the backbone is."""
        self.head.grow(classes)  # type: ignore[operator]
        self.head.to(next(self.backbone.parameters()))  # a new linear layer has nothing to copy that from
        self.classes_per_session.append(int(classes))

    def train(self, mode: bool = True) -> IncrementalNetwork:
        """As any module; what is frozen of the backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen_backbone:
            self.backbone.eval()
        elif mode and self.frozen_statistics:
            for module in self.backbone.modules():
                if hasattr(module, "running_mean"):
                    module.eval()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> IncrementalNetwork:
        """As any module; a frozen backbone never asks for gradients."""
        super().requires_grad_(requires_grad)
        if self.frozen_backbone:
            self.backbone.requires_grad_(False)
        return self

    def frozen_copy(self) -> IncrementalNetwork:
        """A teacher: a copy in evaluation mode without gradients, which shares a frozen backbone."""
        shared = {id(part): part for part in (self.backbone, self._last_maps)} if self.frozen_backbone else {}
        return copy.deepcopy(self, shared).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> NetworkOutput:
        """(B, 3, H, W) in [0, 1], or with a frozen backbone :class:`Maps` -> :class:`NetworkOutput`."""
        if isinstance(images, Maps):
            assert self.frozen_backbone, "maps belong to a backbone that stays as it is"
            maps = [images.plain()]
        else:
            maps = self._last_maps.of(images, self.backbone) if self.frozen_backbone else self.backbone(images)
        given = (maps, self.backbone) if self._head_on_blocks else (maps if self._all_maps else maps[-1],)
        logits_BC, tokens_BSD, *embedding = self.head(*given)  # the embedding is optional
        return NetworkOutput(logits_BC, tokens_BSD, maps, *embedding)


def build_network(spec: Mapping[str, Any], classes_per_session: list[int]) -> IncrementalNetwork:
    """The network of a spec with a head grown once per entry of ``classes_per_session``."""
    network = IncrementalNetwork(**spec)
    for classes in classes_per_session:
        network.grow(classes)
    return network
