"""Distillation terms between a teacher and the network in training that several methods have.

Legend: B images, C classes seen so far, O the distilled classes (mostly the old ones), D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mlcil.models.numerics import at_least_float32


def sigmoid_distillation(old_logits_BO: Tensor, new_logits_BO: Tensor, temperature: float = 1.0) -> Tensor:
    """Binary cross-entropy of the teacher's scores: knowledge distillation for independent outputs.

    With q = sigmoid(old / T) and p = sigmoid(new / T), an element costs ``-T^2 (q log p + (1 - q) log(1 - p))``
    (Li and Hoiem, LwF, ECCV 2016, with a sigmoid in place of the softmax; T^2 keeps the size of gradients,
    Hinton et al. 2015). No gradient flows to the old logits.

    Returns:
        Scalar, float32 or wider: the SUM over all elements, the scale of
        :func:`~mlcil.losses.asymmetric.asymmetric_loss`.
    """
    old, new = at_least_float32(old_logits_BO.detach()), at_least_float32(new_logits_BO)
    soft = torch.sigmoid(old / temperature)
    cost = F.binary_cross_entropy_with_logits(new / temperature, soft, reduction="sum")
    return temperature**2 * cost


def soft_target_kd(logits_BO: Tensor, teacher_BO: Tensor, temperature: float = 2.0) -> Tensor:
    """Cross-entropy to the softened teacher: mean over images of -sum_c softmax(q / T)_c log softmax(s / T)_c.

    There is no factor T^2 (official behaviour of ABD's system). Slice both to the distilled classes before.
    """
    return soft_cross_entropy(logits_BO, (teacher_BO / temperature).softmax(1), temperature)


def soft_cross_entropy(logits_BC: Tensor, probabilities_BC: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean over images of -sum_c p_c log softmax(s / T)_c for given probabilities."""
    return -(probabilities_BC * (logits_BC / temperature).log_softmax(1)).sum(1).mean()


def one_minus_cosine(old_BD: Tensor, new_BD: Tensor) -> Tensor:
    """Mean over the batch of 1 - cos, with ``cos = a.b / sqrt((|a|^2 + 1e-12)(|b|^2 + 1e-12))``.

    A row of zeros has cosine 0 and costs 1 (KRT official behaviour). No gradient flows to the old ones.

    Returns:
        Scalar in [0, 2]; half precision is promoted to float32.
    """
    a, b = at_least_float32(old_BD.detach()), at_least_float32(new_BD)
    dot = (a * b).sum(1)
    norms = ((a.square().sum(1) + 1e-12) * (b.square().sum(1) + 1e-12)).sqrt()
    return (1 - dot / norms).mean()


def cosine_matrix(a_BD: Tensor, b_BD: Tensor) -> Tensor:
    """Cosine of every row of ``a`` with every row of ``b``, (B, B) in at least float32; norms are at least 1e-8."""
    a, b = (x / x.norm(dim=1, keepdim=True).clamp_min(1e-8) for x in map(at_least_float32, (a_BD, b_BD)))
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.T
