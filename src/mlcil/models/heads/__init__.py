"""Classifiers that grow by a session."""

from typing import Any

from mlcil.models.heads.csc import CSCHead
from mlcil.models.heads.daformer import DAFormerHead
from mlcil.models.heads.dkt import DKTHead
from mlcil.models.heads.full_linear import FullLinearHead
from mlcil.models.heads.graph import GraphHead
from mlcil.models.heads.ica import ICAHead
from mlcil.models.heads.kbk import KBKHead
from mlcil.models.heads.lanes import LaneHead
from mlcil.models.heads.linear import LinearHead
from mlcil.models.heads.prototype import PrototypeHead
from mlcil.models.heads.session_linear import SessionLinearHead

#: heads on the positions of the last map, by their name in a config; they are told its size
TOKEN_HEADS: dict[str, Any] = {"ica": ICAHead, "dkt": DKTHead, "daformer": DAFormerHead}
#: heads that take all maps of the backbone; they are told the channels of the one before the last
STAGE_HEADS: dict[str, Any] = {"kbk": KBKHead}
#: heads that run through the blocks of a vision transformer; they are told how many it has
BLOCK_HEADS: dict[str, Any] = {"lanes": LaneHead}
#: all heads
HEADS: dict[str, Any] = {
    **TOKEN_HEADS,
    **STAGE_HEADS,
    **BLOCK_HEADS,
    "linear": LinearHead,
    "session_linear": SessionLinearHead,
    "full_linear": FullLinearHead,
    "prototype": PrototypeHead,
    "graph": GraphHead,
    "csc": CSCHead,
}

__all__ = [
    "BLOCK_HEADS",
    "HEADS",
    "STAGE_HEADS",
    "TOKEN_HEADS",
    "CSCHead",
    "DAFormerHead",
    "DKTHead",
    "FullLinearHead",
    "GraphHead",
    "ICAHead",
    "KBKHead",
    "LaneHead",
    "LinearHead",
    "PrototypeHead",
    "SessionLinearHead",
]
