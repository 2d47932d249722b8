"""LwF.MC: multi-class learning without forgetting (Rebuffi et al., iCaRL, CVPR 2017, without its memory)."""

from __future__ import annotations

from torch import Tensor

from mlcil.losses.classification import class_labels
from mlcil.losses.knowledge import sigmoid_kd, softmax_kd
from mlcil.methods.base import Method
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS

VARIANTS = {"sigmoid": sigmoid_kd, "softmax": softmax_kd}


@METHODS.register_module()
class SingleLabelLwFMC(Method):
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
        reference_batch: int = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        if variant not in VARIANTS:
            raise ValueError(f"variant {variant!r} is unknown; use one of {', '.join(VARIANTS)}")
        self.variant = variant

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        logits_BC = at_least_float32(self.network(inputs).logits_BC)
        old_BO = self.teacher_output(inputs).logits_BC if self.teacher is not None else None
        return {"loss_cls": VARIANTS[self.variant](logits_BC, class_labels(targets), old_BO)}
