"""PRS: replay from a partitioned reservoir.

Kim, Jeong, Kim, "Imbalanced Continual Learning with Partitioning Reservoir Sampling", ECCV 2020. What is new
is the memory (:func:`mlcil.memory.streaming.partitioning_reservoir`); training is experience replay.

The original is an online method that sees every image once; here, as in KRT's tables, it gets the epochs that
every method gets, and the memory streams over a session's images once, when the session ends.
"""

from __future__ import annotations

from torch import Tensor

from mlcil.methods.base import Method
from mlcil.registry import METHODS


@METHODS.register_module()
class PRS(Method):
    """Asymmetric loss on new and replayed images; old classes of new images count as absent.

    Args:
        network: backbone with a linear head.
        reference_batch: see :class:`~mlcil.methods.base.Method`.
    """

    memory_selections = ("prs",)

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"loss_cls": self.classification_loss(self.network(inputs).logits_BC, targets)}
