"""Asymmetric loss (Ridnik et al., "Asymmetric Loss for Multi-Label Classification", ICCV 2021).

Legend: B images, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlcil.models.numerics import at_least_float32


def asymmetric_cost(
    logits_BC: Tensor,
    targets_BC: Tensor,
    gamma_neg: float = 4.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    eps: float = 1e-8,
) -> Tensor:
    """Focal binary cross-entropy with separate focusing and a probability margin for negatives.

    With p = sigmoid(x) and q = min(1 - p + clip, 1), an element costs
    ``-w (y log max(p, eps) + (1 - y) log max(q, eps))`` with ``w = (1 - pt)^gamma``, where pt and gamma are
    those of the element's label. No gradient flows through w (KRT official behaviour).

    Args:
        logits_BC: (B, C) logits; half precision is promoted to float32.
        targets_BC: (B, C), 1 present, 0 absent, negative: not judged, contributes nothing.
        gamma_neg, gamma_pos: focusing of negatives and positives.
        clip: probability margin of negatives.
        eps: floor inside the logarithms.

    Returns:
        (B, C), float32 or the wider dtype of the logits: the cost of every element.

    Raises:
        ValueError: the shapes differ.
    """
    if logits_BC.shape != targets_BC.shape:
        raise ValueError(f"logits {tuple(logits_BC.shape)} and targets {tuple(targets_BC.shape)} differ in shape")
    logits_BC = at_least_float32(logits_BC)
    y = targets_BC.to(logits_BC.dtype).clamp(min=0)  # not judged: any finite weight, masked at the end
    p = torch.sigmoid(logits_BC)
    q = (1 - p + clip).clamp(max=1) if clip > 0 else 1 - p
    cost = y * p.clamp(min=eps).log() + (1 - y) * q.clamp(min=eps).log()
    if gamma_neg > 0 or gamma_pos > 0:
        with torch.no_grad():
            pt = p * y + q * (1 - y)
            weight = (1 - pt).pow(gamma_pos * y + gamma_neg * (1 - y))
        cost = cost * weight
    return -cost.masked_fill(targets_BC < 0, 0)


def asymmetric_loss(logits_BC: Tensor, targets_BC: Tensor, *options: float, **named: float) -> Tensor:
    """The SUM over all elements of :func:`asymmetric_cost`, whose options it takes; a scalar."""
    return asymmetric_cost(logits_BC, targets_BC, *options, **named).sum()
