"""TPCIL: topology-preserving class-incremental learning.

Tao et al., "Topology-Preserving Class-Incremental Learning", ECCV 2020: points in feature space and their
similarities form a graph, and training keeps the graph's shape while its points may move.

    loss = ASL(all columns) + weight * (1 - Pearson correlation of old and new edge weights)

Multi-label form (row "TPCIL" of KRT's tables; its adaptation is not published). The original grows an elastic
Hebbian graph over all features and replays one image a vertex. Here the vertices are the exemplars
themselves: an edge is the cosine of two replayed images' embeddings, its old weight is the teacher's, and the
correlation is taken over all pairs of replayed images in a batch. A batch with fewer than three of them has
no term.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mlcil.methods.base import Batch, Method
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS
from mlcil.schema import Count, Weight


@METHODS.register_module()
class TPCIL(Method):
    """Replay that preserves the similarities among the replayed images.

    Args:
        network: backbone with a linear head.
        weight: lambda of the topology term; it multiplies a term in [0, 2] as large as KRT's token loss.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    uses_teacher = True
    memory_selections = ("herding", "random", "reservoir")

    def __init__(
        self,
        network: IncrementalNetwork,
        weight: Weight = 30.0,
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.weight = weight

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert self.context is not None
        output = self.network(batch.inputs)
        losses = {"loss_cls": self.classify(output.logits_BC, self.targets(batch))}
        replayed = batch.origins < self.context.index
        if self.teacher is not None and int(replayed.sum()) > 2:
            old_RK = self.teacher_output(batch.inputs[replayed]).features_BK
            similarity = edge_correlation(old_RK, output.features_BK[replayed])
            losses["loss_topology"] = self.weight * (1 - similarity)
        return losses


def edge_correlation(old_RK: Tensor, new_RK: Tensor) -> Tensor:
    """Pearson correlation between the pairwise cosines of R old and of R new embeddings, a scalar in [-1, 1]."""
    pairs = torch.triu_indices(len(old_RK), len(old_RK), 1, device=old_RK.device)
    edges = []
    for features_RK in (old_RK.detach(), new_RK):
        unit_RK = F.normalize(at_least_float32(features_RK), dim=1)
        cosines = (unit_RK[pairs[0]] * unit_RK[pairs[1]]).sum(1)
        edges.append(cosines - cosines.mean())
    return F.cosine_similarity(edges[0].to(edges[1]), edges[1], dim=0)
