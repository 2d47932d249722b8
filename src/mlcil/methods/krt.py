"""KRT: Knowledge Restore and Transfer for multi-label class-incremental learning.

Dong, Luo, He, Wei, Cheng, Gong, ICCV 2023 (arXiv 2302.13334). Follows the behaviour of the authors'
release with ICA (the "updated" archive), with these deviations, each a documented repair:

* one pseudo-label threshold over all processes, and the nearest threshold with a warning where the
  official search would raise (``search=dict(strict=True)`` raises);
* new tokens and classifiers are synchronised between processes like every other parameter;
* the summed classification loss is scaled by ``64 / batch_size``, which is 1 in the official setting;
* attention is computed once for all sessions (same numbers, see :mod:`mlcil.models.heads.ica`).

Legend: B images, C classes seen so far, O old classes, S sessions, D token width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.logging import print_log
from torch import Tensor

from mlcil.losses.asymmetric import asymmetric_loss
from mlcil.losses.distillation import token_loss
from mlcil.methods.base import Method, SessionContext
from mlcil.methods.pseudo_labels import (
    SearchResult,
    ThresholdSearch,
    apply_pseudo_labels,
    search_threshold_from_count,
    sorted_counter,
)
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.registry import METHODS


@METHODS.register_module()
class KRT(Method):
    """Dynamic pseudo-labels (DPL) restore the labels of old classes, token distillation transfers knowledge.

    Args:
        network: backbone with an ICA head.
        token_weight: lambda of the token loss; 100 on COCO B0 protocols, 300 on B40, 80 on VOC (released
            configs; the authors' recorded COCO runs used 80 and 300).
        pseudo_labels: give old-class labels where the teacher is sure (section 3.3); off for the ablation.
        dynamic: search the threshold per session; ``False`` keeps ``search.start``.
        search: start, step, band, max_evaluations and strict of the threshold search.
        freeze_old: freeze the KR tokens and classifiers of earlier sessions.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.
    """

    uses_teacher = True

    def __init__(
        self,
        network: IncrementalNetwork,
        token_weight: float = 100.0,
        pseudo_labels: bool = True,
        dynamic: bool = True,
        search: dict[str, Any] | None = None,
        freeze_old: bool = True,
        reference_batch: int = 64,
        teacher_autocast: bool = False,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.token_weight = token_weight
        self.pseudo_labels = pseudo_labels
        self.dynamic = dynamic
        self.search = ThresholdSearch(**(search or {}))
        self.freeze_old = freeze_old
        self.threshold = self.search.start  # carried from session to session, as in the official code
        self.result: SearchResult | None = None
        self.labels_per_image: list[float] = []  # given labels per image of each session so far

    def begin_session(self, context: SessionContext) -> None:
        super().begin_session(context)
        self.result = None
        self.labels_per_image = [*self.labels_per_image[: context.index], context.labels_per_image]

    def freeze(self) -> None:
        super().freeze()
        if self.freeze_old:
            self.network.head.freeze_old_sessions()  # type: ignore[operator]

    @property
    def target_count(self) -> float:
        """Old-class labels that an image should receive on average (section 3.3).

        The data set's label cardinality times the share of old classes: 2.9 * O / 80 on COCO, 1.4 * O / 20
        on VOC. Without a stated cardinality, the sum of what each earlier session's images carried.
        """
        assert self.context is not None
        if self.context.label_cardinality is None:
            return sum(self.labels_per_image[: self.context.index])
        return self.context.label_cardinality * self.context.low / self.context.num_classes

    def prepare_session(self, loader: Iterable[dict[str, Any]]) -> None:
        """Search the threshold whose pseudo-labels per image come within ``band`` of the target."""
        if self.teacher is None or not (self.pseudo_labels and self.dynamic):
            return
        logits = []
        for batch in loader:
            data = self.data_preprocessor(batch)
            logits.append(self.teacher_output(data["inputs"]).logits_BC.float().cpu())
        logits_NO = torch.cat(logits)
        count_here = sorted_counter(logits_NO)
        self.result = search_threshold_from_count(
            lambda threshold: sum_over_processes(count_here(threshold)),
            sum_over_processes(len(logits_NO)),
            self.target_count,
            self.search,
            start=self.threshold,
        )
        self.threshold = self.result.threshold
        if not self.result.landed:
            print_log(
                f"DPL: no threshold gives {self.result.target:.3f} labels per image within {self.search.band}; "
                f"the nearest of {self.result.evaluations} tried is kept",
                logger="current",
                level=30,
            )

    def loss(self, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        assert self.context is not None
        old = None
        if self.teacher is not None:
            old = self.teacher_output(inputs)
            if self.pseudo_labels:
                targets = apply_pseudo_labels(targets, old.logits_BC, self.threshold)
        new = self.network(inputs)
        losses = {"loss_cls": self.sum_scale * asymmetric_loss(at_least_float32(new.logits_BC), targets)}
        if old is not None and self.token_weight > 0:
            assert old.tokens_BSD is not None, "KRT needs an ICA head"
            assert new.tokens_BSD is not None
            # sqrt(high / step) * lambda * (1 - cos) over the old sessions' tokens (section 3.4)
            similarity = token_loss(old.tokens_BSD, at_least_float32(new.tokens_BSD[:, :-1]))
            losses["loss_token"] = self.token_weight * self.context.growth * similarity
        return losses

    def method_state(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "labels_per_image": list(self.labels_per_image),
            "result": dataclasses.asdict(self.result) if self.result is not None else None,
        }

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.threshold = float(state["threshold"])
        self.labels_per_image = [float(value) for value in state["labels_per_image"]]
        self.result = SearchResult(**state["result"]) if state["result"] is not None else None

    def session_report(self) -> dict[str, Any]:
        if self.result is None:
            return {}
        return {
            "dpl": {
                "target": self.result.target,
                "reached": self.result.reached,
                "threshold": self.result.threshold,
                "evaluations": self.result.evaluations,
                "landed": self.result.landed,
            }
        }


def sum_over_processes(count: int) -> int:
    """The sum of a count over all processes."""
    total = torch.tensor(count, dtype=torch.int64)
    all_reduce(total)
    return int(total)
