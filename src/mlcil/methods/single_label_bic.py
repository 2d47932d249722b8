"""BiC: large scale incremental learning (Wu et al., CVPR 2019), as in ABD's tables.

Stage 1 trains on most of the session's images and the memory; stage 2 fits one scale and one shift to the new
classes' logits on the part that was held out, which is balanced.

Legend: B images, C classes seen so far, O old classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlcil.losses.classification import class_labels
from mlcil.losses.knowledge import soft_target_kd
from mlcil.methods.base import Method
from mlcil.methods.second_stage import SecondStage, run_second_stage
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS


def corrected(logits_BC: Tensor, corrections: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    """Apply alpha x + beta to the columns of every session that has a correction.

    Args:
        logits_BC: (B, C).
        corrections: (alpha, beta) of the sessions 1, 2, ...; session 0 has none, and the last ones may lack.
        sizes: classes of each session.
    """
    parts = list(torch.split(logits_BC, list(sizes), 1))
    for index, pair in enumerate(corrections, 1):
        if index < len(parts):
            parts[index] = pair[0] * parts[index] + pair[1]
    return torch.cat(parts, 1)


@METHODS.register_module()
class SingleLabelBiC(Method):
    """Cross-entropy and soft targets in the ratio of new to old classes; bias correction behind.

    Args:
        network: backbone with a linear head.
        temperature: T of the soft targets.
        correct_predictions: predict with the corrected logits. ABD's release does not (its figures are of
            the raw ones), so that the corrections only shape the soft targets and later sessions.
        second: options of :class:`~mlcil.methods.second_stage.SecondStage`.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    uses_teacher = True
    second_stage = "held_out"
    memory_selections = ("herding_coreset", "nearest_coreset", "herding")

    def __init__(
        self,
        network: IncrementalNetwork,
        temperature: float = 2.0,
        correct_predictions: bool = False,
        second: dict[str, Any] | None = None,
        reference_batch: int = 64,
        teacher_autocast: bool = False,
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
        """Logits under the corrections that there are."""
        sizes = self.network.classes_per_session
        sessions = next(count for count in range(len(sizes) + 1) if sum(sizes[:count]) == logits_BC.shape[1])
        return corrected(logits_BC, [pair.to(logits_BC) for pair in self.corrections], sizes[:sessions])

    def finish_session(self, loader: Iterable[dict[str, Any]]) -> None:
        """Stage 2; the loader gives the images that were held out."""
        if self.teacher is None:
            return
        weight = next(self.network.parameters())
        pair = nn.Parameter(torch.tensor([1.0, 0.0]).to(weight))
        self.corrections.append(pair)
        run_second_stage(self, self.second, [pair], loader, self.corrected_loss)
        self.corrections[-1] = pair.detach()

    def corrected_loss(self, inputs: Tensor, labels_B: Tensor) -> Tensor:
        """Cross-entropy of the corrected logits."""
        return F.cross_entropy(self.correct(at_least_float32(self.network(inputs).logits_BC)), labels_B)

    def forward(  # type: ignore[override]
        self,
        inputs: Tensor,
        targets: Tensor | None = None,
        rows: Tensor | None = None,
        origins: Tensor | None = None,
        mode: str = "tensor",
    ) -> Any:
        output = super().forward(inputs, targets, rows, origins, mode)
        if mode == "predict" and self.correct_predictions:
            return self.correct(output[0]), output[1]
        return output

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
