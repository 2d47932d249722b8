"""E2E: end-to-end incremental learning (Castro et al., ECCV 2018), as in ABD's tables.

Stage 1 trains on the session's images and the memory, with one distillation per earlier session. Then the
memory takes in the new classes, and stage 2 trains the classifier alone on the memory, which is balanced.

Legend: B images, C classes seen so far, O old classes, N new classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlcil.errors import UserError
from mlcil.losses.classification import class_labels
from mlcil.losses.distillation import soft_target_kd
from mlcil.methods.base import Batch, Method, SessionContext
from mlcil.methods.second_stage import SecondStage, run_second_stage
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.phases import Batches, Fit, Phase, Train, UpdateMemory
from mlcil.registry import METHODS
from mlcil.schema import AboveZero, Count, Weight


@METHODS.register_module()
class E2E(Method):
    """Cross-entropy and per-session soft targets; balanced refinement of the classifier.

    Args:
        network: backbone with a linear head.
        mu: weight of the distillations.
        temperature: T of the soft targets.
        current_target: what stage 2 distils into the new classes' logits: ``official``, the OLD network's
            logits of its first N classes (a slip of the release, behind the figures of its tables), or
            ``intended``, those of the network as stage 1 left it.
        second: options of :class:`~mlcil.methods.second_stage.SecondStage`.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.

    Raises:
        ValueError: unknown ``current_target``.
        UserError: a session has more new than old classes and ``current_target`` is ``official``.
    """

    uses_teacher = True
    memory_selections = ("nearest_coreset", "herding_coreset", "herding")

    def __init__(
        self,
        network: IncrementalNetwork,
        mu: Weight = 1.0,
        temperature: AboveZero = 2.0,
        current_target: str = "official",
        second: Annotated[dict[str, Any] | None, SecondStage] = None,
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        if current_target not in ("official", "intended"):
            raise ValueError(f"current_target {current_target!r} is unknown; use 'official' or 'intended'")
        self.mu, self.temperature, self.current_target = mu, temperature, current_target
        self.second = SecondStage(**(second or {}))
        self._first_stage: list[IncrementalNetwork] = []  # in a list, so that it is no sub-module

    def begin_session(self, context: SessionContext) -> None:
        super().begin_session(context)
        if context.index > 0 and self.current_target == "official" and context.low < context.high - context.low:
            raise UserError(
                f"E2E's official stage 2 needs as many old as new classes, but session {context.index} has "
                f"{context.low} old and {context.high - context.low} new; set method.current_target='intended'"
            )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        logits_BC = at_least_float32(self.network(batch.inputs).logits_BC)
        losses = {"loss_ce": F.cross_entropy(logits_BC, class_labels(batch.targets))}
        if self.teacher is not None:
            old_BO = self.teacher_output(batch.inputs).logits_BC
            losses["loss_kd"] = self.mu * self.old_sessions_kd(logits_BC, old_BO, old_BO.shape[1])
        return losses

    def old_sessions_kd(self, logits_BC: Tensor, old_BO: Tensor, total: int) -> Tensor:
        """The distillations of the earlier sessions, each weighted by its classes over ``total``."""
        assert self.context is not None
        sizes = self.network.classes_per_session[: self.context.index]
        return sessions_kd(logits_BC, old_BO, sizes, total, self.temperature)

    def phases(self, session: SessionContext) -> list[Phase]:
        return [Train(), UpdateMemory(), *([Fit(self.balance, on="memory")] if self.teacher is not None else [])]

    def balance(self, loader: Batches) -> None:
        """Stage 2 on the memory's images."""
        if self.current_target == "intended":
            self._first_stage = [self.network.frozen_copy()]
        parameters = list(self.network.head.parameters())
        run_second_stage(self, self.second, parameters, loader, self.balanced_loss)
        self._first_stage = []

    def balanced_loss(self, inputs: Tensor, labels_B: Tensor) -> Tensor:
        """The scalar loss of stage 2."""
        assert self.context is not None
        low, high = self.context.low, self.context.high
        logits_BC = at_least_float32(self.network(inputs).logits_BC)
        old_BO = self.teacher_output(inputs).logits_BC
        target_BN = old_BO[:, : high - low]
        if self._first_stage:
            target_BN = self._first_stage[0](inputs).logits_BC[:, low:high]
        current = soft_target_kd(logits_BC[:, low:high], target_BN, self.temperature) * ((high - low) / high)
        kept = self.old_sessions_kd(logits_BC, old_BO, high)
        return F.cross_entropy(logits_BC, labels_B) + self.mu * (kept + current)


def sessions_kd(
    logits_BC: Tensor, teacher_BO: Tensor, sizes: Sequence[int], total: int, temperature: float = 2.0
) -> Tensor:
    """One :func:`soft_target_kd` per earlier session among its own classes, weighted by size / ``total`` (E2E).

    Args:
        logits_BC, teacher_BO: logits that begin with the earlier sessions' classes.
        sizes: classes of each earlier session.
        total: what the sizes are divided by.
    """
    terms = []
    low = 0
    for size in sizes:
        part = slice(low, low + size)
        terms.append(soft_target_kd(logits_BC[:, part], teacher_BO[:, part], temperature) * (size / total))
        low += size
    return torch.stack(terms).sum()
