"""Classification of images that show exactly one class.

Legend: B images, C classes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def class_labels(targets_BC: Tensor) -> Tensor:
    """Rows with a single 1 (B, C) -> class indices (B,) int64."""
    return targets_BC.argmax(1)


def weighted_cross_entropy(logits_BC: Tensor, labels_B: Tensor, weights_B: Tensor | None = None) -> Tensor:
    """mean_i(w_i CE_i): a mean over the images, not divided by the weights (ABD official behaviour)."""
    cost_B = F.cross_entropy(logits_BC, labels_B, reduction="none")
    return (cost_B if weights_B is None else cost_B * weights_B).mean()


def inverse_frequencies(counts_C: Tensor) -> Tensor:
    """sum(n) / (n_c C) with n_c = count_c + 1: ABD's data weights."""
    n_C = counts_C + 1
    return n_C.sum() / (n_C * len(n_C))


def share_weights(labels_B: Tensor, old: int, seen: int) -> Tensor:
    """Weight of each image: ``old / seen`` where its class is an old one, else ``1 - old / seen`` (ABD, DGR)."""
    share = old / seen
    return (labels_B < old) * share + (labels_B >= old) * (1 - share)
