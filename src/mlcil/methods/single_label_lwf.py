"""Learning without forgetting, on images of one class each (Li and Hoiem, ECCV 2016; rows of ABD's tables).

With a memory this is the row "LwF with coreset": replayed images are classified and distilled like new ones.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mlcil.losses.classification import class_labels
from mlcil.losses.knowledge import soft_target_kd
from mlcil.methods.base import Method
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS


@METHODS.register_module()
class SingleLabelLwF(Method):
    """Cross-entropy over the classes seen so far, and soft targets of the old network for the old classes.

    Args:
        network: backbone with a linear head.
        mu: weight of the distillation.
        temperature: T of the soft targets.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    uses_teacher = True

    def __init__(
        self,
        network: IncrementalNetwork,
        mu: float = 1.0,
        temperature: float = 2.0,
        reference_batch: int = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.mu, self.temperature = mu, temperature

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        logits_BC = at_least_float32(self.network(inputs).logits_BC)
        losses = {"loss_ce": F.cross_entropy(logits_BC, class_labels(targets))}
        if self.teacher is not None:
            old_BO = self.teacher_output(inputs).logits_BC
            losses["loss_kd"] = self.mu * soft_target_kd(logits_BC[:, : old_BO.shape[1]], old_BO, self.temperature)
        return losses
