"""Losses on the logits of classes that exclude each other, with a sigmoid a class (DKT, DAFormer).

Legend: B images, C classes seen, O old classes, A = 1 + new classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mlcil.models.numerics import at_least_float32


def mean_bce(logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
    """Binary cross-entropy with logits, the mean over all B x C elements.

    Args:
        logits_BC: (B, C) logits; half precision is promoted to float32.
        targets_BC: (B, C) in [0, 1]: one-hot rows, or soft ones after mixing images.

    Raises:
        ValueError: the shapes differ.
    """
    logits_BC = at_least_float32(logits_BC)
    return F.binary_cross_entropy_with_logits(logits_BC, targets_BC.to(logits_BC.dtype))


def softened_kl(old_BO: Tensor, new_BC: Tensor, temperature: float = 1.0) -> Tensor:
    """Knowledge distillation: KL of the softmax over the old classes, from the teacher to the network.

    ``temperature^2 * mean over B x O of p (log p - log q)`` with p, q the softmax of ``logits / temperature``:
    the mean over the elements, not over the rows (behaviour of DKT's and DAFormer's releases). No gradient
    flows to the teacher.

    Args:
        old_BO: the teacher's logits.
        new_BC: the network's; its first O columns are the old classes.
        temperature: above 0.
    """
    log_p = (at_least_float32(old_BO.detach()) / temperature).log_softmax(1)
    log_q = (at_least_float32(new_BC[:, : old_BO.shape[1]]) / temperature).log_softmax(1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).mean() * temperature**2
