"""Classifiers that grow by a session: incremental cross-attention and the plain linear layer."""

from mlcil.models.heads.ica import ICAHead
from mlcil.models.heads.linear import LinearHead

__all__ = ["ICAHead", "LinearHead"]
