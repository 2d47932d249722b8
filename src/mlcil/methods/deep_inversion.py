"""DeepInversion with a generator, the data-free baseline of ABD's tables.

After Yin et al., "Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion", CVPR 2020, in the
form of ABD's release: the images come from the same inversion as ABD's.

Legend: B real images (and as many made ones), C classes seen so far, O old classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mlcil.losses.distillation import soft_cross_entropy, soft_target_kd
from mlcil.methods.data_free import SoftTargetReplay
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS


@METHODS.register_module()
class DeepInversion(SoftTargetReplay):
    """Cross-entropy and soft targets on real images; soft targets over all classes on made images.

    Args: see :class:`~mlcil.methods.data_free.SoftTargetReplay`; ``mu``, the weight of both distillations, is 1.0.
    """

    default_mu = 1.0

    def session_loss(self, inputs: Tensor, labels_B: Tensor, made: Tensor) -> dict[str, Tensor]:
        """On made images a new class has the target 0, so that they cannot be taken for one."""
        count = len(inputs)
        images = torch.cat([inputs, made])
        logits_2BC = at_least_float32(self.network(images).logits_BC)
        old_2BO = self.teacher_output(images).logits_BC
        old = old_2BO.shape[1]
        soft_BO = (old_2BO[count:] / self.temperature).softmax(1)
        soft_BC = F.pad(soft_BO, (0, logits_2BC.shape[1] - old))
        return {
            "loss_ce": F.cross_entropy(logits_2BC[:count], labels_B),
            "loss_kd": self.mu * soft_target_kd(logits_2BC[:count, :old], old_2BO[:count], self.temperature),
            "loss_kd_made": self.mu * soft_cross_entropy(logits_2BC[count:], soft_BC, self.temperature),
        }
