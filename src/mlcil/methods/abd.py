"""ABD: "Always Be Dreaming", a new approach for data-free class-incremental learning.

Smith, Hsu, Balloch, Shen, Jin, Kira, ICCV 2021 (arXiv 2106.09701). Follows the behaviour of the authors'
release: one generator inverts the network after every session and goes on where it stopped. Deviations, with
the same numbers: the inversion runs at the beginning of the next session; the second forward pass, whose only
effect is a second update of the batch norms' statistics, is that update alone.

Legend: B real images (and as many made ones), C classes seen so far, O old classes, K pooled width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlcil.losses.classification import share_weights, weighted_cross_entropy
from mlcil.methods.data_free import DataFree
from mlcil.models.heads import FullLinearHead
from mlcil.models.inversion import InversionSettings
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS
from mlcil.schema import Count, Weight


@METHODS.register_module()
class ABD(DataFree):
    """Local classification, classifier refinement on real and made images, weighted feature distillation.

    Args:
        network: backbone (``resnet32_abd``) with a ``full_linear`` head: two of the losses are over the
            outputs of ALL classes, also those still to come (official behaviour).
        mu: weight of the feature distillation.
        inversion: options of :class:`~mlcil.models.inversion.InversionSettings`; 10000 iterations unless given.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.

    Raises:
        ValueError: another kind of head.
    """

    def __init__(
        self,
        network: IncrementalNetwork,
        mu: Weight = 0.1,
        inversion: Annotated[dict[str, Any] | None, InversionSettings] = None,
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, inversion, reference_batch, teacher_autocast)
        if not isinstance(network.head, FullLinearHead):
            raise ValueError("ABD needs the outputs of all classes from the beginning; use head type 'full_linear'")
        self.mu = mu

    def first_loss(self, inputs: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
        """Session 0: cross-entropy over all outputs of the head, also those still to come."""
        return {"loss_ce": weighted_cross_entropy(self.all_logits(self.network(inputs).features_BK), labels_B)}

    def session_loss(self, inputs: Tensor, labels_B: Tensor, made: Tensor) -> dict[str, Tensor]:
        """Real and made images pass together."""
        assert self.context is not None
        assert self.teacher is not None
        low, high, count = self.context.low, self.context.high, len(inputs)
        images = torch.cat([inputs, made])
        old = self.teacher_output(images)
        labels_2B = torch.cat([labels_B, old.logits_BC[count:].argmax(1)])
        weights_2B = share_weights(labels_2B, low, high)
        with statistics_updated_twice(self.network):
            features_2BK = at_least_float32(self.network(images).features_BK)

        # local classification: the real images among the new classes (eq. 11)
        local_BN = self.all_logits(features_2BK[:count])[:, low:high]
        local = weighted_cross_entropy(local_BN, labels_B - low, weights_2B[:count])
        # refinement: the classifier alone, over all classes (eq. 14)
        refined = weighted_cross_entropy(self.all_logits(features_2BK.detach()), labels_2B, weights_2B)
        # importance-weighted feature distillation (eq. 13)
        rows_OK = self.teacher.head.linear.weight[:low]  # type: ignore[union-attr, index]
        kept = weighted_feature_kd(features_2BK, old.features_BK, rows_OK)
        return {"loss_local": local, "loss_refine": refined, "loss_kd": self.mu * kept}

    def all_logits(self, features_BK: Tensor) -> Tensor:
        """Logits of all classes of the head, (B, all)."""
        return at_least_float32(self.network.head.classify(features_BK))  # type: ignore[operator]


@contextmanager
def statistics_updated_twice(network: nn.Module) -> Iterator[None]:
    """A training forward in here counts twice in the running statistics of every batch norm.

    Two updates by momentum m with the same batch are one by 1 - (1 - m)^2.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d) and layer.training]
    momenta = [layer.momentum for layer in norms]
    for layer, momentum in zip(norms, momenta, strict=True):
        assert momentum is not None
        layer.momentum = 1 - (1 - momentum) ** 2
    try:
        yield
    finally:
        for layer, momentum in zip(norms, momenta, strict=True):
            layer.momentum = momentum
            assert layer.num_batches_tracked is not None
            layer.num_batches_tracked += 1


def weighted_feature_kd(features_BK: Tensor, teacher_BK: Tensor, rows_OK: Tensor) -> Tensor:
    """Feature distance seen through a frozen classifier: mean over images of |W (f - f_old)|^2 / O (ABD, eq. 13).

    Args:
        features_BK, teacher_BK: pooled embeddings of the network and of the teacher.
        rows_OK: W, the teacher's classifier rows of the old classes.
    """
    return F.linear(features_BK - teacher_BK, rows_OK).square().mean()
