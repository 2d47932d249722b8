"""BiC: large scale incremental learning (Wu et al., CVPR 2019), as in ABD's tables.

Stage 1 trains on most of the session's images and the memory; stage 2 fits one scale and one shift to the new
classes' logits on the part that was held out, which is balanced.

Legend: B images, C classes seen so far, O old classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlcil.losses.classification import class_labels
from mlcil.losses.knowledge import soft_target_kd
from mlcil.methods.base import Method, SessionContext, corrected
from mlcil.methods.second_stage import SecondStage, run_second_stage
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.phases import Batches, Fit, Phase, Train, UpdateMemory
from mlcil.registry import METHODS


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


@METHODS.register_module()
class SingleLabelBiC(Method):
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

    uses_teacher = True
    memory_selections = ("herding_coreset", "nearest_coreset", "herding")

    def __init__(
        self,
        network: IncrementalNetwork,
        temperature: float = 2.0,
        correct_predictions: bool = False,
        second: dict[str, Any] | None = None,
        reference_batch: int = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.temperature, self.correct_predictions = temperature, correct_predictions
        self.second = SecondStage(**(second or {}))
        self.corrections: list[Tensor] = []  # (alpha, beta) of the sessions 1, 2, ...

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        labels_B = class_labels(targets)
        logits_BC = self.correct(at_least_float32(self.network(inputs).logits_BC))
        if self.teacher is None:
            return {"loss_ce": F.cross_entropy(logits_BC, labels_B)}
        return self.first_stage_loss(logits_BC, labels_B, self.correct(self.teacher_output(inputs).logits_BC))

    def first_stage_loss(self, logits_BC: Tensor, labels_B: Tensor, old_BO: Tensor) -> dict[str, Tensor]:
        """The losses of stage 1 on corrected logits of the network and of the teacher."""
        old = old_BO.shape[1]
        share = old / logits_BC.shape[1]  # lambda
        kept = soft_target_kd(logits_BC[:, :old], old_BO, self.temperature)
        cost = F.cross_entropy(logits_BC, labels_B)
        return {"loss_ce": (1 - share) * cost, "loss_kd": share * kept}

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
