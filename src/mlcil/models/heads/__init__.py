"""Classifiers that grow by a session: attention heads of KRT, DKT and DAFormer, and the plain linear layer."""

from typing import Any

from mlcil.models.heads.daformer import DAFormerHead
from mlcil.models.heads.dkt import DKTHead
from mlcil.models.heads.ica import ICAHead
from mlcil.models.heads.linear import LinearHead

#: heads on the positions of the last map, by their name in a config
TOKEN_HEADS: dict[str, Any] = {"ica": ICAHead, "dkt": DKTHead, "daformer": DAFormerHead}
#: heads on the pooled embedding
POOLED_HEADS: dict[str, Any] = {"linear": LinearHead}

__all__ = ["POOLED_HEADS", "TOKEN_HEADS", "DAFormerHead", "DKTHead", "ICAHead", "LinearHead"]
