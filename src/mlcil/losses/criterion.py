"""What "classify" and "distil" mean where an image shows any number of classes, and where it shows exactly one.

Legend: B images, C classes seen so far, O old classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from mlcil.losses.asymmetric import asymmetric_loss
from mlcil.losses.distillation import sigmoid_distillation, soft_target_kd
from mlcil.models.numerics import at_least_float32


@dataclass(frozen=True)
class Criterion:
    """The two losses that most methods are made of.

    Attributes:
        classify: of logits (B, C) and targets (B, C) with 1, 0 and -1; a scalar.
        distil: of the network's logits (B, O), the teacher's (B, O) and a temperature; a scalar.
        summed: both are sums over the batch, which a method scales by its ``sum_scale``; else means over the images.
    """

    classify: Callable[[Tensor, Tensor], Tensor]
    distil: Callable[[Tensor, Tensor, float], Tensor]
    summed: bool


def cross_entropy(logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
    """Mean cross-entropy of rows with a single 1, or of shares in [0, 1]; 0 without images. A negative target is 0."""
    shares_BC = targets_BC.clamp(min=0).to(logits_BC)
    return F.cross_entropy(logits_BC, shares_BC, reduction="sum") / max(len(logits_BC), 1)


#: every class is a question of its own: asymmetric loss, and the teacher's sigmoid scores
MULTI_LABEL = Criterion(
    lambda logits_BC, targets_BC: asymmetric_loss(logits_BC, targets_BC),
    lambda new_BO, old_BO, temperature: sigmoid_distillation(old_BO, new_BO, temperature),
    summed=True,
)
#: classes exclude each other: cross-entropy, and the teacher's softened probabilities
SINGLE_LABEL = Criterion(
    lambda logits_BC, targets_BC: cross_entropy(at_least_float32(logits_BC), targets_BC),
    lambda new_BO, old_BO, temperature: soft_target_kd(at_least_float32(new_BO), old_BO, temperature),
    summed=False,
)
#: by the task of a scenario
CRITERIA = {"multi_label": MULTI_LABEL, "single_label": SINGLE_LABEL}
