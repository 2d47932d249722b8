"""LwF: learning without forgetting, in its multi-label form.

Li and Hoiem, "Learning without Forgetting", ECCV 2016. The original distils the old softmax outputs on the
new images. With many labels every output is its own two-class problem, so here (row "LwF" of KRT's tables,
whose exact adaptation is not published; the choices are options):

* distilled are the columns of all old classes, by binary cross-entropy with the teacher's sigmoid scores;
* the given labels are learned on the new columns only: the old ones have a target in the teacher.

    loss = ASL(new columns) + weight * BCE(teacher's scores, old columns)
"""

from __future__ import annotations

from torch import Tensor

from mlcil.losses.distillation import sigmoid_distillation
from mlcil.methods.base import Method, check_choice
from mlcil.models.network import IncrementalNetwork
from mlcil.registry import METHODS


@METHODS.register_module()
class LwF(Method):
    """Distillation of the old columns on the new images.

    Args:
        network: backbone with a linear head.
        weight: factor of the distillation term.
        temperature: T; 2 in the original.
        old_labels: what a new image says of old classes in the classification loss: ``ignored`` (nothing)
            or ``absent`` (as in fine-tuning).
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    uses_teacher = True

    def __init__(
        self,
        network: IncrementalNetwork,
        weight: float = 1.0,
        temperature: float = 2.0,
        old_labels: str = "ignored",
        reference_batch: int = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.weight, self.temperature = weight, temperature
        self.old_labels = check_choice("old_labels", old_labels, ("ignored", "absent"))

    def batch_loss(self, inputs: Tensor, targets: Tensor, rows: Tensor, origins: Tensor) -> dict[str, Tensor]:
        if self.old_labels == "ignored":
            targets = self.without_old_columns(targets, origins)
        logits_BC = self.network(inputs).logits_BC
        losses = {"loss_cls": self.classification_loss(logits_BC, targets)}
        if self.teacher is not None:
            old_BO = self.teacher_output(inputs).logits_BC
            distilled = sigmoid_distillation(old_BO, logits_BC[:, : old_BO.shape[1]], self.temperature)
            losses["loss_distill"] = self.weight * self.sum_scale * distilled
        return losses
