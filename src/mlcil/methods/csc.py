"""CSC: confidence self-calibration by a graph over labels and by entropy.

Du et al., "Confidence Self-Calibration for Multi-Label Class-Incremental Learning", ECCV 2024 (arXiv 2403.12559). The
model is :mod:`mlcil.models.heads.csc`. In the base session the loss is the binary cross-entropy, from then on

    loss = BCE(labels that were given) / 2 + BCE(old logits, sigmoid(teacher)) / 2 + beta sum_c p_c log p_c

with means over images and classes in the first two terms and over images in the third, which keeps scores from becoming
over-confident. A new image says nothing of old classes but through the teacher; exemplars, when a memory is there, join
the batch with the labels that they have.

What sources disagree on or leave open: the paper calibrates the old classes, the release all seen ones
(``entropy="seen"``); the release trains without a schedule, without weight decay and on images in a fixed order, which
is not imitated; the optimiser is made anew in every session, so that grown parameters are trained. The later rate on
COCO is KRT's 1e-4. The release loads weights that were trained on COCO's 80 labels; they are refused here.

Only the half ``p log p`` of a score's entropy is in the loss. It is lowest at p = 1/e, so scores may never come above
0.5 and F1 at that threshold says little: look at F1 at calibrated thresholds.

Legend: B images, C classes seen, O old classes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlcil.losses.criterion import MULTI_LABEL
from mlcil.methods.base import Batch, Method, check_choice
from mlcil.models.heads import CSCHead
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS
from mlcil.schema import Weight


@METHODS.register_module()
class CSC(Method):
    """Distillation, a growing label graph and an entropy term.

    Args:
        network: a backbone with a ``csc`` head.
        beta: weight of the entropy term; 0 for the ablation.
        entropy: classes that it is taken of: ``old`` (paper) or ``seen`` (release).
        teacher_autocast: see :class:`~mlcil.methods.base.Method`.

    Raises:
        ValueError: another head or choice.
    """

    uses_teacher = True
    own_criterion = MULTI_LABEL

    def __init__(
        self, network: IncrementalNetwork, beta: Weight = 0.04, entropy: str = "old", teacher_autocast: bool = True
    ) -> None:
        super().__init__(network, teacher_autocast=teacher_autocast)
        if not isinstance(network.head, CSCHead):
            raise ValueError("CSC needs network.head.type='csc'")
        self.beta, self.entropy = beta, check_choice("entropy", entropy, ("old", "seen"))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert self.context is not None
        logits_BC = at_least_float32(self.network(batch.inputs).logits_BC)
        given = judged_bce(logits_BC, batch.targets)
        if self.teacher is None:
            return {"loss_cls": given}
        old = self.context.low
        kept = judged_bce(logits_BC[:, :old], torch.sigmoid(self.teacher_output(batch.inputs).logits_BC))
        calibrated_BC = logits_BC[:, :old] if self.entropy == "old" else logits_BC
        return {
            "loss_cls": given / 2,
            "loss_distill": kept / 2,
            "loss_entropy": self.beta * one_sided_entropy(calibrated_BC),
        }

    def state_bytes(self) -> dict[str, int]:
        found = super().state_bytes()
        found["parameters"] += sum(buffer.nbytes for buffer in self.network.head.buffers())
        return found

    def session_report(self) -> dict[str, Any]:
        if self.teacher is None or not self.beta:
            return {}
        return {"csc": {"scores": "may stay below 0.5 by the entropy term; read F1 at calibrated thresholds"}}


def judged_bce(logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
    """Mean binary cross-entropy of the targets in [0, 1]; negative ones are not judged and not counted."""
    judged_BC = targets_BC >= 0
    targets_BC = targets_BC.to(logits_BC.dtype).clamp(min=0)
    cost_BC = F.binary_cross_entropy_with_logits(logits_BC, targets_BC, reduction="none")
    return cost_BC.masked_fill(~judged_BC, 0).sum() / judged_BC.sum().clamp(min=1)


def one_sided_entropy(logits_BC: Tensor) -> Tensor:
    """Mean over images of ``sum_c p_c log p_c``, the half of the negative entropy that the paper's term has."""
    return -torch.special.entr(torch.sigmoid(logits_BC)).sum(1).mean()
