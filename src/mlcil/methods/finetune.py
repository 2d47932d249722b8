"""Fine-tuning: train on the session's images, and on the memory's if there is one; nothing else.

Without a memory this is the lower bound: the row "FT" of KRT's tables (ICCV 2023, Table 1), "Base" of ABD's (Smith et
al., ICCV 2021, whose release calls it NormalNN). With a scenario that has ``joint=True`` it is the upper bound; with
``cumulative=True`` and ``restart`` it is the upper bound of every session of ABD's tables. With a memory it is
rehearsal, and only the memory tells these apart:

* ER, experience replay (Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", 2019), and ABD's "Naive
  Rehearsal";
* PRS (Kim, Jeong, Kim, "Imbalanced Continual Learning with Partitioning Reservoir Sampling", ECCV 2020);
* OCDM (Liang and Li, "Optimizing Class Distribution in Memory for Multi-Label Online Continual Learning", 2022).

The multi-label forms of these rows of KRT's tables are not published. Here stored images are mixed into the session's
images, as KRT-R does it, instead of one stored batch beside every new one, and carry the labels that ``memory.labels``
grants them. PRS and OCDM are online methods that see every image once; here they get the epochs that every method
gets, and the memory streams over a session's images once, when the session ends.
"""

from __future__ import annotations

from torch import Tensor

from mlcil.methods.base import Batch, Method, SessionContext, check_choice
from mlcil.models.network import IncrementalNetwork, build_network
from mlcil.registry import METHODS
from mlcil.schema import Count


@METHODS.register_module()
class Finetune(Method):
    """The classification loss over the classes seen so far, on new and replayed images alike.

    Args:
        network: any backbone and head.
        restart: every session begins with new random weights (the upper bound of ABD's tables); a frozen backbone
            keeps its own.
        old_labels: what a new image says of old classes: ``absent``, or ``ignored``, nothing.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    def __init__(
        self,
        network: IncrementalNetwork,
        restart: bool = False,
        old_labels: str = "absent",
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.restart = restart
        self.old_labels = check_choice("old_labels", old_labels, ("absent", "ignored"))

    def begin_session(self, context: SessionContext) -> None:
        super().begin_session(context)
        if self.restart and context.index > 0:
            fresh = build_network(self.network.spec, self.network.classes_per_session)
            if self.network.frozen_backbone:
                self.network.head.load_state_dict(fresh.head.state_dict())
            else:
                self.network.load_state_dict(fresh.state_dict())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits_BC = self.network(batch.inputs).logits_BC
        return {"loss_cls": self.classify(logits_BC, self.targets(batch, self.old_labels))}
