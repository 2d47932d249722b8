"""R-DFCIL: relation-guided representation learning for data-free class-incremental learning.

Gao, Zhao, Ghanem, Zhang, ECCV 2022 (arXiv 2203.13104). Follows the behaviour of the authors' release: images
of old classes come from an inversion of the previous network, a new generator each session. Most epochs learn
the representation (RRL); the last ``finetune_epochs`` refine the classifier on a frozen backbone. Deviation:
the last epochs of session 0, in which the release changes nothing, are left to the config (``base_epochs``).

Legend: B images, C classes seen so far, O old classes, K pooled width.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mlcil.methods.base import SessionContext
from mlcil.methods.data_free import DataFree
from mlcil.models.inversion import InversionSettings
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.phases import Phase, Train, UpdateMemory
from mlcil.registry import METHODS
from mlcil.schema import Count, Natural, Weight


def adaptive_factors(old: int, new: int) -> tuple[float, float]:
    """The factors alpha = log2(n_new / 2 + 1) and beta = sqrt(n_old / n_new) of the adaptive weights."""
    return math.log2(new / 2 + 1), math.sqrt(old / new)


@METHODS.register_module()
class RDFCIL(DataFree):
    """Local classification, hard distillation on made images, relations of real images; then refinement.

    Args:
        network: backbone with a ``session_linear`` head; its first backbone is ``resnet32_rdfcil`` or
            ``resnet18_rdfcil``.
        ce: lambda of the classification loss.
        hkd: lambda of the hard distillation on made images.
        rkd: lambda of the relational distillation on real images.
        finetune_epochs: last epochs of a session, in which the classifier is refined (40 of 200 on CIFAR-100
            and Tiny-ImageNet, 30 of 120 on ImageNet-100).
        inversion: options of :class:`~mlcil.models.inversion.InversionSettings`; 5000 iterations unless given.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    warm_start = False  # a new generator each session
    iterations = 5000
    refining = False

    def __init__(
        self,
        network: IncrementalNetwork,
        ce: Weight = 0.5,
        hkd: Weight = 0.15,
        rkd: Weight = 0.5,
        finetune_epochs: Natural = 40,
        inversion: Annotated[dict[str, Any] | None, InversionSettings] = None,
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, inversion, reference_batch, teacher_autocast)
        self.ce, self.hkd, self.rkd, self.finetune_epochs = ce, hkd, rkd, finetune_epochs
        self.relation: RelationKD | None = None
        self.counts_C = torch.zeros(0)  # real and made images of each class in this session so far
        self.weights_C = torch.ones(0)

    # -- a session ---------------------------------------------------------------------------------------------

    def begin_session(self, context: SessionContext) -> None:
        self.refining = False
        super().begin_session(context)
        weight = next(self.network.parameters())
        self.counts_C, self.weights_C = weight.new_zeros(context.high), weight.new_ones(context.high)
        self.relation = None
        if self.teacher is not None:
            self.relation = RelationKD(self.network.backbone.out_channels).to(weight)  # type: ignore[arg-type]

    def phases(self, session: SessionContext) -> list[Phase]:
        if self.teacher is None:
            return [Train(), UpdateMemory()]
        last = min(self.finetune_epochs, session.epochs)
        learn, refine = Train(epochs=session.epochs - last), Train(epochs=last, begin=self.refine, goes_on=True)
        return [*self.inversions(), learn, refine, UpdateMemory()]

    def begin_epoch(self) -> None:
        """Class weights of what was seen so far."""
        if self.teacher is not None:
            seen = self.counts_C.any()
            self.weights_C = balancing_weights(self.counts_C) if seen else torch.ones_like(self.counts_C)

    def refine(self) -> None:
        """From here on the backbone rests and the classifier is refined."""
        self.refining = True
        self.freeze()

    def freeze(self) -> None:
        """In the refinement the backbone and the relations' projections rest, without weight decay."""
        super().freeze()
        for part in (self.network.backbone, self.relation):
            if part is not None:
                part.requires_grad_(not self.refining)
                if self.refining:
                    part.zero_grad(set_to_none=True)

    def train(self, mode: bool = True) -> RDFCIL:
        """As usual, but in the refinement the backbone stays in evaluation mode."""
        super().train(mode)
        if self.refining:
            self.network.backbone.eval()
        return self

    # -- losses ------------------------------------------------------------------------------------------------

    def session_loss(self, inputs: Tensor, labels_B: Tensor, made: Tensor) -> dict[str, Tensor]:
        """Real and made images pass one after the other, each with its own batch statistics (official)."""
        assert self.context is not None
        old = self.context.low
        real = self.network(inputs)
        logits_BC = at_least_float32(real.logits_BC)
        made_BC = at_least_float32(self.network(made).logits_BC)
        made_BO = self.teacher_output(made).logits_BC
        made_labels_B = made_BO.argmax(1)
        self.count(torch.cat([labels_B, made_labels_B]))

        alpha, beta = adaptive_factors(old, self.context.high - old)
        losses = {"loss_hkd": self.hkd * alpha * beta * hard_kd(made_BC[:, :old], made_BO)}
        if self.refining:  # the head alone, over all classes, weighted by how often they were seen
            both_2BC, labels_2B = torch.cat([logits_BC, made_BC]), torch.cat([labels_B, made_labels_B])
            losses["loss_ce"] = self.ce * F.cross_entropy(both_2BC, labels_2B, self.weights_C.to(both_2BC))
            return losses
        assert self.relation is not None
        local = F.cross_entropy(logits_BC[:, old:], labels_B - old)  # among the new classes only
        losses["loss_ce"] = self.ce * (1 + 1 / alpha) / beta * local
        features_BK = at_least_float32(real.features_BK)
        relation = self.relation(features_BK, self.teacher_output(inputs).features_BK)
        losses["loss_rkd"] = self.rkd * alpha * beta * relation
        return losses

    def count(self, labels: Tensor) -> None:
        """Add the labels of a step, over all processes."""
        counts_C = torch.bincount(labels, minlength=len(self.counts_C)).to(self.counts_C)
        all_reduce(counts_C)
        self.counts_C += counts_C

    # -- state -------------------------------------------------------------------------------------------------

    def method_state(self) -> dict[str, Any]:
        relation = self.relation.state_dict() if self.relation is not None else None
        return {**super().method_state(), "counts": self.counts_C, "weights": self.weights_C, "relation": relation}

    def load_method_state(self, state: dict[str, Any]) -> None:
        super().load_method_state(state)
        weight = next(self.network.parameters())
        self.counts_C = state["counts"].to(weight, copy=True)
        if "weights" in state:  # files of before have no weights, and none were saved inside an epoch
            self.weights_C = state["weights"].to(weight, copy=True)
        if state["relation"] is not None and self.relation is not None:
            self.relation.load_state_dict(state["relation"])


def hard_kd(logits_BO: Tensor, teacher_BO: Tensor) -> Tensor:
    """Mean absolute difference of the logits (R-DFCIL, "hard knowledge distillation")."""
    return (logits_BO - teacher_BO).abs().mean()


def balancing_weights(counts_C: Tensor) -> Tensor:
    """Class weights max(count) / max(count_c, 1), so that the most frequent class has 1 (R-DFCIL)."""
    weights_C = counts_C.sum() / counts_C.clamp_min(1)
    return weights_C / weights_C.min()


def angles(points_BK: Tensor) -> Tensor:
    """Cosines of the angles at every point: [i, j, k] is that between j and k seen from i, (B, B, B).

    Where j or k is i itself the entry is 0.
    """
    directions_BBK = F.normalize(points_BK[None, :] - points_BK[:, None], dim=2, eps=1e-12)
    return directions_BBK @ directions_BBK.transpose(1, 2)


def angle_loss(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """Mean absolute difference of all B^3 angles, those that are always 0 included."""
    return (angles(student_BK) - angles(teacher_BK)).abs().mean()


class RelationKD(nn.Module):
    """Angle distillation of embeddings under two learned projections, one a side, both trained.

    Args:
        features: width K of the embeddings.
        width: width of the projections; ``None`` takes 2 K (R-DFCIL official).
    """

    def __init__(self, features: int, width: int | None = None) -> None:
        super().__init__()
        self.student = nn.Linear(features, width or 2 * features)
        self.teacher = nn.Linear(features, width or 2 * features)

    def forward(self, student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
        """The scalar loss."""
        return angle_loss(self.student(student_BK), self.teacher(teacher_BK))
