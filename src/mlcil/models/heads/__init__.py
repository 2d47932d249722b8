"""Classifiers that grow by a session: incremental cross-attention and linear layers of three kinds."""

from typing import Any

from mlcil.models.heads.full_linear import FullLinearHead
from mlcil.models.heads.ica import ICAHead
from mlcil.models.heads.linear import LinearHead
from mlcil.models.heads.session_linear import SessionLinearHead

__all__ = ["POOLED_HEADS", "FullLinearHead", "ICAHead", "LinearHead", "SessionLinearHead"]

#: heads on the pooled embedding, by their name in a config
POOLED_HEADS: dict[str, Any] = {
    "linear": LinearHead,
    "session_linear": SessionLinearHead,
    "full_linear": FullLinearHead,
}
