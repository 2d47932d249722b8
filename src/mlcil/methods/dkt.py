"""DKT: a transformer that transfers general and specific knowledge between sessions.

Gao et al., "DKT: Diverse Knowledge Transfer Transformer for Class Incremental Learning", CVPR 2023.
Follows the authors' release where it and the paper differ:

* the classification loss has the factor 2 (1 - lambda) in later sessions, because the released loss adds it
  twice (``clf_weight_fix=True`` is the paper's single weight);
* the biases of the stability classifier are drawn anew when the classifiers merge (``copy_bias=True`` of the
  head keeps them);
* the cluster-separating loss is a mean over B x B pairs.

Legend: B images, C classes seen so far, O old classes, S sessions, D width.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from mlcil.losses.classification import class_labels
from mlcil.losses.distillation import cosine_matrix
from mlcil.losses.logits import mean_bce, softened_kl
from mlcil.methods.base import BalancedFinetuning, Batch, Method, SessionContext
from mlcil.models.heads import DKTHead
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.models.vision_transformer import DKTEncoder
from mlcil.phases import Phase, Train, UpdateMemory
from mlcil.registry import METHODS
from mlcil.schema import AboveZero, Weight

#: relations of two images
SAME_CLASS, OLD_AGAINST_NEW, OTHERWISE = 4, -4, -1


@METHODS.register_module()
class DKT(Method):
    """Distillation, cluster separation, and balanced fine-tuning on the memory.

    In the first session and in fine-tuning the loss is the mean binary cross-entropy; in between, with
    ``lambda = O / C`` (the paper's alpha),

        loss = 2 (1 - lambda) BCE + lambda KL + mu CS

    Args:
        network: the ``dkt`` backbone with the ``dkt`` head.
        separation: mu of the cluster-separating loss, 0.003 in the paper and the release.
        temperature: of the distillation, 1 in the release.
        clf_weight_fix: weigh the classification loss by (1 - lambda) once, as the paper's formula.
        finetuning: arguments of :class:`~mlcil.methods.base.BalancedFinetuning`; ``None`` for no such phase.
            Released settings: ``early_sessions`` 2, 3 or 6 for increments of 20, 10 or fewer classes on CIFAR;
            ``early_epochs=5, early_sessions=3`` on ImageNet.
        teacher_autocast: see :class:`~mlcil.methods.base.Method`.

    Raises:
        ValueError: the network has another backbone or head.
    """

    uses_teacher = True

    def __init__(
        self,
        network: IncrementalNetwork,
        separation: Weight = 0.003,
        temperature: AboveZero = 1.0,
        clf_weight_fix: bool = False,
        finetuning: Annotated[dict[str, Any] | None, BalancedFinetuning] = None,
        teacher_autocast: bool = True,
    ) -> None:
        if not isinstance(network.backbone, DKTEncoder) or not isinstance(network.head, DKTHead):
            raise ValueError("DKT needs its own transformer; use backbone name 'dkt' and head type 'dkt'")
        super().__init__(network, teacher_autocast=teacher_autocast)
        self.separation, self.temperature, self.clf_weight_fix = separation, temperature, clf_weight_fix
        self.finetuning = BalancedFinetuning(**finetuning) if finetuning is not None else None

    def freeze(self) -> None:
        super().freeze()
        self.network.head.freeze_old_sessions()  # type: ignore[operator]

    def phases(self, session: SessionContext) -> list[Phase]:
        balanced = self.finetuning.phases(session, self.begin_finetuning) if self.finetuning else []
        return [Train(), UpdateMemory(), *balanced]

    def begin_finetuning(self) -> None:
        """Train the specific-knowledge block, both classifiers and the general token; nothing is distilled.

        Frozen layers stay in training mode: their batch norms go on with batch statistics (released code).
        """
        self.drop_teacher()
        self.network.backbone.requires_grad_(False)
        self.network.backbone.general_token.requires_grad_(True)  # type: ignore[union-attr,operator]
        self.network.head.freeze_tokens()  # type: ignore[operator]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert self.context is not None
        new, targets_BC = self.network(batch.inputs), self.targets(batch)
        bce = mean_bce(new.logits_BC, targets_BC)
        if self.teacher is None:
            return {"loss_cls": bce}
        old = self.teacher_output(batch.inputs)
        low = self.context.low
        balance = low / self.context.high  # lambda
        losses = {
            "loss_cls": (1 if self.clf_weight_fix else 2) * (1 - balance) * bce,
            "loss_kd": balance * softened_kl(old.logits_BC, new.logits_BC, self.temperature),
        }
        if self.separation > 0:
            labels_B = class_labels(targets_BC)
            new_BD = at_least_float32(new.features_BK)
            losses["loss_cs"] = self.separation * cluster_separation(old.features_BK, new_BD, labels_B, low)
        return losses


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
