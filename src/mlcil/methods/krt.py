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
from typing import Annotated, Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, all_reduce
from mmengine.logging import print_log
from torch import Tensor

from mlcil.losses.criterion import MULTI_LABEL
from mlcil.losses.distillation import one_minus_cosine
from mlcil.methods.base import Batch, Method, SessionContext, check_choice
from mlcil.methods.pseudo_labels import (
    SearchResult,
    ThresholdSearch,
    apply_pseudo_labels,
    mean_score_of_positives,
    quantile_thresholds,
    search_threshold_from_count,
    sorted_counter,
)
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.phases import Batches, Fit, Phase, Train, UpdateMemory
from mlcil.registry import METHODS
from mlcil.schema import Count, Weight

#: attributes that the next session, or a resumed run, needs
STATE = (
    "threshold",
    "labels_per_image",
    "mean_scores",
    "positives",
    "images",
    "class_thresholds",
    "aimed_at",
    "reached",
)


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
        recall: how many old labels are restored: ``krt`` (the paper: one threshold, searched so that old labels
            per image meet the data set's label cardinality), ``class`` (one threshold a class: its mean
            score over its positives when the session that introduced it ends, as later methods do), or
            ``quantile`` (one a class: as large a share of the images as the class has had positives among
            all images so far).
        freeze_old: freeze the KR tokens and classifiers of earlier sessions.
        reference_batch: see :class:`~mlcil.methods.base.Method`.
        teacher_autocast: false runs the teacher in float32 as the release does, so that training labels by the very
            scores that the threshold was searched on.
    """

    uses_teacher = True
    own_criterion = MULTI_LABEL

    def __init__(
        self,
        network: IncrementalNetwork,
        token_weight: Weight = 100.0,
        pseudo_labels: bool = True,
        dynamic: bool = True,
        search: Annotated[dict[str, Any] | None, ThresholdSearch] = None,
        recall: str = "krt",
        freeze_old: bool = True,
        reference_batch: Count = 64,
        teacher_autocast: bool = False,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        self.token_weight = token_weight
        self.pseudo_labels = pseudo_labels
        self.dynamic = dynamic
        self.search = ThresholdSearch(**(search or {}))
        self.recall = check_choice("recall", recall, ("krt", "class", "quantile"))
        self.freeze_old = freeze_old
        self.threshold = self.search.start  # carried from session to session, as in the official code
        self.result: SearchResult | None = None
        self.labels_per_image: list[float] = []  # given labels per image of each session so far
        self.mean_scores: list[float] = []  # per class, of its positives; recall 'class'
        self.positives: list[float] = []  # per class, in the session that introduced it; recall 'quantile'
        self.images: list[int] = []  # images of each session so far
        self.class_thresholds: list[float] = []  # per old class in the running session; empty with 'krt'
        self.aimed_at: float | None = None
        self.reached: float | None = None
        self._decided: tuple[np.ndarray, np.ndarray] | None = None

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

    def phases(self, session: SessionContext) -> list[Phase]:
        after = [] if self.recall == "krt" else [Fit(self.count_positives)]
        return [Fit(self.choose_thresholds), Train(), *after, UpdateMemory()]

    def choose_thresholds(self, loader: Batches) -> None:
        """Choose the threshold, or the thresholds, from the teacher's scores of the training images."""
        self.class_thresholds, self._decided = [], None
        if self.teacher is None or not self.pseudo_labels:
            return
        logits, rows = [], []
        for batch in loader:
            data = self.data_preprocessor(batch)
            logits.append(self.teacher_output(data["inputs"]).logits_BC.float().cpu())
            rows.append(torch.as_tensor(batch.get("rows", [])).cpu())
        logits_NO = torch.cat(logits)
        if self.recall == "krt":
            if self.dynamic:
                self.search_threshold(logits_NO)
        else:
            self.choose_class_thresholds(logits_NO)
        fires_NO = torch.sigmoid(logits_NO) > self.threshold_now
        images = sum_over_processes(len(logits_NO))
        self.reached = sum_over_processes(int(fires_NO.sum())) / images
        if sum(map(len, rows)) == len(logits_NO):
            self._decided = torch.cat(rows).numpy().astype(np.int64), fires_NO.numpy()

    def search_threshold(self, logits_NO: Tensor) -> None:
        """The threshold whose pseudo-labels per image come within ``band`` of the target (section 3.3)."""
        count_here = sorted_counter(logits_NO)
        self.result = search_threshold_from_count(
            lambda threshold: sum_over_processes(count_here(threshold)),
            sum_over_processes(len(logits_NO)),
            self.target_count,
            self.search,
            start=self.threshold,
        )
        self.threshold, self.aimed_at = self.result.threshold, self.result.target
        if not self.result.landed:
            print_log(
                f"DPL: no threshold gives {self.result.target:.3f} labels per image within {self.search.band}; "
                f"the nearest of {self.result.evaluations} tried is kept",
                logger="current",
                level=30,
            )

    def choose_class_thresholds(self, logits_NO: Tensor) -> None:
        """One threshold an old class, for recall ``class`` and ``quantile``."""
        assert self.context is not None
        low = self.context.low
        if self.recall == "class":
            self.class_thresholds, self.aimed_at = self.mean_scores[:low], None
            return
        # all processes decide by all images; the running session's images count among those so far
        logits_NO = torch.cat([part.cpu() for part in all_gather_object(logits_NO)])
        images = sum(self.images[: self.context.index]) + len(logits_NO)
        rates_O = torch.tensor(self.positives[:low]) / images
        self.class_thresholds = quantile_thresholds(logits_NO, rates_O).tolist()
        self.aimed_at = float(rates_O.sum())

    @property
    def threshold_now(self) -> float | Tensor:
        """The threshold for all old classes, or (O,) one a class."""
        return torch.tensor(self.class_thresholds) if self.class_thresholds else self.threshold

    def count_positives(self, loader: Batches) -> None:
        """What later sessions need to know of the session's classes: mean score and number of positives."""
        assert self.context is not None
        low = self.context.low
        logits_NC, targets_NC = self.predictions_of_new(loader)
        self.mean_scores = [*self.mean_scores[:low], *mean_score_of_positives(logits_NC, targets_NC).tolist()]
        self.positives = [*self.positives[:low], *(targets_NC == 1).sum(0).tolist()]
        self.images = [*self.images[: self.context.index], len(logits_NC)]

    def pseudo_label_decisions(self) -> tuple[np.ndarray, np.ndarray] | None:
        return self._decided

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert self.context is not None
        targets_BC, old = self.targets(batch), None
        if self.teacher is not None:
            old = self.teacher_output(batch.inputs)
            if self.pseudo_labels:
                targets_BC = apply_pseudo_labels(targets_BC, old.logits_BC, self.threshold_now)
        new = self.network(batch.inputs)
        losses = {"loss_cls": self.classify(new.logits_BC, targets_BC)}
        if old is not None and self.token_weight > 0:
            assert old.tokens_BSD is not None, "KRT needs an ICA head"
            assert new.tokens_BSD is not None
            # sqrt(high / step) * lambda * (1 - cos) over the old sessions' tokens (section 3.4)
            similarity = token_loss(old.tokens_BSD, at_least_float32(new.tokens_BSD[:, :-1]))
            losses["loss_token"] = self.token_weight * self.context.growth * similarity
        return losses

    def method_state(self) -> dict[str, Any]:
        state = {name: getattr(self, name) for name in STATE}
        return {**state, "result": dataclasses.asdict(self.result) if self.result is not None else None}

    def load_method_state(self, state: dict[str, Any]) -> None:
        for name in STATE:
            if name in state:
                setattr(self, name, state[name])
        self.result = SearchResult(**state["result"]) if state["result"] is not None else None

    def session_report(self) -> dict[str, Any]:
        if self.reached is None or self.teacher is None:
            return {}
        report: dict[str, Any] = {"target": self.aimed_at, "reached": self.reached}
        thresholds = self.class_thresholds or [self.threshold]
        report["threshold"] = sum(thresholds) / len(thresholds)
        if self.result is not None:
            report.update(reached=self.result.reached, evaluations=self.result.evaluations, landed=self.result.landed)
        if self.class_thresholds:
            report["per_class"] = list(self.class_thresholds)
        return {"dpl": {**report, "mode": self.recall}}


def sum_over_processes(count: int) -> int:
    """The sum of a count over all processes."""
    total = torch.tensor(count, dtype=torch.int64)
    all_reduce(total)
    return int(total)


def token_loss(old_tokens_BOD: Tensor, new_tokens_BOD: Tensor) -> Tensor:
    """Token distillation: mean over the batch of 1 - cos of the concatenated tokens.

    One cosine over all old sessions' tokens at once. No gradient flows to the old tokens.

    Args:
        old_tokens_BOD: the teacher's session embeddings (B, O, D), of O old sessions.
        new_tokens_BOD: the same sessions' embeddings of the new network (B, O, D).

    Returns:
        Scalar in [0, 2]; half precision is promoted to float32.
    """
    return one_minus_cosine(old_tokens_BOD.flatten(1), new_tokens_BOD.flatten(1))
