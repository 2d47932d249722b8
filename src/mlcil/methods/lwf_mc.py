"""LwF.MC: multi-class learning without forgetting (Rebuffi et al., iCaRL, CVPR 2017, without its memory)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mlcil.losses.classification import class_labels
from mlcil.losses.distillation import soft_cross_entropy
from mlcil.methods.base import Batch, Method
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS
from mlcil.schema import Count


def sigmoid_kd(logits_BC: Tensor, labels_B: Tensor, teacher_BO: Tensor | None) -> Tensor:
    """LwF.MC, iCaRL's loss without its memory: binary cross-entropy, summed over classes, mean over images.

    The targets are one-hot, with the old columns overwritten by sigmoid(teacher).
    """
    targets_BC = F.one_hot(labels_B, logits_BC.shape[1]).to(logits_BC.dtype)
    if teacher_BO is not None:
        targets_BC[:, : teacher_BO.shape[1]] = teacher_BO.sigmoid()
    return F.binary_cross_entropy_with_logits(logits_BC, targets_BC, reduction="sum") / len(logits_BC)


def softmax_kd(logits_BC: Tensor, labels_B: Tensor, teacher_BO: Tensor | None) -> Tensor:
    """As :func:`sigmoid_kd` with softmax: cross-entropy to one-hot rows whose old columns are softmax(teacher).

    The targets of an image may sum to more than one (behaviour of the first release of ABD's LwF.MC).
    """
    targets_BC = F.one_hot(labels_B, logits_BC.shape[1]).to(logits_BC.dtype)
    if teacher_BO is not None:
        targets_BC[:, : teacher_BO.shape[1]] = teacher_BO.softmax(1)
    return soft_cross_entropy(logits_BC, targets_BC)


VARIANTS = {"sigmoid": sigmoid_kd, "softmax": softmax_kd}


@METHODS.register_module()
class LwFMC(Method):
    """One loss over all classes seen so far, whose targets for the old classes come from the old network.

    Args:
        network: backbone with a linear head.
        variant: ``sigmoid`` (binary cross-entropy, the current release of ABD's system) or ``softmax`` (the
            first release, from which the figures of its tables may come).
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.

    Raises:
        ValueError: unknown variant.
    """

    uses_teacher = True

    def __init__(
        self,
        network: IncrementalNetwork,
        variant: str = "sigmoid",
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        if variant not in VARIANTS:
            raise ValueError(f"variant {variant!r} is unknown; use one of {', '.join(VARIANTS)}")
        self.variant = variant

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits_BC = at_least_float32(self.network(batch.inputs).logits_BC)
        old_BO = self.teacher_output(batch.inputs).logits_BC if self.teacher is not None else None
        return {"loss_cls": VARIANTS[self.variant](logits_BC, class_labels(batch.targets), old_BO)}
