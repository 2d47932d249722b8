"""OCDM: replay from a memory whose class distribution is optimised.

Liang and Li, "Optimizing Class Distribution in Memory for Multi-Label Online Continual Learning", 2022
(arXiv 2209.11469). What is new is the memory (:func:`mlcil.memory.streaming.match_distribution`); training is
experience replay. As for PRS, the original is an online method, and here the memory streams over a session's
images once, when the session ends.
"""

from __future__ import annotations

from torch import Tensor

from mlcil.methods.base import Method
from mlcil.registry import METHODS


@METHODS.register_module()
class OCDM(Method):
    """Asymmetric loss on new and replayed images; old classes of new images count as absent.

    Args:
        network: backbone with a linear head.
        reference_batch: see :class:`~mlcil.methods.base.Method`.
    """

    memory_selections = ("ocdm",)

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"loss_cls": self.classification_loss(self.network(inputs).logits_BC, targets)}
