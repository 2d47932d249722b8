"""Classifiers that grow by a session."""

from mlcil.models.heads.full_linear import FullLinearHead
from mlcil.models.heads.graph import GraphHead
from mlcil.models.heads.ica import ICAHead
from mlcil.models.heads.linear import LinearHead
from mlcil.models.heads.prototype import PrototypeHead
from mlcil.models.heads.session_linear import SessionLinearHead

HEADS: dict[str, type] = {
    "ica": ICAHead,
    "linear": LinearHead,
    "session_linear": SessionLinearHead,
    "full_linear": FullLinearHead,
    "prototype": PrototypeHead,
    "graph": GraphHead,
}

__all__ = ["HEADS", "FullLinearHead", "GraphHead", "ICAHead", "LinearHead", "PrototypeHead", "SessionLinearHead"]
