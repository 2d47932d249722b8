"""Fine-tuning on images of one class each: the rows Base, Naive Rehearsal and Upper Bound of ABD's tables.

Smith et al., ICCV 2021, whose release calls all three NormalNN. Base sees a session's images only; with a memory the
same method is Naive Rehearsal; with ``restart`` and a scenario that has ``cumulative=True`` it is the upper bound of
every session (with ``joint=True`` of the last one alone).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mlcil.losses.classification import class_labels
from mlcil.methods.base import Method, SessionContext
from mlcil.models.network import IncrementalNetwork, build_network
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS


@METHODS.register_module()
class SingleLabelFinetune(Method):
    """Cross-entropy over the classes seen so far.

    Args:
        network: backbone with a linear head.
        restart: every session begins with new random weights (the upper bound of ABD's tables).
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    def __init__(
        self,
        network: IncrementalNetwork,
        restart: bool = False,
        reference_batch: int = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.restart = restart

    def begin_session(self, context: SessionContext) -> None:
        super().begin_session(context)
        if self.restart and context.index > 0:
            fresh = build_network(self.network.spec, self.network.classes_per_session)
            self.network.load_state_dict(fresh.state_dict())

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        logits_BC = at_least_float32(self.network(inputs).logits_BC)
        return {"loss_ce": F.cross_entropy(logits_BC, class_labels(targets))}
