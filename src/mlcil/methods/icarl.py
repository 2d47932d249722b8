"""iCaRL: distillation, a herding memory, and classification by the nearest mean of exemplars.

Rebuffi et al., "iCaRL: Incremental Classifier and Representation Learning", CVPR 2017. The original already
trains sigmoid outputs with binary cross-entropy, targets being the given labels for new classes and the old
network's scores for old ones (its equation in algorithm 3), so training carries over to many labels as it
stands; here the given labels go through the asymmetric loss that all methods share.

An image with several labels has no single nearest mean. With a ``prototype`` head the score of class c is
the cosine between the image's embedding and the mean embedding of the training images that show c: all new
images for a new class, the replayed ones for an old class, both normalised (algorithm 1). With a ``linear``
head the network's own outputs are used (the original's "hybrid 1"). Which of the two KRT's table has is not
published.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor

from mlcil.losses.criterion import MULTI_LABEL
from mlcil.methods.base import Batch, Method, SessionContext
from mlcil.models.heads import PrototypeHead
from mlcil.models.network import IncrementalNetwork
from mlcil.phases import Batches, Fit, Phase, Train, UpdateMemory
from mlcil.registry import METHODS


@METHODS.register_module()
class ICaRL(Method):
    """Old columns follow the teacher on every image, new columns the given labels.

    Args:
        network: backbone with a ``prototype`` or ``linear`` head.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    uses_teacher = True
    own_criterion = MULTI_LABEL

    def __init__(self, network: IncrementalNetwork, reference_batch: int = 64, teacher_autocast: bool = True) -> None:
        super().__init__(network, reference_batch, teacher_autocast)

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
        return [Train(), Fit(self.compute_means), UpdateMemory()]

    @torch.no_grad()
    def compute_means(self, loader: Batches) -> None:
        """Means of the normalised embeddings by class, normalised again."""
        head = self.network.head
        if not isinstance(head, PrototypeHead):
            return
        sums_CK = torch.zeros_like(head.means)
        was_training = self.training
        self.eval()
        for batch in loader:
            data = self.data_preprocessor(batch)
            features_BK = F.normalize(self.network(data["inputs"]).features_BK.to(sums_CK), dim=1)
            sums_CK += (data["targets"] == 1).to(sums_CK).T @ features_BK
        self.train(was_training)
        all_reduce(sums_CK)
        head.set_means(F.normalize(sums_CK, dim=1))
