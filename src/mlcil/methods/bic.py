"""BiC: bias correction of the new columns.

Wu et al., "Large Scale Incremental Learning", CVPR 2019: distillation with a memory, then one scale and one
shift for all new columns, fitted on held-out images with old and new classes in balance.

    stage 1:  loss = (1 - r) * classification + r * distillation of the old columns,  r = old / seen
    stage 2:  new logits <- alpha * new logits + beta, with alpha and beta from the held-out images

The two forms share stage 1. Stage 2 of :class:`BiC`, the multi-label form (the adaptation behind KRT's row "BiC" is
not published; the choices are options), minimises the binary cross-entropy of the new columns (the only ones that alpha
and beta move) over the replayed held-out images and as many new ones; the linear layer absorbs alpha and beta, so that
teacher, checkpoint and next session have the corrected outputs. :class:`SingleLabelBiC`, the form of ABD's tables,
trains them by SGD on a balanced held-out part, and keeps every session's pair beside the network.

With many labels, a scale above 0 and a shift leave the order of a class's scores as it is, so stage 2 cannot change its
AP, nor the mAP of the session. It moves precision, recall and F1, and by the corrected teacher the next session.

Legend: B images, C classes seen so far, O old classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge
from mmengine.dist import all_gather_object
from torch import Tensor, nn

from mlcil.losses.criterion import MULTI_LABEL, SINGLE_LABEL
from mlcil.methods.base import Batch, Method, SessionContext
from mlcil.methods.second_stage import SecondStage, run_second_stage
from mlcil.models.heads import LinearHead
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32, corrected
from mlcil.phases import Batches, Fit, Phase, Train, UpdateMemory
from mlcil.registry import METHODS
from mlcil.schema import AboveZero, Count


class BiasCorrection(Method):
    """Stage 1 of both forms.

    Args:
        network: backbone with a linear head.
        temperature: of the distillation; 2 in the original.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    uses_teacher = True

    def __init__(
        self, network: IncrementalNetwork, temperature: AboveZero, reference_batch: Count, teacher_autocast: bool
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.temperature = temperature

    def first_stage_loss(self, logits_BC: Tensor, targets_BC: Tensor, old_BO: Tensor) -> dict[str, Tensor]:
        """Classification and distillation in the ratio of new to old classes."""
        old, seen = old_BO.shape[1], logits_BC.shape[1]
        share = old / seen
        kept = self.distil(logits_BC[:, :old], old_BO, self.temperature)
        return {"loss_cls": (1 - share) * self.classify(logits_BC, targets_BC), "loss_kd": share * kept}


@METHODS.register_module()
class BiC(BiasCorrection):
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

    own_criterion = MULTI_LABEL

    def __init__(
        self,
        network: IncrementalNetwork,
        held_out: Annotated[int, Ge(2)] = 10,
        temperature: AboveZero = 2.0,
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, temperature, reference_batch, teacher_autocast)
        if not isinstance(network.head, LinearHead):
            raise ValueError("BiC needs network.head.type='linear'")
        self.held_out = held_out
        self.correction: dict[str, float] = {}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits_BC, targets_BC = self.network(batch.inputs).logits_BC, self.targets(batch)
        if self.teacher is None:
            return {"loss_cls": self.classify(logits_BC, targets_BC)}
        kept = batch.rows % self.held_out != 0
        old_BO = self.teacher_output(batch.inputs).logits_BC
        return self.first_stage_loss(logits_BC[kept], targets_BC[kept], old_BO[kept])

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


@METHODS.register_module()
class SingleLabelBiC(BiasCorrection):
    """Cross-entropy and soft targets in the ratio of new to old classes; bias correction behind.

    Args:
        network: backbone with a linear head.
        temperature: T of the soft targets.
        correct_predictions: predict with the corrected logits, in evaluation and in deployed checkpoints. ABD's
            release does not (its figures are of the raw ones), so that the corrections only shape the soft targets
            and later sessions.
        second: options of :class:`~mlcil.methods.second_stage.SecondStage`.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    own_criterion = SINGLE_LABEL
    memory_selections = ("herding_coreset", "nearest_coreset", "herding")

    def __init__(
        self,
        network: IncrementalNetwork,
        temperature: AboveZero = 2.0,
        correct_predictions: bool = False,
        second: Annotated[dict[str, Any] | None, SecondStage] = None,
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, temperature, reference_batch, teacher_autocast)
        self.correct_predictions = correct_predictions
        self.second = SecondStage(**(second or {}))
        self.corrections: list[Tensor] = []  # (alpha, beta) of the sessions 1, 2, ...

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits_BC = self.correct(at_least_float32(self.network(batch.inputs).logits_BC))
        if self.teacher is None:
            return {"loss_cls": self.classify(logits_BC, batch.targets)}
        old_BO = self.correct(self.teacher_output(batch.inputs).logits_BC)
        return self.first_stage_loss(logits_BC, batch.targets, old_BO)

    def correct(self, logits_BC: Tensor) -> Tensor:
        """Logits (B, C), or those of the old classes alone, under the corrections that there are."""
        if not self.corrections:
            return logits_BC
        table_C2 = correction_table(self.corrections, self.network.classes_per_session)
        return corrected(logits_BC, table_C2[: logits_BC.shape[1]])

    def phases(self, session: SessionContext) -> list[Phase]:
        second = [Fit(self.fit_correction, on="held_out")] if self.teacher is not None else []
        return [Train(), *second, UpdateMemory()]

    def hold_out(self, targets_NC: np.ndarray, exemplars_MC: np.ndarray, low: int) -> np.ndarray:
        """A tenth of the memory and as many images of each new class, see :func:`held_out`."""
        return np.concatenate(held_out(targets_NC.argmax(1), exemplars_MC.argmax(1), low))

    def fit_correction(self, loader: Batches) -> None:
        """Stage 2 on the images that were held out."""
        weight = next(self.network.parameters())
        pair = nn.Parameter(torch.tensor([1.0, 0.0]).to(weight))
        self.corrections.append(pair)
        run_second_stage(self, self.second, [pair], loader, self.corrected_loss)
        self.corrections[-1] = pair.detach()

    def corrected_loss(self, inputs: Tensor, labels_B: Tensor) -> Tensor:
        """Cross-entropy of the corrected logits."""
        return F.cross_entropy(self.correct(at_least_float32(self.network(inputs).logits_BC)), labels_B)

    def logit_correction(self) -> Tensor | None:
        if not (self.correct_predictions and self.corrections):
            return None
        sizes = self.network.classes_per_session
        return correction_table([pair.detach() for pair in self.corrections], sizes)

    def method_state(self) -> dict[str, Any]:
        return {"corrections": [pair.detach().clone() for pair in self.corrections]}

    def load_method_state(self, state: dict[str, Any]) -> None:
        weight = next(self.network.parameters())
        self.corrections = [pair.to(weight) for pair in state["corrections"]]

    def session_report(self) -> dict[str, Any]:
        if not self.corrections:
            return {}
        alpha, beta = self.corrections[-1].tolist()
        return {"correction": {"alpha": alpha, "beta": beta}}


def correction_table(corrections: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Scale and shift of every class, (C, 2).

    Args:
        corrections: (alpha, beta) of the sessions 1, 2, ...; session 0 has none, and the last ones may lack.
        sizes: classes of each session.
    """
    none = corrections[0].new_tensor([1.0, 0.0])
    pairs = [none, *corrections, *[none] * len(sizes)]
    return torch.cat([pair.expand(size, 2) for pair, size in zip(pairs, sizes, strict=False)])


def held_out(labels_N: np.ndarray, memory_M: np.ndarray, low: int) -> tuple[np.ndarray, np.ndarray]:
    """What BiC's second stage takes from the training images of a session and from the memory.

    ``k = floor(floor(0.1 M) / old classes)`` images of every class, the first ones in the given order.

    Args:
        labels_N: classes of the session's new images.
        memory_M: classes of the memory's images.
        low: number of old classes.

    Returns:
        Masks (N,) and (M,): True for what is held out.
    """
    count = int(0.1 * len(memory_M)) // low
    return _first_of_each(labels_N, count), _first_of_each(memory_M, count)


def _first_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    mask = np.zeros(len(labels), bool)
    for c in np.unique(labels):
        mask[np.flatnonzero(labels == c)[:count]] = True
    return mask
