"""DER++: dark experience replay.

Buzzega et al., "Dark Experience for General Continual Learning", NeurIPS 2020: a stored image keeps the
logits that the network gave it when it was stored, and is trained to give them again, beside its labels.

    loss = ASL(new images) + alpha * MSE(stored logits, logits) + beta * ASL(replayed images)

Multi-label form (row "DER++" of KRT's tables; its adaptation is not published): logits are those before the
sigmoid, for the classes seen then, and the mean squared error is over those columns. The losses are sums over the
images that they concern.

In the paper a reservoir takes images in while it trains, so a stored image entered it in an epoch that is as likely as
any other, with the logits of that step. Here the memory decides when the session ends, and the logits of a new image
are those of the step that trained on it in an epoch drawn for it. An image that no step of that epoch saw (held out, or
in a last batch that is dropped) has those of the trained network, test transforms. Under several processes this also
holds for what processes besides the first had seen of a session before the run was stopped inside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object
from torch import Tensor

from mlcil.methods.base import Batch, Method, SessionContext
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS
from mlcil.schema import Count, Weight


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
        self, network: IncrementalNetwork, alpha: Weight = 1.0, beta: Weight = 1.0, reference_batch: Count = 64
    ) -> None:
        super().__init__(network, reference_batch)
        self.alpha, self.beta = alpha, beta
        self.stored: dict[int, Tensor] = {}  # row -> logits (classes seen when stored,)
        self.entered: dict[int, Tensor] = {}  # the same of the running session's images, whether they are stored or not
        self.epoch = -1  # the running one of the session

    def begin_session(self, context: SessionContext) -> None:
        super().begin_session(context)
        self.entered, self.epoch = {}, -1

    def begin_epoch(self) -> None:
        self.epoch += 1

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert self.context is not None
        logits_BC = at_least_float32(self.network(batch.inputs).logits_BC)
        targets_BC, replayed = self.targets(batch), batch.origins < self.context.index
        self.enter(logits_BC[~replayed], batch.rows[~replayed])
        losses = {"loss_cls": self.classify(logits_BC[~replayed], targets_BC[~replayed])}
        if replayed.any():
            losses["loss_replay"] = self.beta * self.classify(logits_BC[replayed], targets_BC[replayed])
            losses["loss_logits"] = (
                self.alpha * self.sum_scale * self.logit_distance(logits_BC[replayed], batch.rows[replayed])
            )
        return losses

    def enter(self, logits_NC: Tensor, rows: Tensor) -> None:
        """Keep the logits of the new images whose epoch it is; every process has those of all, since one saves them."""
        assert self.context is not None
        session, epochs = self.context.index, self.context.epochs
        found: dict[int, Tensor] = {}
        for logits_C, row in zip(logits_NC.detach().float().cpu(), rows.tolist(), strict=True):
            if row < 0 or row in self.entered:
                continue
            if np.random.default_rng((session, row)).integers(epochs) == self.epoch:
                found[row] = logits_C.clone()
        for part in all_gather_object(found):
            self.entered.update(part)

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
            known = self.entered.get(row)
            self.stored[row] = torch.from_numpy(np.array(logits, np.float32)) if known is None else known
        self.entered = {}

    def method_state(self) -> dict[str, Any]:
        logits = list(self.entered.values())  # as one tensor, since a file has an entry for each
        entered = {"rows": list(self.entered), "logits_NC": torch.stack(logits) if logits else torch.zeros(0, 0)}
        return {"stored": dict(self.stored), "entered": entered, "epoch": self.epoch}

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.stored = {int(row): logits for row, logits in state["stored"].items()}
        self.epoch = int(state.get("epoch", self.epoch))
        entered = state.get("entered", {"rows": [], "logits_NC": []})
        found = zip(entered["rows"], entered["logits_NC"], strict=True)
        self.entered = {int(row): logits_C.clone() for row, logits_C in found}

    def state_bytes(self) -> dict[str, int]:
        found = super().state_bytes()
        found["logits"], found["statistics"] = found["statistics"], 0
        return found
