"""Distillation terms between a teacher and the network in training.

Legend: B images, O old sessions, D token width, K pooled width, Q channels, H x W positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mlcil.models.numerics import at_least_float32

_EPS = 1e-12


def token_loss(old_tokens_BOD: Tensor, new_tokens_BOD: Tensor) -> Tensor:
    """KRT's token distillation: mean over the batch of 1 - cos of the concatenated tokens.

    One cosine over all old sessions' tokens at once, ``a.b / sqrt((|a|^2 + 1e-12)(|b|^2 + 1e-12))`` (KRT
    official behaviour). No gradient flows to the old tokens.

    Args:
        old_tokens_BOD: the teacher's session embeddings (B, O, D).
        new_tokens_BOD: the same sessions' embeddings of the new network (B, O, D).

    Returns:
        Scalar in [0, 2]; half precision is promoted to float32.
    """
    return _one_minus_cosine(old_tokens_BOD.flatten(1).detach(), new_tokens_BOD.flatten(1))


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


def pod_flat(old_BK: Tensor, new_BK: Tensor) -> Tensor:
    """Mean over the batch of 1 - cos of the pooled embeddings (B, K), as in :func:`token_loss`.

    A row of zeros has cosine 0 and costs 1 (KRT official behaviour). No gradient flows to the old ones.
    """
    return _one_minus_cosine(old_BK.detach(), new_BK)


def _one_minus_cosine(a: Tensor, b: Tensor) -> Tensor:
    a, b = at_least_float32(a), at_least_float32(b)
    dot = (a * b).sum(1)
    norms = ((a.square().sum(1) + _EPS) * (b.square().sum(1) + _EPS)).sqrt()
    return (1 - dot / norms).mean()


def pod_spatial(old_maps: Sequence[Tensor], new_maps: Sequence[Tensor], collapse: str = "spatial") -> Tensor:
    """Pooled-outputs distillation (Douillard et al., ECCV 2020, equations 3 to 6).

    Values are squared, summed over what ``collapse`` names, L2-normalised per image; the Euclidean distance
    is averaged over the batch and over the maps.

    Args:
        old_maps, new_maps: maps of the same stages, each (B, Q, H, W).
        collapse: ``spatial`` (sums over the width and over the height, concatenated), ``channels``,
            ``width``, ``height`` or ``gap`` (mean over positions).

    Raises:
        ValueError: unknown ``collapse``, or not the same number of maps.
    """
    terms = []
    for old, new in zip(old_maps, new_maps, strict=True):
        a, b = (F.normalize(_collapsed(at_least_float32(m).square(), collapse), dim=1) for m in (old.detach(), new))
        terms.append((a - b).norm(dim=1).mean())
    return torch.stack(terms).mean()


def _collapsed(squared_BQHW: Tensor, collapse: str) -> Tensor:
    x = squared_BQHW
    if collapse == "spatial":
        return torch.cat([x.sum(3).flatten(1), x.sum(2).flatten(1)], 1)
    if collapse == "channels":
        return x.sum(1).flatten(1)
    if collapse == "width":
        return x.sum(2).flatten(1)
    if collapse == "height":
        return x.sum(3).flatten(1)
    if collapse == "gap":
        return x.mean((2, 3))
    raise ValueError(f"collapse {collapse!r} is unknown; use spatial, channels, width, height or gap")
