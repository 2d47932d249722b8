"""Ridge regression on frozen features, session by session in closed form: no epochs, no learning rate, no images kept.

For features x (pooled, or a random projection of them) and 0/1 targets y, with an intercept that is not penalised, the
rows W of classes are the solution of

    (A + strength * I) W = K,     A = sum of omega x x',   K = sum of omega x y'       (both centred)

A and K are sums over images, so a session adds its own to what earlier sessions left.

``old_rows="frozen"``: a session solves for its own classes alone, and no score of an old class ever changes, to the
bit. Earlier sessions' A, weighted by ``negatives``, enters with target 0: their images are negatives of the new classes
although none of them is kept (weak negatives as in perch-hoplite, in closed form). With ``gaussian`` only mean and
variances of the features are kept, 20 KB instead of 13 MB for EfficientNet-Lite0: sampling from a Gaussian as
AEF-OCL does has these sums as its expectation.

``old_rows="refreshed"``: all rows are solved for anew in every session (Zhuang et al., "ACIL", NeurIPS 2022). Without
pseudo-labels and weights that is, up to rounding, the ridge regression on all images at once. L3A ("multi-label
analytic class-incremental learning", config ``l3a``) adds ``pseudo="hard"``: old classes whose score is above
``threshold`` are positives of new images, and ``balanced``: omega is the mean over an image's positives of n_c^-1/2,
scaled to mean 1 over the seen classes, where n_c counts given labels. ``soft`` takes the calibrated probability for a
target, ``per_class`` the class's own threshold, its mean probability over the positives of the session that introduced
it (KBK's rule).

The strength follows RanPAC's rule: of values from 1e-8 to 1e8 one with the least squared error on held-out images of
the session (McDonnell et al., NeurIPS 2023). Two deviations: held out is every image once, since leave-one-out has a
closed form too; and of the strengths whose error is within a standard deviation of the least one the largest is taken
(Breiman et al., "Classification and Regression Trees", 1984), because a session's images are not those that its rows
will judge. On held-out training images of VOC that beats both the least error and a fifth of the images, as RanPAC has
it, in both protocols, and a weight of 1 for the negatives is as good as 0.2 or better. It keeps at least half of what
the least error is better than that of constant scores: where nearly every image of a session shows one of its classes,
constants are within a deviation, and the rows of the others would say nothing.
The same held-out scores give each new class a scale and a shift after Platt, so that sigmoid(logit) is a probability;
the images of earlier sessions enter there as negatives, at the quantiles of the normal distribution that has the mean
and variance of their scores.

What the sources leave open: an unknown label of a class of the session says nothing (it takes the ridge's own
prediction, which is the solution without it), but where a class has more unknown labels than absent ones they count as
absent in the error that chooses the strength: known labels that are all present are met best by rows that call every
image of the session present; L3A has no intercept; an image without any positive has omega 1.

Legend: N images, H features, C classes seen so far, M of them solved for, E quantiles.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from mlcil.evaluation.calibration import platt
from mlcil.methods.base import check_choice
from mlcil.methods.frozen_features import FrozenFeatures, Seen
from mlcil.models.heads import SessionLinearHead
from mlcil.models.network import IncrementalNetwork
from mlcil.phases import Batches, Fit, Phase, UpdateMemory
from mlcil.registry import METHODS
from mlcil.schema import AboveZero, Count, Score, Weight

STRENGTHS = tuple(10.0 ** (power / 2) for power in range(-16, 17))
PSEUDO = ("none", "hard", "soft", "per_class")
ROUNDS = 10  # in which unknown labels take the prediction


@dataclass
class Sums:
    """Sums over images, float64.

    Attributes:
        count: sum of the weights, ().
        features_H: of the features.
        gram_HH: of x x'; of a Gaussian's its diagonal alone, (H,).
        products_HC: of x y'.
        positives_C: of y.
    """

    count: Tensor
    features_H: Tensor
    gram_HH: Tensor
    products_HC: Tensor
    positives_C: Tensor

    @classmethod
    def of(cls, features_NH: Tensor, targets_NC: Tensor, omega_N: Tensor) -> Sums:
        """Of some images."""
        weighted_NH = features_NH * omega_N[:, None]
        products_HC, positives_C = weighted_NH.T @ targets_NC, omega_N @ targets_NC
        return cls(omega_N.sum(), weighted_NH.sum(0), weighted_NH.T @ features_NH, products_HC, positives_C)

    def plus(self, other: Sums) -> Sums:
        """Both; classes that only one has are absent in the other."""
        classes = max(len(self.positives_C), len(other.positives_C))
        parts = []
        for name in (part.name for part in fields(self)):
            pair = [getattr(sums, name) for sums in (self, other)]
            if name.endswith("C"):
                pair = [torch.nn.functional.pad(value, (0, classes - value.shape[-1])) for value in pair]
            parts.append(pair[0] + pair[1])
        return Sums(*parts)

    def negatives(self, weight: float) -> Sums:
        """The same images as negatives of other classes."""
        gram_HH = self.gram_HH
        if gram_HH.ndim == 1:  # a Gaussian with the same means and variances
            mean_H = self.features_H / self.count
            gram_HH = torch.outer(mean_H, self.features_H) + torch.diag(self.gram_HH - mean_H * self.features_H)
        nothing_HC, nothing_C = self.products_HC[:, :0], self.positives_C[:0]
        return Sums(weight * self.count, weight * self.features_H, weight * gram_HH, nothing_HC, nothing_C)

    def diagonal(self) -> Sums:
        """What a Gaussian keeps."""
        nothing_HC, nothing_C = self.products_HC[:, :0], self.positives_C[:0]
        return Sums(self.count, self.features_H, self.gram_HH.diagonal().clone(), nothing_HC, nothing_C)


@dataclass(frozen=True)
class Solution:
    """Rows of classes, and what they say of the session's images when each is left out in turn.

    Attributes:
        rows_MH, intercept_M: score = rows x + intercept, about 0 for absent and 1 for present.
        held_out_NM: the scores of the left-out images.
        strength: of the penalty.
        error: mean squared error of ``held_out_NM``, see above on unknown labels.
    """

    rows_MH: Tensor
    intercept_M: Tensor
    held_out_NM: Tensor
    strength: float
    error: float


def solve(sums: Sums, features_NH: Tensor, targets_NM: Tensor, omega_N: Tensor, strength: float | None) -> Solution:
    """The ridge regression of ``sums``, which hold these images.

    Args:
        sums: with products and positives of the M classes.
        features_NH: the session's images.
        targets_NM: their targets in [0, 1]; -1 is unknown and adds nothing, neither here nor to ``sums``.
        omega_N: their weights.
        strength: of the penalty; ``None`` tries :data:`STRENGTHS` and takes the largest whose error is within a
            standard deviation of the least one and nearer to it than to that of constant scores.
    """
    mean_H = sums.features_H / sums.count
    matrix_HH = sums.gram_HH - torch.outer(mean_H, sums.features_H)
    centred_NH = features_NH - mean_H
    unknown_NM = targets_NM < 0
    skipped_NM = unknown_NM & (unknown_NM.sum(0) <= (targets_NM == 0).sum(0))
    judged = max(int((~skipped_NM).sum()), 1)
    best: Solution | None = None
    white_HN, least, allowed, nothing = torch.empty(0), math.inf, math.inf, math.inf
    for value, whitener_HH, scale_H in _whiteners(matrix_HH, strength):
        if not len(white_HN):
            white_HN = whitener_HH @ centred_NH.T
        leverage_N = omega_N * (1 / sums.count + (scale_H[:, None] * white_HN.square()).sum(0))
        filled_NM = torch.where(unknown_NM, 0.0, targets_NM)
        for _ in range(ROUNDS if unknown_NM.any() else 1):
            used_NM = filled_NM
            guessed_NM = omega_N[:, None] * torch.where(unknown_NM, used_NM, 0.0)
            share_M = (sums.positives_C + guessed_NM.sum(0)) / sums.count
            products_HM = sums.products_HC + features_NH.T @ guessed_NM - torch.outer(mean_H, share_M * sums.count)
            solved_HM = scale_H[:, None] * (whitener_HH @ products_HM)
            predicted_NM = share_M + white_HN.T @ solved_HM
            filled_NM = torch.where(unknown_NM, predicted_NM, targets_NM)
        left_NM = (predicted_NM - leverage_N[:, None] * used_NM) / (1 - leverage_N[:, None]).clamp(min=1e-9)
        squares_N = torch.where(skipped_NM, 0.0, left_NM - targets_NM.clamp(min=0)).square().sum(1) / judged
        error, deviation = float(squares_N.sum()), float(squares_N.std(correction=0) * len(squares_N) ** 0.5)
        if float(leverage_N.max()) > 1 - 1e-6:
            error = math.inf  # a row that follows its image everywhere has no error to tell
        if value == math.inf:  # rows of zeros: constant scores
            nothing = error
            continue
        if error < least:
            least, allowed = error, min(error + deviation, (error + nothing) / 2)
        if best is None or error <= allowed:
            rows_MH = (whitener_HH.T @ solved_HM).T
            best = Solution(rows_MH, share_M - rows_MH @ mean_H, left_NM, value, error)
    assert best is not None
    return best


def _whiteners(matrix_HH: Tensor, strength: float | None) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Strength, V' and d with (matrix + strength * I)^-1 = V diag(d) V', the same V for all; an infinite one first."""
    if strength is not None:
        eye_HH = torch.eye(len(matrix_HH), dtype=matrix_HH.dtype)
        lower_HH = torch.linalg.cholesky(matrix_HH + strength * eye_HH)
        whitener_HH = torch.linalg.solve_triangular(lower_HH, eye_HH, upper=False)
        yield strength, whitener_HH, torch.ones(len(matrix_HH), dtype=matrix_HH.dtype)
        return
    values_H, vectors_HH = torch.linalg.eigh(matrix_HH)
    for strength in (math.inf, *STRENGTHS):
        yield strength, vectors_HH.T, 1 / (values_H.clamp(min=0) + strength)


@METHODS.register_module()
class Ridge(FrozenFeatures):
    """Ridge rows from sums over images.

    Outside a run: ``begin_session(context)``, then ``fit(batches)`` with batches as a loader gives them (``inputs``
    uint8 (B, H, W, 3) or ``maps`` (B, K, h, w), ``targets`` (B, C) float, ``rows`` and ``origins`` int64 (B,)). The
    rows are in the network's head then, and ``method_state`` is all that the next session needs. With frozen old rows a
    session may also be appended to a network that comes without any state: earlier images are no negatives then.

    Args:
        network: a frozen backbone with a head of one layer a session that has biases; its ``hidden`` projects.
        old_rows: ``frozen`` or ``refreshed``.
        negatives: weight of earlier sessions' images as negatives of new classes; 0 forgets them.
        gaussian: keep of earlier images only what a Gaussian with a diagonal covariance needs.
        pseudo: labels of old classes on new images, ``none`` (absent), ``hard``, ``soft`` or ``per_class``; for
            refreshed rows.
        threshold: of ``hard``, on the ridge's own scores: 0.847 is where their sigmoid is 0.7 (L3A).
        balanced: weight images by the rarity of their classes (L3A).
        strength: of the penalty; ``None`` chooses it in every session.
        reference_batch, teacher_autocast: see :class:`~mlcil.methods.base.Method`.

    Attributes:
        sums: over the images so far, ``None`` before the first session.
        calibration_C2: scale and shift that are inside the head's rows: logit = scale * score + shift.
        thresholds_C: mean probability over the positives of the session that introduced the class.

    Raises:
        ValueError: another head, a backbone that is trained, an unknown option, or options that contradict each other.
    """

    def __init__(
        self,
        network: IncrementalNetwork,
        old_rows: str = "frozen",
        negatives: Weight = 1.0,
        gaussian: bool = False,
        pseudo: str = "none",
        threshold: Score = 0.847,
        balanced: bool = False,
        strength: AboveZero | None = None,
        reference_batch: Count = 64,
        teacher_autocast: bool = True,
    ) -> None:
        super().__init__(network, reference_batch, teacher_autocast)
        if not isinstance(network.head, SessionLinearHead) or not network.head.bias:
            raise ValueError("Ridge needs network.head.type='session_linear' with bias=True")
        self.refreshed = check_choice("old_rows", old_rows, ("frozen", "refreshed")) == "refreshed"
        self.pseudo = check_choice("pseudo", pseudo, PSEUDO)
        if self.refreshed and (negatives != 1 or gaussian):
            raise ValueError("old_rows='refreshed' takes all images alike; leave negatives=1 and gaussian=False")
        if not self.refreshed and pseudo != "none":
            raise ValueError(f"pseudo={pseudo!r} is for rows that are solved for again; set old_rows='refreshed'")
        self.negatives, self.gaussian = float(negatives), gaussian
        self.threshold, self.balanced, self.strength = threshold, balanced, strength
        self.sums: Sums | None = None
        self.calibration_C2 = torch.zeros(0, 2, dtype=torch.float64)
        self.thresholds_C = torch.zeros(0, dtype=torch.float64)
        self.counts_C = torch.zeros(0, dtype=torch.float64)
        self.report: dict[str, float] = {}

    def phases(self, session: Any) -> list[Phase]:
        return [Fit(self.fit), UpdateMemory()]

    def fit(self, batches: Batches) -> None:
        """Add the session's sums, solve, calibrate, and write the rows into the head."""
        assert self.context is not None
        low = 0 if self.refreshed else self.context.low
        seen = self.look_at(batches)
        targets_NC = self.with_pseudo_labels(seen)
        omega_N = self.weights(seen, targets_NC)
        targets_NM = targets_NC[:, low:]
        own = Sums.of(seen.features_NH, targets_NM.clamp(min=0), omega_N)
        earlier = self.sums
        whole = own if earlier is None else own.plus(earlier if self.refreshed else earlier.negatives(self.negatives))
        solution = solve(whole, seen.features_NH, targets_NM, omega_N, self.strength)
        self.report = {"strength": solution.strength, "held_out_error": solution.error}
        self.calibrate(solution, seen, earlier, low)
        self._write(solution, low)
        kept = Sums.of(seen.features_NH, targets_NM.clamp(min=0)[:, :0], omega_N) if not self.refreshed else own
        kept = kept.diagonal() if self.gaussian else kept
        if self.refreshed or self.negatives:
            self.sums = kept if earlier is None else kept.plus(earlier)

    def with_pseudo_labels(self, seen: Seen) -> Tensor:
        """Targets (N, C): what nobody says of old classes is absent, or what ``pseudo`` makes of it."""
        assert self.context is not None
        low, targets_NC = self.context.low, seen.targets_NC.clone()
        unknown_NO = targets_NC[:, :low] < 0
        logits_NO = seen.logits_NC[:, :low]
        guess_NO = torch.zeros_like(logits_NO)
        if self.pseudo == "soft":
            guess_NO = torch.sigmoid(logits_NO)
        elif self.pseudo == "hard":
            scale_O, shift_O = self.calibration_C2[:low].T
            guess_NO = ((logits_NO - shift_O) / scale_O > self.threshold).double()
        elif self.pseudo == "per_class":
            guess_NO = (torch.sigmoid(logits_NO) >= self.thresholds_C[:low]).double()
        targets_NC[:, :low] = torch.where(unknown_NO, guess_NO, targets_NC[:, :low])
        return targets_NC

    def weights(self, seen: Seen, targets_NC: Tensor) -> Tensor:
        """Omega (N,)."""
        if not self.balanced:
            return torch.ones(len(targets_NC), dtype=torch.float64)
        counts_C = (seen.targets_NC == 1).sum(0).double()
        counts_C[: len(self.counts_C)] += self.counts_C
        self.counts_C = counts_C
        rarity_C = torch.where(counts_C > 0, counts_C.clamp(min=1).rsqrt(), 0.0)
        rarity_C = rarity_C / rarity_C[counts_C > 0].mean()
        positive_NC = targets_NC.clamp(min=0)
        number_N = positive_NC.sum(1)
        return torch.where(number_N > 0, positive_NC @ rarity_C / number_N.clamp(min=1e-9), 1.0)

    def calibrate(self, solution: Solution, seen: Seen, earlier: Sums | None, low: int) -> None:
        """Scale, shift and threshold of the session's new classes, from held-out scores."""
        assert self.context is not None
        new = slice(self.context.low - low, None)
        scores_NM, targets_NM = solution.held_out_NM[:, new], seen.targets_NC[:, self.context.low :]
        seen_too = [scores_NM]
        if earlier is not None and self.negatives:
            images, rows_MH = earlier.negatives(1.0), solution.rows_MH[new]
            count = int(images.count.round())
            mean_M = rows_MH @ images.features_H / images.count
            square_M = ((rows_MH @ images.gram_HH) * rows_MH).sum(1) / images.count
            deviation_M = (square_M - mean_M.square()).clamp(min=0).sqrt()
            quantiles_E = torch.special.ndtri((torch.arange(count, dtype=torch.float64) + 0.5) / count)
            seen_too.append(mean_M + solution.intercept_M[new] + torch.outer(quantiles_E, deviation_M))
        absent = torch.zeros(sum(map(len, seen_too[1:])), targets_NM.shape[1], dtype=torch.float64)
        pairs = torch.from_numpy(platt(torch.cat(seen_too).numpy(), torch.cat([targets_NM, absent]).numpy()))
        none = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(self.context.low - len(self.calibration_C2), 2)
        self.calibration_C2 = torch.cat([self.calibration_C2, none, pairs])
        probability_NM = torch.sigmoid(scores_NM * pairs[:, 0] + pairs[:, 1])
        positive_NM = targets_NM == 1
        mean_M = (probability_NM * positive_NM).sum(0) / positive_NM.sum(0).clamp(min=1)
        mean_M = torch.where(positive_NM.any(0), mean_M, 0.5)
        self.thresholds_C = torch.cat([self.thresholds_C, torch.full((len(none),), 0.5), mean_M])

    @torch.no_grad()
    def _write(self, solution: Solution, low: int) -> None:
        scale_M, shift_M = self.calibration_C2[low:].T
        rows_MH, shift_M = scale_M[:, None] * solution.rows_MH, scale_M * solution.intercept_M + shift_M
        layers: Any = self.network.head.classifiers if self.refreshed else self.network.head.classifiers[-1:]  # type: ignore[index]
        first = 0
        for layer in layers:
            last = first + layer.out_features
            layer.weight.copy_(rows_MH[first:last])
            layer.bias.copy_(shift_M[first:last])
            first = last

    def method_state(self) -> dict[str, Any]:
        names = ("calibration_C2", "thresholds_C", "counts_C")
        sums = {} if self.sums is None else dict(vars(self.sums))
        return {"sums": sums, "report": self.report, **{name: getattr(self, name) for name in names}}

    def load_method_state(self, state: dict[str, Any]) -> None:
        self.sums = Sums(**state["sums"]) if state["sums"] else None
        if self.sums is not None and (self.sums.gram_HH.ndim == 1) != self.gaussian:
            raise ValueError(f"its sums are those of gaussian={not self.gaussian}")
        self.report = state.get("report", {})  # taggers of earlier versions have none
        for name in ("calibration_C2", "thresholds_C", "counts_C"):
            setattr(self, name, state[name])

    def session_report(self) -> dict[str, Any]:
        return {"ridge": dict(self.report)} if self.report else {}
