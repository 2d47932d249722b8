"""KBK: purified class features, confident recall of old labels, features of the unknown, and balanced gradients.

"Knowing Beyond the Known" (arXiv 2608.30316), and with ``purify="flat", recall="class", unknown="mix",
grad_comp=False`` its predecessor HCP (AAAI 2025, arXiv 2503.17017). Neither has released code. The model is
:mod:`mlcil.models.heads.kbk`; a session is

    begin   embeddings and rows of old classes are frozen, everything else trains
    before  (reports only) the teacher's labels of the session's images are counted
    train   asymmetric loss over the classes seen so far and "unknown", the mean over images and outputs; there is no
            distillation term. Exemplars, when a memory is there, join the batch.
    after   of every new class j, over its training positives: eps_j = mean p, tau_j = mean entropy h(p)

Recall of old labels: with the teacher's score p, an image whose label of class j nobody gave shows it where
``p >= eps_j and h(p) <= tau_j``. Unknown: of an image's features of present and absent classes,

    lambda_a ~ Beta(0.2, 0.2),  w_a = mean_p cos(o_p, o_a),  o_unk = sum_a lambda_a w_a o_a / sum_a lambda_a w_a

is scored by the newest session's rows and the unknown row, with the target "unknown". Compensation: an old class's cost
is weighted by ``g / mean g``, ``g = |p - y|``, with the mean over the batch and the classes of the same session, for
positives and negatives apart.

What the paper leaves open, and what is done here:

* eps and tau of a class are measured when its own session ends, and stay: later images come without its label;
* given labels are never overruled, neither those of exemplars nor "not judged";
* w_a is clamped at 0, and neither it nor the compensation's weights carry a gradient; features do;
* an image without present or absent classes, or of which no weight is above 0, makes no unknown feature;
* the unknown row is applied to the features of the newest session's classes, which are not unknown: its costs are
  averaged over these classes, one output of C + 1. Made features are C_t + 1 outputs with a mean of their own;
* means are over the images of a process.

Legend: B images, N images of a session, C classes seen, O old classes, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Gt, Lt
from mmengine.dist import all_gather_object
from torch import Tensor

from mlcil.losses.asymmetric import asymmetric_cost
from mlcil.losses.criterion import MULTI_LABEL
from mlcil.methods.base import Batch, Method, SessionContext, check_choice
from mlcil.methods.pseudo_labels import mean_over_positives
from mlcil.models.heads import KBKHead
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import at_least_float32
from mlcil.phases import Batches, Fit, Phase, Train, UpdateMemory
from mlcil.registry import METHODS

BETA = 0.2
#: thresholds of a class that no image has shown: a score never reaches the one, nor an entropy falls to the other
NEVER_SCORE, NEVER_ENTROPY = 2.0, -1.0


@METHODS.register_module()
class KBK(Method):
    """Knowing beyond the known; HCP by its options. ``network.head.purify`` is the fourth switch of the ablation.

    Args:
        network: a backbone with a ``kbk`` head.
        recall: which labels of old classes are restored: ``class+entropy`` (KBK), ``class`` (HCP: score alone),
            ``global`` (one threshold for all classes) or ``off``.
        threshold: of recall ``global``, in (0, 1); 0.8 and 0.9 in the paper's ablation.
        unknown: how features of the unknown are made: ``semantic`` (KBK), ``mix`` (HCP: all w_a are 1) or ``off``.
        grad_comp: weigh the costs of old classes.
        teacher_autocast: see :class:`~mlcil.methods.base.Method`.

    Raises:
        ValueError: another head or option, or unknown features without purified ones.
    """

    own_criterion = MULTI_LABEL

    def __init__(
        self,
        network: IncrementalNetwork,
        recall: str = "class+entropy",
        threshold: Annotated[float, Gt(0), Lt(1)] = 0.8,
        unknown: str = "semantic",
        grad_comp: bool = True,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, teacher_autocast=teacher_autocast)
        if not isinstance(network.head, KBKHead):
            raise ValueError("KBK needs network.head.type='kbk'")
        self.recall = check_choice("recall", recall, ("class+entropy", "class", "global", "off"))
        self.unknown = check_choice("unknown", unknown, ("semantic", "mix", "off"))
        if unknown != "off" and network.head.purify == "off":
            raise ValueError(
                f"unknown is {unknown!r}, but head.purify='off' has one feature for all classes; use 'off'"
            )
        self.threshold, self.grad_comp = threshold, grad_comp
        self.uses_teacher = recall != "off"
        self.needs_images = network.head.purify == "hier"
        self.scores_C, self.entropies_C = torch.zeros(0), torch.zeros(0)  # eps and tau
        self.reached: float | None = None  # labels of old classes that an image got
        self._decided: tuple[np.ndarray, np.ndarray] | None = None
        self._key: tuple[int, ...] = (0,)

    @property
    def head(self) -> KBKHead:
        """The network's head."""
        assert isinstance(self.network.head, KBKHead)
        return self.network.head

    def freeze(self) -> None:
        super().freeze()
        self.head.freeze_old_sessions()
        self.head.unknown.requires_grad_(self.unknown != "off")

    def phases(self, session: SessionContext) -> list[Phase]:
        before = [Fit(self.recall_labels)] if self.uses_teacher and session.index else []
        after = [Fit(self.measure_positives)] if self.recall.startswith("class") else []
        return [*before, Train(change=self.take_key), *after, UpdateMemory()]

    def take_key(self, batch: dict[str, Any], key: tuple[int, ...]) -> None:
        """The key of the step's draws."""
        del batch
        self._key = key

    # -- labels of old classes -------------------------------------------------------------------------

    def recalled(self, old_logits_BO: Tensor) -> Tensor:
        """Teacher's logits (B, O) -> where it is sure of a label, (B, O) bool."""
        score_BO = torch.sigmoid(at_least_float32(old_logits_BO))
        if self.recall == "global":
            return score_BO >= self.threshold
        old = score_BO.shape[1]
        sure_BO = score_BO >= self.scores_C[:old].to(score_BO)
        if self.recall == "class+entropy":
            sure_BO &= binary_entropy(score_BO) <= self.entropies_C[:old].to(score_BO)
        return sure_BO

    def recall_labels(self, loader: Batches) -> None:
        """Count the labels that the session begins with, for reports; training restores them batch by batch."""
        fires, rows = [], []
        for batch in loader:
            data = self.data_preprocessor(batch)
            fires.append(self.recalled(self.teacher_output(data["inputs"]).logits_BC).cpu())
            rows.append(torch.as_tensor(batch.get("rows", [])).cpu())
        fires_NO = torch.cat(fires)
        counts = all_gather_object((int(fires_NO.sum()), len(fires_NO)))
        self.reached = sum(made for made, _ in counts) / sum(images for _, images in counts)
        self._decided = None
        if sum(map(len, rows)) == len(fires_NO):
            self._decided = torch.cat(rows).numpy().astype(np.int64), fires_NO.numpy()

    def pseudo_label_decisions(self) -> tuple[np.ndarray, np.ndarray] | None:
        return self._decided

    def measure_positives(self, loader: Batches) -> None:
        """Take eps and tau of the session's classes."""
        assert self.context is not None
        low = self.context.low
        logits_NC, targets_NC = self.predictions_of_new(loader)
        score_NC = torch.sigmoid(logits_NC)
        new_scores_C = mean_over_positives(score_NC, targets_NC, NEVER_SCORE)
        new_entropies_C = mean_over_positives(binary_entropy(score_NC), targets_NC, NEVER_ENTROPY)
        self.scores_C = torch.cat([self.scores_C[:low], new_scores_C])
        self.entropies_C = torch.cat([self.entropies_C[:low], new_entropies_C])

    # -- loss ------------------------------------------------------------------------------------------

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        assert self.context is not None
        low = self.context.low
        targets_BC = self.targets(batch)
        if self.teacher is not None:
            nobody_BO = (batch.targets[:, :low] < 0) & (targets_BC[:, :low] == 0)
            sure_BO = self.recalled(self.teacher_output(batch.inputs).logits_BC) & nobody_BO
            targets_BC = torch.cat([targets_BC[:, :low].masked_fill(sure_BO, 1.0), targets_BC[:, low:]], 1)
        output = self.network(batch.inputs)
        logits_BC = at_least_float32(output.logits_BC)
        cost_BC = asymmetric_cost(logits_BC, targets_BC)
        if self.grad_comp:
            sizes = self.network.classes_per_session[:-1]
            cost_BC = cost_BC * compensation(torch.sigmoid(logits_BC.detach()), targets_BC, sizes)
        if self.unknown == "off":
            return {"loss_cls": cost_BC.mean()}
        features_BCD = output.tokens_BSD
        assert features_BCD is not None
        known_BC = self.head.unknown(features_BCD[:, low:]).squeeze(2)
        real_BC = torch.cat([cost_BC, asymmetric_cost(known_BC, torch.zeros_like(known_BC)).mean(1, keepdim=True)], 1)
        return {"loss_cls": real_BC.mean(), "loss_unknown": self.unknown_loss(features_BCD, targets_BC)}

    def unknown_loss(self, features_BCD: Tensor, targets_BC: Tensor) -> Tensor:
        """Cost of the made features, the mean over them and their outputs."""
        shares_BC = torch.from_numpy(np.random.default_rng(self._key).beta(BETA, BETA, tuple(targets_BC.shape)))
        made_BD, is_made_B = unknown_features(
            features_BCD, targets_BC, shares_BC.to(targets_BC.device), self.unknown == "semantic"
        )
        logits_BA = self.head.plastic_logits(made_BD)
        target_BA = torch.zeros_like(logits_BA)
        target_BA[:, -1] = 1
        cost_B = asymmetric_cost(logits_BA, target_BA).mean(1)
        return (cost_B * is_made_B).sum() / is_made_B.sum().clamp(min=1)

    # -- state and report ------------------------------------------------------------------------------

    def method_state(self) -> dict[str, Any]:
        return {"scores_C": self.scores_C, "entropies_C": self.entropies_C, "reached": self.reached}

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.scores_C, self.entropies_C, self.reached = state["scores_C"], state["entropies_C"], state["reached"]

    def session_report(self) -> dict[str, Any]:
        if self.reached is None or self.teacher is None:
            return {}
        assert self.context is not None
        report: dict[str, Any] = {"reached": self.reached, "mode": self.recall}
        if self.recall == "global":
            return {"dpl": {**report, "threshold": self.threshold}}
        return {"dpl": {**report, "per_class": self.scores_C[: self.context.low].tolist()}}


def binary_entropy(scores: Tensor) -> Tensor:
    """``-p log p - (1 - p) log(1 - p)`` in nats; 0 where p is 0 or 1."""
    return torch.special.entr(scores) + torch.special.entr(1 - scores)


def compensation(scores_BC: Tensor, targets_BC: Tensor, sizes: Sequence[int]) -> Tensor:
    """Weights (B, C): of old classes ``g / mean g`` with ``g = |p - y|``, of the others 1.

    The mean is over the batch and the classes of one session, for positives and negatives apart.

    Args:
        scores_BC: p.
        targets_BC: y; negative ones are not judged, and their weight is 1.
        sizes: numbers of classes of the earlier sessions.
    """
    weights_BC = torch.ones_like(scores_BC)
    first = 0
    for size in sizes:
        part = slice(first, first + size)
        target, weight = targets_BC[:, part], weights_BC[:, part]
        gap = (scores_BC[:, part] - target).abs()
        for sign in (0, 1):
            chosen = target == sign
            mean = gap.masked_fill(~chosen, 0).sum() / chosen.sum().clamp(min=1)
            weight.copy_(torch.where(chosen, gap / mean.clamp(min=1e-12), weight))
        first += size
    return weights_BC


def unknown_features(
    features_BCD: Tensor, targets_BC: Tensor, shares_BC: Tensor, semantic: bool
) -> tuple[Tensor, Tensor]:
    """One feature of the unknown an image: a mean of its features of absent classes, weighted by share and likeness.

    Args:
        features_BCD: purified features.
        targets_BC: 1 present, 0 absent, negative: takes no part.
        shares_BC: draws in [0, 1].
        semantic: weigh by the mean cosine to the features of present classes, at least 0; else by the shares alone.

    Returns:
        (B, D), and (B,) 1.0 where one could be made, else 0.0 (its feature is 0).
    """
    present_BC, absent_BC = ((targets_BC == sign).to(at_least_float32(features_BCD).dtype) for sign in (1, 0))
    with torch.autocast(features_BCD.device.type, enabled=False):
        features_BCD = at_least_float32(features_BCD)
        with torch.no_grad():
            weights_BC = shares_BC.to(absent_BC) * absent_BC
            if semantic:
                unit_BCD = F.normalize(features_BCD, dim=2)
                count_B1 = present_BC.sum(1, keepdim=True).clamp(min=1)
                present_BD = torch.einsum("bc,bcd->bd", present_BC / count_B1, unit_BCD)
                weights_BC = weights_BC * torch.einsum("bcd,bd->bc", unit_BCD, present_BD).clamp(min=0)
            total_B1 = weights_BC.sum(1, keepdim=True)
            is_made_B1 = (present_BC.sum(1, keepdim=True) > 0) & (total_B1 > 0)
            weights_BC = torch.where(is_made_B1, weights_BC / total_B1.clamp(min=1e-30), torch.zeros_like(weights_BC))
        return torch.einsum("bc,bcd->bd", weights_BC, features_BCD), is_made_B1.squeeze(1).to(features_BCD.dtype)
