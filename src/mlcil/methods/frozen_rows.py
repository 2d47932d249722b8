"""Frozen rows: a row a class on frozen features, learned in the session that brings the class and never touched again.

The simplest thing that cannot forget: a session's rows see its own images and its own classes alone, so no label is
guessed, and no score of an old class ever changes, to the bit. What is missing are negatives: a row has never seen the
images of earlier sessions. (The linear probe a session that BirdNET-Analyzer's "append" and others ship; no paper.)
"""

from __future__ import annotations

from torch import Tensor

from mlcil.methods.base import Batch
from mlcil.methods.frozen_features import FrozenFeatures
from mlcil.models.heads import SessionLinearHead
from mlcil.models.network import IncrementalNetwork
from mlcil.registry import METHODS
from mlcil.schema import Count


@METHODS.register_module()
class FrozenRows(FrozenFeatures):
    """The classification loss of the session's own columns.

    Args:
        network: a frozen backbone with a head of one layer a session.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.

    Raises:
        ValueError: another head, or a backbone that is trained.
    """

    def __init__(self, network: IncrementalNetwork, reference_batch: Count = 64, teacher_autocast: bool = True) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        if not isinstance(network.head, SessionLinearHead):
            raise ValueError("FrozenRows needs network.head.type='session_linear'")

    def freeze(self) -> None:
        super().freeze()
        self.network.head.classifiers[:-1].requires_grad_(False)  # type: ignore[index, union-attr]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert self.context is not None
        low = self.context.low
        logits_BC = self.network(batch.inputs).logits_BC
        return {"loss_cls": self.classify(logits_BC[:, low:], batch.targets[:, low:])}
