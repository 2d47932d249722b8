"""Classifiers that grow by a session."""

from mlcil.models.heads.graph import GraphHead
from mlcil.models.heads.ica import ICAHead
from mlcil.models.heads.linear import LinearHead
from mlcil.models.heads.prototype import PrototypeHead

HEADS: dict[str, type] = {"ica": ICAHead, "linear": LinearHead, "prototype": PrototypeHead, "graph": GraphHead}

__all__ = ["HEADS", "GraphHead", "ICAHead", "LinearHead", "PrototypeHead"]
