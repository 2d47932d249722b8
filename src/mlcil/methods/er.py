"""ER: experience replay.

Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", 2019: train on new and stored images
together, nothing else.

Multi-label form (row "ER" of KRT's tables; its adaptation is not published, the choices are options): the
stored images are mixed into the session's images, as KRT-R does it, instead of one stored batch beside every
new batch. A stored image carries the labels that ``memory.labels`` grants it; on a new image old classes
count as absent, as in fine-tuning, or are not judged.
"""

from __future__ import annotations

from torch import Tensor

from mlcil.methods.base import Method, check_choice
from mlcil.models.network import IncrementalNetwork
from mlcil.registry import METHODS


@METHODS.register_module()
class ER(Method):
    """Asymmetric loss on new and replayed images.

    Args:
        network: backbone with a linear head.
        old_labels: what a new image says of old classes: ``absent`` or ``ignored``.
        reference_batch: see :class:`~mlcil.methods.base.Method`.
    """

    memory_selections = ("reservoir", "random", "herding")

    def __init__(self, network: IncrementalNetwork, old_labels: str = "absent", reference_batch: int = 64) -> None:
        super().__init__(network, reference_batch)
        self.old_labels = check_choice("old_labels", old_labels, ("absent", "ignored"))

    def batch_loss(self, inputs: Tensor, targets: Tensor, rows: Tensor, origins: Tensor) -> dict[str, Tensor]:
        if self.old_labels == "ignored":
            targets = self.without_old_columns(targets, origins)
        return {"loss_cls": self.classification_loss(self.network(inputs).logits_BC, targets)}
