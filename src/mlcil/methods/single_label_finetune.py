"""Fine-tuning on images of one class each: the rows Base, Naive Rehearsal and Upper Bound of ABD's tables.

Base sees a session's images only; with a memory the same method is Naive Rehearsal, and with a scenario that
has ``joint=True`` the upper bound.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mlcil.losses.classification import class_labels
from mlcil.methods.base import Method
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS


@METHODS.register_module()
class SingleLabelFinetune(Method):
    """Cross-entropy over the classes seen so far."""

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        logits_BC = at_least_float32(self.network(inputs).logits_BC)
        return {"loss_ce": F.cross_entropy(logits_BC, class_labels(targets))}
