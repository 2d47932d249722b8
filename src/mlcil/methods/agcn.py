"""AGCN: class weights from a graph over old and new labels.

Du, Lyu, Hu, Li, Feng, Xu, Fu, "AGCN: Augmented Graph Convolutional Network for Lifelong Multi-Label Image
Recognition", ICME 2022. The correlation matrix of the labels grows by blocks: counts of given labels inside
the session, and the teacher's soft labels for the relations between old and new classes.

    P(i | j)           = N_ij / N_j                              i, j new (given labels)
    P(i | j)           = sum_n q_ni y_nj / N_j                   i old, j new (q the teacher's scores)
    P(j | i)           = P(i | j) N_j / sum_n q_ni               by Bayes' rule
    loss = classification * ASL(new columns) + distillation * BCE(q, old columns)
           + relation * mean (teacher's class weights - class weights)^2, old classes

Choices where the paper leaves room: nodes are learned (no word vectors), the relation term is a mean over
entries, the classification loss is the asymmetric one that all methods share, and a replayed image keeps its
given labels in the counts. The grown graph has new neighbours for every old class, which would move the old class
weights by about half before the first step; a constant offset a class takes that back, so a session begins with the
old weights.
"""

from __future__ import annotations

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from mlcil.losses.criterion import MULTI_LABEL
from mlcil.methods.base import Batch, Method, SessionContext
from mlcil.models.heads import GraphHead
from mlcil.models.network import IncrementalNetwork
from mlcil.phases import Batches, Fit, Phase, Train, UpdateMemory
from mlcil.registry import METHODS
from mlcil.schema import Count, Weight


@METHODS.register_module()
class AGCN(Method):
    """Graph head with an augmented correlation matrix.

    Args:
        network: backbone with a ``graph`` head.
        classification, distillation, relation: lambda_1 to lambda_3. The paper's 0.07, 0.93 and 1e5 weigh averaged
            terms; with the asymmetric loss, whose negatives hardly count, 0.07 leaves new classes unlearned.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.

    Raises:
        ValueError: another head.
    """

    uses_teacher = True
    own_criterion = MULTI_LABEL

    def __init__(
        self,
        network: IncrementalNetwork,
        classification: Weight = 1.0,
        distillation: Weight = 0.93,
        relation: Weight = 1000.0,
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        if not isinstance(network.head, GraphHead):
            raise ValueError("AGCN needs network.head.type='graph'")
        self.classification, self.distillation, self.relation = classification, distillation, relation

    def phases(self, session: SessionContext) -> list[Phase]:
        return [Fit(self.count_labels), Train(), UpdateMemory()]

    @torch.no_grad()
    def count_labels(self, loader: Batches) -> None:
        """Fill the correlation matrix's new blocks from one pass over the training images."""
        assert self.context is not None
        low, high = self.context.low, self.context.high
        head = self.network.head
        assert isinstance(head, GraphHead)
        together = head.correlation.new_zeros(high, high - low)  # sum_n label_i y_j; labels of old i are soft
        weight = head.correlation.new_zeros(high)  # sum_n label_i
        for batch in loader:
            data = self.data_preprocessor(batch)
            given_BN = (data["targets"][:, low:] == 1).to(together)
            labels_BC = given_BN
            if self.teacher is not None:
                soft_BO = torch.sigmoid(self.teacher_output(data["inputs"]).logits_BC).to(together)
                labels_BC = torch.cat([soft_BO, given_BN], 1)
            together += labels_BC.T @ given_BN
            weight += labels_BC.sum(0)
        all_reduce(together)
        all_reduce(weight)
        given_new = weight[low:].clamp(min=1)
        head.correlation[:, low:] = together / given_new
        head.correlation[low:, :low] = (together[:low] / weight[:low, None].clamp(min=1e-6)).T.clamp(max=1)
        if self.teacher is not None:
            assert isinstance(self.teacher.head, GraphHead)
            head.keep(self.teacher.head.class_weights())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert self.context is not None
        low = self.context.low
        logits_BC = self.network(batch.inputs).logits_BC
        share = self.classification if self.teacher is not None else 1.0
        losses = {"loss_cls": share * self.classify(logits_BC[:, low:], batch.targets[:, low:])}
        if self.teacher is not None:
            kept = self.distil(logits_BC[:, :low], self.teacher_output(batch.inputs).logits_BC)
            losses["loss_distill"] = self.distillation * kept
            old, new = self.teacher.head, self.network.head
            assert isinstance(old, GraphHead)
            assert isinstance(new, GraphHead)
            difference = new.class_weights()[:low] - old.class_weights().detach()
            losses["loss_relation"] = self.relation * difference.square().mean()
        return losses
