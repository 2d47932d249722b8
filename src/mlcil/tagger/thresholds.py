"""Calibrated scores and a threshold a label, from logits of photos that the scores were not fitted on.

Calibration is Platt's: a scale and a shift of each label's logit, fitted to its known cells with his smoothed targets.
The threshold is the one with the best F1 among those at which the label is given no more often than it occurs, with
95 percent confidence: photos that get it and lack it are few, so their number counts with a margin of :data:`DOUBT`
standard deviations (of a Poisson count). How often a label occurs is an estimate, too, so the promise is weaker: on
photos like these, no label is given more than twice as often.

Photos that were collected for a label show it more often than ordinary ones, and every photo without it would stand for
several of these. So absent cells have a weight.

Legend: N photos, C labels, E images of nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlcil.evaluation.calibration import platt

#: with fewer positives, or fewer photos without it, a label has no calibration and no threshold of its own
FEWEST = 5
#: threshold of such a label where no better one is known
FALLBACK = 0.5
#: most that one absent cell counts for
HEAVIEST = 4.0
#: standard deviations by which the photos that wrongly get a label may be more than were seen
DOUBT = 1.64
#: scale of a logit that does not go with the label
FLAT = 1e-3


@dataclass(frozen=True, eq=False)
class Calibration:
    """What turns logits into tags.

    Attributes:
        correction_C2: scale and shift of every label's logit; the sigmoid of that is a probability.
        thresholds_C: a label is given where its probability is at least this.
        notes: a sentence for each label that has a fallback.
    """

    correction_C2: np.ndarray
    thresholds_C: np.ndarray
    notes: tuple[str, ...] = ()


def absent_weight(absent: int, earlier: int) -> float:
    """What one absent cell counts for.

    Args:
        absent: absent cells of the label.
        earlier: photos that earlier sessions saw, which count as photos without a label that came later.
    """
    return min((absent + earlier) / max(absent, 1), HEAVIEST)


def calibrate(
    logits_NC: np.ndarray,
    targets_NC: np.ndarray,
    names: tuple[str, ...],
    nothing_EC: np.ndarray | None = None,
    earlier: int = 0,
) -> Calibration:
    """Scale, shift and threshold of every label.

    Args:
        logits_NC: (N, C) of photos that were not fitted.
        targets_NC: (N, C); 1 present, 0 absent, -1 unknown.
        names: C labels.
        nothing_EC: (E, C) logits of grey, noise and text images, on which no label should be given.
        earlier: photos of earlier sessions, see :func:`absent_weight`.
    """
    logits_NC = np.asarray(logits_NC, np.float64)
    count = len(names)
    present_C, absent_C = (targets_NC == 1).sum(0), (targets_NC == 0).sum(0)
    enough_C = (present_C >= FEWEST) & (absent_C >= FEWEST)
    weight_C = np.array([absent_weight(absent, earlier) for absent in absent_C])
    lines = platt(logits_NC, targets_NC, weight_C)
    fitted = [lines[c] for c in range(count) if enough_C[c] and lines[c, 0] > FLAT]
    common = np.median(fitted, axis=0) if fitted else np.array([1.0, 0.0])
    correction_C2, thresholds_C, notes = np.empty((count, 2)), np.empty(count), []
    for c, name in enumerate(names):
        own = bool(enough_C[c] and lines[c, 0] > FLAT)
        correction_C2[c] = lines[c] if own else common
        scores_N, known_N = probability(logits_NC[:, c], correction_C2[c]), targets_NC[:, c] >= 0
        present_N = targets_NC[known_N, c] == 1
        if own:
            chosen = best_threshold(scores_N[known_N], present_N, weight_C[c])
        elif absent_C[c] < FEWEST and present_C[c] >= FEWEST:
            chosen = float(np.quantile(scores_N[known_N][present_N], 0.2))
            notes.append(
                f"{name}: {absent_C[c]} photos are known to lack it, so its threshold is the score that four of five "
                "of its photos reach"
            )
        else:
            chosen = FALLBACK
            reason = f"{present_C[c]} photos show it and {absent_C[c]} lack it" if not enough_C[c] else (
                "its scores do not tell its photos from others"
            )  # fmt: skip
            notes.append(
                f"{name}: {reason}, so it has the calibration of the other labels and the threshold {FALLBACK}"
            )
        if nothing_EC is not None and len(nothing_EC):
            usual, spread = nothing_EC[:, c].mean(), nothing_EC[:, c].std()  # other ones than these may score higher
            highest = probability(np.append(nothing_EC[:, c], usual + 3 * spread), correction_C2[c]).max()
            chosen = max(chosen, float(np.nextafter(highest, 2)))
        thresholds_C[c] = min(max(chosen, 0.0), 1.0)
    return Calibration(correction_C2, thresholds_C, tuple(notes))


def probability(logits_N: np.ndarray, line: np.ndarray) -> np.ndarray:
    """The sigmoid of logits (N,) after a scale and a shift (2,)."""
    return 1.0 / (1.0 + np.exp(-np.clip(np.asarray(logits_N, np.float64) * line[0] + line[1], -500, 500)))


def best_threshold(scores_N: np.ndarray, present_N: np.ndarray, absent: float = 1.0) -> float:
    """The threshold of the best F1 among those that surely give the label no more often than it occurs.

    Args:
        scores_N: (N,) probabilities.
        present_N: (N,) bool, at least one of them.
        absent: what a photo without the label counts for.

    Returns:
        The middle between the last score that passes and the next lower one.
    """
    order = np.argsort(-scores_N, kind="stable")
    scores_N, present_N = scores_N[order], present_N[order]
    weight_N = np.where(present_N, 1.0, absent)
    hit_N, given_N = np.cumsum(present_N), np.cumsum(weight_N)
    positives = hit_N[-1]
    f1_N = 2 * hit_N / (given_N + positives)
    last_of_tie_N = np.append(scores_N[1:] != scores_N[:-1], True)
    doubt_N = DOUBT * np.sqrt(absent * (given_N - hit_N))
    allowed_N = last_of_tie_N & (given_N + doubt_N <= positives)
    if not allowed_N.any():  # the highest score is that of a photo without it
        return float(np.nextafter(scores_N[0], 2))
    best = int(np.flatnonzero(allowed_N)[np.argmax(f1_N[allowed_N])])
    return float(scores_N[best] if best + 1 == len(scores_N) else (scores_N[best] + scores_N[best + 1]) / 2)
