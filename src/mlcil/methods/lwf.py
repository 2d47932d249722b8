"""LwF: learning without forgetting.

Li and Hoiem, "Learning without Forgetting", ECCV 2016: what the old network says of the new images is kept.

    loss = classification + weight * distillation of the old columns

Where an image shows one class this is the original (rows "LwF" of ABD's tables, and "LwF with coreset" when there is a
memory: replayed images are classified and distilled like new ones). With many labels every output is its own
two-class problem (row "LwF" of KRT's tables, whose exact adaptation is not published): the teacher's sigmoid scores are
distilled, and the given labels are learned on the new columns only, since the old ones have a target in the teacher.

Two options with many labels: ``calibrated`` distils what the teacher's scores mean instead of what a loss that weighs
positives and negatives differently makes of them, and ``relation_weight`` keeps the similarities between images (AESL,
the term of Fu et al., "Multi-label class-incremental emotion decoding with augmented emotional semantics learning",
ICML 2025, besides its soft labels).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlcil.errors import UserError
from mlcil.evaluation.calibration import platt
from mlcil.losses.distillation import cosine_matrix
from mlcil.methods.base import Batch, Method, SessionContext, check_choice
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import corrected
from mlcil.phases import Batches, Fit, Phase, Train, UpdateMemory
from mlcil.registry import METHODS
from mlcil.schema import AboveZero, Count, Weight


@METHODS.register_module()
class LwF(Method):
    """Distillation of the old columns on the new images.

    Args:
        network: backbone with a linear head.
        weight: factor of the distillation term.
        temperature: T; 2 in the original.
        old_labels: what a new image says of old classes in the classification loss: ``ignored`` (nothing)
            or ``absent`` (as in fine-tuning). Without effect where an image shows one class.
        calibrated: behind a session's training a scale and a shift are fitted for the logits of each of its classes
            (Platt) on its training images; the next session distils the corrected logits. What was distilled is
            calibrated by that, so a class is corrected once. For many labels.
        relation_weight: factor of :func:`relation_loss`; 0 leaves it out. Nothing to keep where the backbone is frozen
            and the head is linear, since the features stay the same.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    uses_teacher = True

    def __init__(
        self,
        network: IncrementalNetwork,
        weight: Weight = 1.0,
        temperature: AboveZero = 2.0,
        old_labels: str = "ignored",
        calibrated: bool = False,
        relation_weight: Weight = 0.0,
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.weight, self.temperature = weight, temperature
        self.old_labels = check_choice("old_labels", old_labels, ("ignored", "absent"))
        self.calibrated, self.relation_weight = calibrated, relation_weight
        self.correction_C2: Tensor | None = None  # of the classes so far, for the next session's teacher

    def phases(self, session: SessionContext) -> list[Phase]:
        if self.calibrated and session.task == "single_label":
            raise UserError("method.calibrated is for data with many labels an image; leave it out")
        return [Train(), *([Fit(self.calibrate)] if self.calibrated else []), UpdateMemory()]

    def calibrate(self, loader: Batches) -> None:
        """Fit the correction of the session's classes."""
        assert self.context is not None
        logits_NC, targets_NC = self.predictions_of_new(loader)
        untouched_O2 = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(self.context.low, 1)
        self.correction_C2 = torch.cat([untouched_O2, torch.from_numpy(platt(logits_NC.numpy(), targets_NC.numpy()))])

    def method_state(self) -> dict[str, Any]:
        return {} if self.correction_C2 is None else {"correction": self.correction_C2}

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.correction_C2 = state.get("correction")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        new = self.network(batch.inputs)
        logits_BC = new.logits_BC
        losses = {"loss_cls": self.classify(logits_BC, self.targets(batch, self.old_labels))}
        if self.teacher is not None:
            old = self.teacher_output(batch.inputs)
            old_BO = corrected(old.logits_BC, self.correction_C2 if self.calibrated else None)
            kept = self.distil(logits_BC[:, : old_BO.shape[1]], old_BO, self.temperature)
            losses["loss_kd"] = self.weight * kept
            if self.relation_weight:
                losses["loss_relation"] = self.relation_weight * relation_loss(old.features_BK, new.features_BK)
        return losses


def relation_loss(old_BK: Tensor, new_BK: Tensor) -> Tensor:
    """AESL's relation distillation: mean over pairs of different images of (artanh m_old - artanh m_new)^2.

    m is the cosine of two images' features, both taken from the mean of the batch; beyond +-0.9999 it counts as that.
    No gradient flows to the old features. 0 for a single image.
    """
    old_BB, new_BB = (
        cosine_matrix(x, x).clamp(-0.9999, 0.9999).atanh()
        for x in (part - part.mean(0) for part in (old_BK.detach(), new_BK))
    )
    pairs = len(new_BB) * (len(new_BB) - 1)
    return (old_BB - new_BB).square().fill_diagonal_(0).sum() / max(pairs, 1)
