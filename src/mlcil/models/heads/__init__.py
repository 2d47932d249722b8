"""Classifiers that grow by a session: attention heads of KRT, DKT and DAFormer, and the plain linear layer."""

from typing import Any

from mlcil.models.heads.daformer import DAFormerHead
from mlcil.models.heads.dkt import DKTHead
from mlcil.models.heads.ica import ICAHead
from mlcil.models.heads.linear import LinearHead

#: ``type`` of a head in a config
HEADS: dict[str, Any] = {"ica": ICAHead, "linear": LinearHead, "dkt": DKTHead, "daformer": DAFormerHead}

__all__ = ["HEADS", "DAFormerHead", "DKTHead", "ICAHead", "LinearHead"]
