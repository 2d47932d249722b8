"""BiC: bias correction of the new columns.

Wu et al., "Large Scale Incremental Learning", CVPR 2019: distillation with a memory, then one scale and one
shift for all new columns, fitted on held-out images with old and new classes in balance.

    stage 1:  loss = (1 - r) * ASL(all columns) + r * BCE(teacher's scores, old columns),  r = old / seen
    stage 2:  new logits <- alpha * new logits + beta, with alpha and beta from the held-out images

Multi-label form (the adaptation behind KRT's row "BiC" is not published; the choices are options): stage 2
minimises the binary cross-entropy of the new columns (the only ones that alpha and beta move) over the
replayed held-out images and as many new ones. The linear layer absorbs alpha and beta, so that teacher,
checkpoint and next session have the corrected outputs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather_object
from torch import Tensor

from mlcil.losses.distillation import sigmoid_distillation
from mlcil.methods.base import Method, SessionContext
from mlcil.models.heads import LinearHead
from mlcil.models.network import IncrementalNetwork
from mlcil.phases import Batches, Fit, Phase, Train, UpdateMemory
from mlcil.registry import METHODS


@METHODS.register_module()
class BiC(Method):
    """Distillation and replay, then a scale and a shift for the new columns.

    Args:
        network: backbone with a linear head.
        held_out: an image whose row number divides by this is kept for stage 2 and has no loss in stage 1
            (10 in the original, a tenth).
        temperature: of the distillation; 2 in the original.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.

    Raises:
        ValueError: another head.
    """

    uses_teacher = True

    def __init__(
        self,
        network: IncrementalNetwork,
        held_out: int = 10,
        temperature: float = 2.0,
        reference_batch: int = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        if not isinstance(network.head, LinearHead):
            raise ValueError("BiC needs network.head.type='linear'")
        self.held_out, self.temperature = held_out, temperature
        self.correction: dict[str, float] = {}

    def batch_loss(self, inputs: Tensor, targets: Tensor, rows: Tensor, origins: Tensor) -> dict[str, Tensor]:
        assert self.context is not None
        logits_BC = self.network(inputs).logits_BC
        if self.teacher is None:
            return {"loss_cls": self.classification_loss(logits_BC, targets)}
        low = self.context.low
        share = low / self.context.high
        kept = rows % self.held_out != 0
        targets = targets.masked_fill(~kept[:, None], -1)
        old_BO = self.teacher_output(inputs).logits_BC
        distilled = sigmoid_distillation(old_BO[kept], logits_BC[kept, :low], self.temperature)
        return {
            "loss_cls": (1 - share) * self.classification_loss(logits_BC, targets),
            "loss_distill": share * self.sum_scale * distilled,
        }

    def phases(self, session: SessionContext) -> list[Phase]:
        return [Train(), Fit(self.fit_correction), UpdateMemory()]

    @torch.no_grad()
    def fit_correction(self, loader: Batches) -> None:
        """Fit alpha and beta, and fold them into the classifier's new rows."""
        assert self.context is not None
        self.correction = {}
        if self.teacher is None:
            return
        found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        was_training = self.training
        self.eval()
        for batch in loader:
            data = self.data_preprocessor(batch)
            kept = data["rows"] % self.held_out == 0
            if kept.any():
                logits_BC = self.network(data["inputs"][kept]).logits_BC.double().cpu()
                parts = (data["targets"], data["rows"], data["origins"])
                found.append((logits_BC, *(part[kept].cpu() for part in parts)))  # type: ignore[arg-type]
        self.train(was_training)
        found = [batch for part in all_gather_object(found) for batch in part]
        if not found:
            return
        logits, targets, rows, origins = (torch.cat(parts) for parts in zip(*found, strict=True))
        replayed = origins < self.context.index
        order = torch.argsort(rows[~replayed], stable=True)[: int(replayed.sum())]
        if not len(order):
            return  # nothing old was held out
        picked = torch.cat([torch.nonzero(replayed).flatten(), torch.nonzero(~replayed).flatten()[order]])
        alpha, beta = fit_scale_and_shift(logits[picked], targets[picked], self.context.low)
        layer = self.network.head.linear
        assert isinstance(layer, torch.nn.Linear)
        layer.weight[self.context.low :] *= alpha
        layer.bias[self.context.low :] = alpha * layer.bias[self.context.low :] + beta
        self.correction = {"alpha": alpha, "beta": beta, "images": float(len(picked))}

    def method_state(self) -> dict[str, Any]:
        return {"correction": dict(self.correction)}

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.correction = dict(state["correction"])

    def session_report(self) -> dict[str, Any]:
        return {"bias_correction": dict(self.correction)} if self.correction else {}


def fit_scale_and_shift(logits_NC: Tensor, targets_NC: Tensor, low: int) -> tuple[float, float]:
    """Find the alpha and beta that minimise the binary cross-entropy when columns from ``low`` on are corrected.

    The objective is convex in both; entries with a negative target are left out.

    Args:
        logits_NC: (N, C) float64.
        targets_NC: (N, C), 1, 0 or -1.
        low: first new column.
    """
    new = logits_NC[:, low:]
    kept = targets_NC[:, low:] >= 0
    if not kept.any():
        return 1.0, 0.0
    x, y = new[kept], targets_NC[:, low:][kept].to(new)
    with torch.enable_grad():
        pair = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
        solver = torch.optim.LBFGS([pair], max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            solver.zero_grad()
            # a weak pull to (1, 0) keeps separable scores finite
            cost = F.binary_cross_entropy_with_logits(pair[0] * x + pair[1], y)
            cost = cost + 1e-3 * ((pair[0] - 1).square() + pair[1].square())
            cost.backward()  # type: ignore[no-untyped-call]
            return cost

        solver.step(closure)  # type: ignore[no-untyped-call]
    alpha, beta = pair.detach().tolist()
    return alpha, beta
