"""Heads by their description, and several of them side by side on one map.

A tagger that is extended, merged with another or rid of a label keeps the heads that it was trained with: what they
compute is not touched, and the scores of their classes stay the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlcil.models.heads import BLOCK_HEADS, HEADS, STAGE_HEADS

COMPOSED = "composed"


class ComposedHead(nn.Module):
    """Outputs of finished heads; it never gets more of them.

    Args:
        in_channels: channels K of the map.
        told: what heads of a kind are told of the backbone.
        parts: finished heads, each a dictionary of ``head`` (its description), ``sizes`` (its classes a session) and
            ``columns`` (which of its outputs are used, in their order; ``None`` for all).
        blends: (target, source, a, b): output ``target`` becomes ``a`` times itself plus ``b`` times ``source``; the
            sources are the last outputs, one for each, and are no outputs any more.
    """

    def __init__(
        self,
        in_channels: int,
        told: Callable[[str], Mapping[str, Any]],
        parts: Sequence[Mapping[str, Any]],
        blends: Sequence[Sequence[Any]] = (),
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        self.columns: list[list[int] | None] = []
        self.finished = self.outputs = 0  # outputs of the parts, and of the sessions so far
        for part in parts:
            if part["head"]["type"] in (*STAGE_HEADS, *BLOCK_HEADS):
                raise ValueError(f"a head of type {part['head']['type']!r} cannot stand beside others")
            head = build_head(part["head"], in_channels, told)
            for classes in part["sizes"]:
                head.grow(classes)  # type: ignore[operator]
            columns = part.get("columns")
            if columns is not None and not all(0 <= column < sum(part["sizes"]) for column in columns):
                raise ValueError(f"columns {columns} are not all among the {sum(part['sizes'])} outputs of a head")
            self.parts.append(head)
            self.columns.append(None if columns is None else list(columns))
            self.finished += sum(part["sizes"]) if columns is None else len(columns)
        self.finished -= len(blends)
        self.blends = [(int(target), int(source), float(a), float(b)) for target, source, a, b in blends]
        if any(
            not 0 <= target < self.finished <= source < self.finished + len(blends) for target, source, *_ in blends
        ):
            raise ValueError(f"blends {list(blends)} do not put the last outputs into others")
        self.pools = all(getattr(part, "pools", False) for part in self.parts)

    def grow(self, classes: int) -> None:
        """One of the sessions that the parts have."""
        self.outputs += classes
        if self.outputs > self.finished:
            raise ValueError(f"{self.outputs} classes, but the heads of the parts have {self.finished} outputs")

    def forward(self, feature_map: Tensor) -> tuple[Tensor, None]:
        """(B, K, h, w) -> logits (B, C) and no tokens."""
        found = []
        for part, columns in zip(self.parts, self.columns, strict=True):
            logits_BC = part(feature_map)[0]
            found.append(logits_BC if columns is None else logits_BC[:, columns])
        logits_BC = torch.cat(found, 1)
        for target, source, a, b in self.blends:
            logits_BC[:, target] = a * logits_BC[:, target] + b * logits_BC[:, source]
        return logits_BC[:, : self.finished], None


def build_head(head: Mapping[str, Any], in_channels: int, told: Callable[[str], Mapping[str, Any]]) -> nn.Module:
    """A head without outputs.

    Args:
        head: ``type``, a key of :data:`~mlcil.models.heads.HEADS` or ``composed``, and its options.
        in_channels: channels of the map.
        told: gives what heads of a kind are told of the backbone.

    Raises:
        ValueError: no such head.
    """
    options = dict(head)
    kind = options.pop("type")
    if kind == COMPOSED:
        return ComposedHead(in_channels, told, **options)
    if kind not in HEADS:
        raise ValueError(f"head type {kind!r} is unknown; use one of {', '.join(map(repr, HEADS))}")
    return HEADS[kind](in_channels, **told(kind), **options)  # type: ignore[no-any-return]
