"""iCaRL: distillation, a herding memory, and classification by the nearest mean of exemplars.

Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning", CVPR 2017. The original already
trains sigmoid outputs with binary cross-entropy, targets being the given labels for new classes and the old
network's scores for old ones (its equation in algorithm 3), so training carries over to many labels as it
stands; here the given labels go through the asymmetric loss that all methods share.

An image with several labels has no single nearest mean. With a ``prototype`` head the score of class c is
the cosine between the image's embedding and the mean embedding of the training images that show c, without
augmentation: all new images for a new class, the replayed ones for an old class, both normalised (algorithm 1). A
cosine is no probability, and under a threshold for probabilities every class or none would count as predicted; so each
class gets a scale and a shift (Platt) in the session that brings it, from its training images, and keeps them. No AP
depends on them. With a ``linear`` head the network's own outputs are used (the original's "hybrid 1"). Which of the two
KRT's table has is not published.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import all_gather_object, all_reduce
from torch import Tensor

from mlcil.evaluation.calibration import platt
from mlcil.losses.criterion import MULTI_LABEL
from mlcil.methods.base import Batch, Method, SessionContext
from mlcil.models.heads import PrototypeHead
from mlcil.models.network import IncrementalNetwork
from mlcil.phases import Batches, Fit, Phase, Train, UpdateMemory
from mlcil.registry import METHODS
from mlcil.schema import Count


@METHODS.register_module()
class ICaRL(Method):
    """Old columns follow the teacher on every image, new columns the given labels.

    Args:
        network: backbone with a ``prototype`` or ``linear`` head.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    uses_teacher = True
    own_criterion = MULTI_LABEL

    def __init__(self, network: IncrementalNetwork, reference_batch: Count = 64, teacher_autocast: bool = True) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.correction: list[list[float]] = []  # (C, 2) scale and shift of the prototypes' logits

    def freeze(self) -> None:
        super().freeze()
        for network in (self.network, self.teacher):
            if network is not None and isinstance(network.head, PrototypeHead):
                network.head.use_means = False  # training and teacher use the linear outputs

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert self.context is not None
        low = self.context.low
        logits_BC = self.network(batch.inputs).logits_BC
        losses = {"loss_cls": self.classify(logits_BC[:, low:], batch.targets[:, low:])}
        if self.teacher is not None:
            kept = self.distil(logits_BC[:, :low], self.teacher_output(batch.inputs).logits_BC)
            losses["loss_distill"] = kept
        return losses

    def phases(self, session: SessionContext) -> list[Phase]:
        return [Train(), Fit(self.compute_means, on="clean"), UpdateMemory()]

    @torch.no_grad()
    def compute_means(self, loader: Batches) -> None:
        """Means of the normalised embeddings by class, normalised again; then the new classes' calibration."""
        head = self.network.head
        if not isinstance(head, PrototypeHead):
            return
        features, targets = [], []
        was_training = self.training
        self.eval()
        for batch in loader:
            data = self.data_preprocessor(batch)
            features.append(F.normalize(self.network(data["inputs"]).features_BK.to(head.means), dim=1))
            targets.append(data["targets"])
        self.train(was_training)
        features_NK, targets_NC = torch.cat(features), torch.cat(targets)
        sums_CK = (targets_NC == 1).to(features_NK).T @ features_NK
        all_reduce(sums_CK)
        head.set_means(F.normalize(sums_CK, dim=1))
        parts = all_gather_object((head.logits(features_NK).cpu().numpy(), targets_NC.cpu().numpy()))
        assert self.context is not None
        low = self.context.low
        logits_NC, known_NC = (np.concatenate(arrays)[:, low:] for arrays in zip(*parts, strict=True))
        self.correction = [*self.correction[:low], *platt(logits_NC, known_NC).tolist()]

    def logit_correction(self) -> Tensor | None:
        # of scores by means alone; the linear outputs of a running session have none
        by_means = getattr(self.network.head, "use_means", False)
        return torch.tensor(self.correction) if self.correction and by_means else None

    def method_state(self) -> dict[str, Any]:
        return {"correction": [list(pair) for pair in self.correction]}

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.correction = [list(pair) for pair in state["correction"]]
