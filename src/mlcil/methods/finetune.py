"""Fine-tuning: train on the new session as if there had been no old one. The lower bound."""

from __future__ import annotations

from torch import Tensor

from mlcil.methods.base import Method
from mlcil.registry import METHODS


@METHODS.register_module()
class Finetune(Method):
    """Asymmetric loss on the given labels; old classes count as absent wherever no label is given.

    This is the row "FT" of KRT's tables (ICCV 2023, Table 1): the plain network, no teacher, no
    pseudo-labels. With a scenario that has ``joint=True`` the same method is the upper bound.
    """

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"loss_cls": self.classification_loss(self.network(inputs).logits_BC, targets)}
