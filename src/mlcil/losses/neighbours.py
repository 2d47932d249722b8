"""Losses on the similarities between the images of a batch.

Legend: B images, D width, K neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlcil.models.numerics import at_least_float32

SAME_CLASS, OLD_AGAINST_NEW, OTHERWISE = 4, -4, -1
_EPS = 1e-8


def cosine_matrix(a_BD: Tensor, b_BD: Tensor) -> Tensor:
    """Cosine of every row of ``a`` with every row of ``b``, (B, B) in at least float32; norms are at least 1e-8."""
    a, b = (x / x.norm(dim=1, keepdim=True).clamp_min(_EPS) for x in map(at_least_float32, (a_BD, b_BD)))
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.T


def relations(labels_B: Tensor, low: int) -> Tensor:
    """DKT's relation of every pair of images, (B, B) integers (the paper's values).

    +4 for the same class, -4 when exactly one of the two belongs to an old class, else -1.

    Args:
        labels_B: (B,) class indices.
        low: number of old classes.
    """
    old_B = labels_B < low
    relation_BB = torch.where(old_B[:, None] != old_B[None], OLD_AGAINST_NEW, OTHERWISE)
    return torch.where(labels_B[:, None] == labels_B[None], SAME_CLASS, relation_BB)


def cluster_separation(old_BD: Tensor, new_BD: Tensor, labels_B: Tensor, low: int) -> Tensor:
    """DKT's cluster-separating loss: ``mean over B x B of r_ij (1 - cos(new_i, old_j))``.

    Pulls an image's new feature to the old features of its class and away from the others'. The mean over
    pairs is the released code's; the paper divides the double sum by B only. No gradient flows to the
    teacher's features.

    Args:
        old_BD, new_BD: features of the same batch from the teacher and from the network.
        labels_B, low: see :func:`relations`.
    """
    distance_BB = 1 - cosine_matrix(new_BD, old_BD.detach())
    return (relations(labels_B, low) * distance_BB).mean()


def nearest_neighbours(similarity_BB: Tensor, count: int) -> Tensor:
    """Indices (B, K) of the most similar other images, most similar first; the earlier of equals.

    Raises:
        ValueError: the batch has not more than ``count`` images.
    """
    if len(similarity_BB) <= count:
        raise ValueError(f"{count} neighbours need a batch of at least {count + 1} images, not {len(similarity_BB)}")
    others = similarity_BB.clone().fill_diagonal_(-torch.inf)
    return others.argsort(dim=1, descending=True, stable=True)[:, :count]


def neighbour_invariance(old_BD: Tensor, new_BD: Tensor, count: int = 5, temperature: float = 0.1) -> Tensor:
    """K-nearest-neighbour-invariant distillation: an image keeps its neighbours.

    Among the K nearest images by the teacher's features, the softmax of the cosines over ``temperature`` is P
    in the teacher's features and Q in the network's; the loss is the mean over images of KL(P, Q).

    **This is not the authors' code**, which contains no such term: DAFormer's abstract names it, and this
    definition, K and temperature are this project's reading of it.

    Args:
        old_BD, new_BD: features of the same batch from the teacher and from the network.
        count: K.
        temperature: above 0.

    Raises:
        ValueError: the batch has not more than K images.
    """
    old_BB = cosine_matrix(old_BD.detach(), old_BD.detach())
    new_BB = cosine_matrix(new_BD, new_BD)
    index_BK = nearest_neighbours(old_BB, count)
    log_p, log_q = ((x.gather(1, index_BK) / temperature).log_softmax(1) for x in (old_BB, new_BB))
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()
