"""LwF: learning without forgetting.

Li and Hoiem, "Learning without Forgetting", ECCV 2016: what the old network says of the new images is kept.

    loss = classification + weight * distillation of the old columns

Where an image shows one class this is the original (rows "LwF" of ABD's tables, and "LwF with coreset" when there is a
memory: replayed images are classified and distilled like new ones). With many labels every output is its own
two-class problem (row "LwF" of KRT's tables, whose exact adaptation is not published): the teacher's sigmoid scores are
distilled, and the given labels are learned on the new columns only, since the old ones have a target in the teacher.
"""

from __future__ import annotations

from torch import Tensor

from mlcil.methods.base import Batch, Method, check_choice
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
            or ``absent`` (as in fine-tuning). Without effect where an image shows one class.
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

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits_BC = self.network(batch.inputs).logits_BC
        losses = {"loss_cls": self.classify(logits_BC, self.targets(batch, self.old_labels))}
        if self.teacher is not None:
            old_BO = self.teacher_output(batch.inputs).logits_BC
            kept = self.distil(logits_BC[:, : old_BO.shape[1]], old_BO, self.temperature)
            losses["loss_kd"] = self.weight * kept
        return losses
