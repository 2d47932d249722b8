"""LwF with made images: the ablation of ABD's release that has its inversion but not its losses.

Legend: B real images (and as many made ones), C classes seen so far, O old classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mlcil.losses.distillation import soft_target_kd
from mlcil.methods.data_free import SoftTargetReplay
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS


@METHODS.register_module()
class LwFSynthetic(SoftTargetReplay):
    """Cross-entropy on real images; soft targets for the old classes on real and made images.

    Args: see :class:`~mlcil.methods.data_free.SoftTargetReplay`; ``mu``, the weight of the distillation, is 0.1.
    """

    default_mu = 0.1

    def session_loss(self, inputs: Tensor, labels_B: Tensor, made: Tensor) -> dict[str, Tensor]:
        """Real and made images pass together."""
        images = torch.cat([inputs, made])
        logits_2BC = at_least_float32(self.network(images).logits_BC)
        old_2BO = self.teacher_output(images).logits_BC
        kept = soft_target_kd(logits_2BC[:, : old_2BO.shape[1]], old_2BO, self.temperature)
        return {"loss_ce": F.cross_entropy(logits_2BC[: len(inputs)], labels_B), "loss_kd": self.mu * kept}
