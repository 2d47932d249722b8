"""The evidence bound of a variational auto-encoder, in the form of ABD's DGR baseline.

Legend: B images, Z values of a code.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def reconstruction_loss(reconstruction: Tensor, images: Tensor, weights_B: Tensor | None = None) -> Tensor:
    """mean_i(w_i BCE_i) with the binary cross-entropy averaged over the values of image i, both in [0, 1]."""
    cost_B = F.binary_cross_entropy(reconstruction, images, reduction="none").flatten(1).mean(1)
    return (cost_B if weights_B is None else cost_B * weights_B).mean()


def variational_loss(mean_BZ: Tensor, log_variance_BZ: Tensor, values: int) -> Tensor:
    """KL to N(0, I), averaged over the images and divided by the ``values`` of an image."""
    kl_B = -0.5 * (1 + log_variance_BZ - mean_BZ.square() - log_variance_BZ.exp()).sum(1)
    return kl_B.mean() / values
