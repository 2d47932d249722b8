"""Distillation between the logits of a teacher and of the network in training.

Legend: B images, C classes seen so far, O the distilled classes (mostly the old ones).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_target_kd(logits_BO: Tensor, teacher_BO: Tensor, temperature: float = 2.0) -> Tensor:
    """Cross-entropy to the softened teacher: mean over images of -sum_c softmax(q / T)_c log softmax(s / T)_c.

    There is no factor T^2 (official behaviour of ABD's system). Slice both to the distilled classes before.
    """
    return soft_cross_entropy(logits_BO, (teacher_BO / temperature).softmax(1), temperature)


def soft_cross_entropy(logits_BC: Tensor, probabilities_BC: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over images of -sum_c p_c log softmax(s / T)_c for given probabilities."""
    return -(probabilities_BC * (logits_BC / temperature).log_softmax(1)).sum(1).mean()


def sessions_kd(
    logits_BC: Tensor, teacher_BO: Tensor, sizes: Sequence[int], total: int, temperature: float = 2.0
) -> Tensor:
    """One :func:`soft_target_kd` per earlier session among its own classes, weighted by size / ``total`` (E2E).

    Args:
        logits_BC, teacher_BO: logits that begin with the earlier sessions' classes.
        sizes: classes of each earlier session.
        total: what the sizes are divided by.
    """
    terms = []
    low = 0
    for size in sizes:
        part = slice(low, low + size)
        terms.append(soft_target_kd(logits_BC[:, part], teacher_BO[:, part], temperature) * (size / total))
        low += size
    return torch.stack(terms).sum()


def hard_kd(logits_BO: Tensor, teacher_BO: Tensor) -> Tensor:
    """Mean absolute difference of the logits (R-DFCIL, "hard knowledge distillation")."""
    return (logits_BO - teacher_BO).abs().mean()


def weighted_feature_kd(features_BK: Tensor, teacher_BK: Tensor, rows_OK: Tensor) -> Tensor:
    """Feature distance seen through a frozen classifier: mean over images of |W (f - f_old)|^2 / O (ABD, eq. 13).

    Args:
        features_BK, teacher_BK: pooled embeddings of the network and of the teacher.
        rows_OK: W, the teacher's classifier rows of the old classes.
    """
    return F.linear(features_BK - teacher_BK, rows_OK).square().mean()


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
