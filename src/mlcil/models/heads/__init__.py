"""Classifiers that grow by a session."""

from typing import Any

from mlcil.models.heads.daformer import DAFormerHead
from mlcil.models.heads.dkt import DKTHead
from mlcil.models.heads.full_linear import FullLinearHead
from mlcil.models.heads.graph import GraphHead
from mlcil.models.heads.ica import ICAHead
from mlcil.models.heads.lanes import LaneHead
from mlcil.models.heads.linear import LinearHead
from mlcil.models.heads.prototype import PrototypeHead
from mlcil.models.heads.session_linear import SessionLinearHead

#: heads on the positions of the last map, by their name in a config; they are told its size
TOKEN_HEADS: dict[str, Any] = {"ica": ICAHead, "dkt": DKTHead, "daformer": DAFormerHead}
#: heads that run through the blocks of a vision transformer; they are told how many it has
BLOCK_HEADS: dict[str, Any] = {"lanes": LaneHead}
#: all heads
HEADS: dict[str, Any] = {
    **TOKEN_HEADS,
    **BLOCK_HEADS,
    "linear": LinearHead,
    "session_linear": SessionLinearHead,
    "full_linear": FullLinearHead,
    "prototype": PrototypeHead,
    "graph": GraphHead,
}

__all__ = [
    "BLOCK_HEADS",
    "HEADS",
    "TOKEN_HEADS",
    "DAFormerHead",
    "DKTHead",
    "FullLinearHead",
    "GraphHead",
    "ICAHead",
    "LaneHead",
    "LinearHead",
    "PrototypeHead",
    "SessionLinearHead",
]
