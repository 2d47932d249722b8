"""DER++: dark experience replay.

Buzzega et al., "Dark Experience for General Continual Learning", NeurIPS 2020: a stored image keeps the
logits that the network gave it when it was stored, and is trained to give them again, beside its labels.

    loss = ASL(new images) + alpha * MSE(stored logits, logits) + beta * ASL(replayed images)

Multi-label form (row "DER++" of KRT's tables; its adaptation is not published): logits are those before the
sigmoid, at the end of the session that stored the image, test transforms, for the classes seen then; the mean
squared error is over those columns. The replayed images are mixed into the session's batches; the losses are
sums over the images that they concern.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlcil.methods.base import Batch, Method
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS


@METHODS.register_module()
class DERpp(Method):
    """Replay of labels and of logits.

    Args:
        network: backbone with a linear head.
        alpha: factor of the logit term.
        beta: factor of the replayed images' classification loss.
        reference_batch: see :class:`~mlcil.methods.base.Method`.
    """

    memory_selections = ("reservoir", "random", "herding")

    def __init__(
        self, network: IncrementalNetwork, alpha: float = 1.0, beta: float = 1.0, reference_batch: int = 64
    ) -> None:
        super().__init__(network, reference_batch)
        self.alpha, self.beta = alpha, beta
        self.stored: dict[int, Tensor] = {}  # row -> logits (classes seen when stored,)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert self.context is not None
        logits_BC = at_least_float32(self.network(batch.inputs).logits_BC)
        targets_BC, replayed = self.targets(batch), batch.origins < self.context.index
        losses = {"loss_cls": self.classify(logits_BC[~replayed], targets_BC[~replayed])}
        if replayed.any():
            losses["loss_replay"] = self.beta * self.classify(logits_BC[replayed], targets_BC[replayed])
            losses["loss_logits"] = (
                self.alpha * self.sum_scale * self.logit_distance(logits_BC[replayed], batch.rows[replayed])
            )
        return losses

    def logit_distance(self, logits_RC: Tensor, rows: Tensor) -> Tensor:
        """Sum over the images of the mean squared distance to their stored logits."""
        distances = []
        for logits_C, row in zip(logits_RC, rows.tolist(), strict=True):
            stored = self.stored[row].to(logits_C)
            distances.append((logits_C[: len(stored)] - stored).square().mean())
        return torch.stack(distances).sum()

    def remember(self, rows: np.ndarray, logits_MC: np.ndarray, kept: np.ndarray) -> None:
        still = set(kept.tolist())
        self.stored = {row: logits for row, logits in self.stored.items() if row in still}
        for row, logits in zip(rows.tolist(), logits_MC, strict=True):
            self.stored[int(row)] = torch.from_numpy(np.array(logits, np.float32))

    def method_state(self) -> dict[str, Any]:
        return {"stored": dict(self.stored)}

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.stored = {int(row): logits for row, logits in state["stored"].items()}

    def state_bytes(self) -> dict[str, int]:
        found = super().state_bytes()
        found["logits"], found["statistics"] = found["statistics"], 0
        return found
