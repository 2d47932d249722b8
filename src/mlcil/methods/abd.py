"""ABD: "Always Be Dreaming", a new approach for data-free class-incremental learning.

Smith, Hsu, Balloch, Shen, Jin, Kira, ICCV 2021 (arXiv 2106.09701). Follows the behaviour of the authors'
release: one generator inverts the network after every session and goes on where it stopped. Deviations, with
the same numbers: the inversion runs at the beginning of the next session; the second forward pass, whose only
effect is a second update of the batch norms' statistics, is that update alone.

Legend: B real images (and as many made ones), C classes seen so far, O old classes, K pooled width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mlcil.losses.classification import class_labels, share_weights, weighted_cross_entropy
from mlcil.losses.knowledge import weighted_feature_kd
from mlcil.methods.base import Method
from mlcil.methods.dreams import Dreams
from mlcil.models.heads import FullLinearHead
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS


@METHODS.register_module()
class ABD(Method):
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

    uses_teacher = True

    def __init__(
        self,
        network: IncrementalNetwork,
        mu: float = 0.1,
        inversion: dict[str, Any] | None = None,
        reference_batch: int = 64,
        teacher_autocast: bool = False,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        if not isinstance(network.head, FullLinearHead):
            raise ValueError("ABD needs the outputs of all classes from the beginning; use head type 'full_linear'")
        self.mu = mu
        self.dreams = Dreams(inversion)

    def prepare_session(self, loader: Iterable[dict[str, Any]]) -> None:
        """Invert the old network (section 4.1)."""
        if self.teacher is not None and self.context is not None:
            self.dreams.learn(self.teacher, self.context.batch_size)

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        labels_B = class_labels(targets)
        if self.teacher is None:
            features_BK = self.network(inputs).features_BK
            return {"loss_ce": weighted_cross_entropy(self.classify(features_BK), labels_B)}
        return self.session_loss(inputs, labels_B, self.dreams.sample(len(inputs)))

    def session_loss(self, inputs: Tensor, labels_B: Tensor, made: Tensor) -> dict[str, Tensor]:
        """The losses of a later session on real images with their classes, and on made images (section 4.2)."""
        assert self.context is not None
        assert self.teacher is not None
        low, high, count = self.context.low, self.context.high, len(inputs)
        images = torch.cat([inputs, made])
        old = self.teacher_output(images)
        labels_2B = torch.cat([labels_B, old.logits_BC[count:].argmax(1)])
        weights_2B = share_weights(labels_2B, low, high)
        with statistics_updated_twice(self.network):
            features_2BK = at_least_float32(self.network(images).features_BK)

        # local classification: the real images among the new classes
        local_BN = self.classify(features_2BK[:count])[:, low:high]
        local = weighted_cross_entropy(local_BN, labels_B - low, weights_2B[:count])
        # refinement: the classifier alone, over all classes
        refined = weighted_cross_entropy(self.classify(features_2BK.detach()), labels_2B, weights_2B)
        rows_OK = self.teacher.head.linear.weight[:low]  # type: ignore[union-attr, index]
        kept = weighted_feature_kd(features_2BK, old.features_BK, rows_OK)
        return {"loss_local": local, "loss_refine": refined, "loss_kd": self.mu * kept}

    def classify(self, features_BK: Tensor) -> Tensor:
        """Logits of all classes of the head, (B, all)."""
        return at_least_float32(self.network.head.classify(features_BK))  # type: ignore[operator]

    def method_state(self) -> dict[str, Any]:
        return {"dreams": self.dreams.state_dict()}

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.dreams.load_state_dict(state["dreams"], self.network)

    def session_report(self) -> dict[str, Any]:
        return self.dreams.report()


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
