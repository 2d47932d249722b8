"""Average precision, precision, recall and F1 of score matrices.

Legend: N images, C classes.
"""

from __future__ import annotations

import numpy as np

EPS = 1e-8


def average_precision(scores_NC: np.ndarray, targets_NC: np.ndarray) -> np.ndarray:
    """AP of every class, float64 in [0, 1]; NaN for a class without positives.

    The official ranking AP of ASL and KRT: sort by descending score, mean over the positives of (positives
    so far / rank), divided by (positives + 1e-8); no interpolation. The sort is stable, so ties keep the
    order of the images. Without ties it equals scikit-learn's ``average_precision_score``.

    Args:
        scores_NC: (N, C), any monotone score; must be finite where judged.
        targets_NC: (N, C), 1 positive, 0 negative, negative numbers: not judged, left out of that class.

    Raises:
        ValueError: a judged score is no number.
    """
    scores_NC, targets_NC = np.asarray(scores_NC), np.asarray(targets_NC)
    if not np.isfinite(scores_NC[targets_NC >= 0]).all():
        raise ValueError("a score is no number, so there is no ranking; expected finite scores")
    found_C = np.full(scores_NC.shape[1], np.nan)
    for column, targets_N in enumerate(targets_NC.T):
        positive_N = targets_N > 0
        if positive_N.any():
            judged_N = targets_N >= 0
            rank_P = ranks_of_positives(scores_NC[judged_N, column], positive_N[judged_N])
            precision_P = np.arange(1, len(rank_P) + 1) / rank_P
            # one after the other, not in pairs: the last digit is that of a sum over the whole ranking
            found_C[column] = np.cumsum(precision_P)[-1] / (len(rank_P) + EPS)
    return found_C


def ranks_of_positives(scores_N: np.ndarray, positive_N: np.ndarray) -> np.ndarray:
    """Ranks (P,) of the positives by descending score, from 1, ascending; ties keep the order of the images.

    A sort of plain numbers and a search give the rank of a score that is there once, many times faster than an order;
    only the images whose score a positive shares are put in order.

    Args:
        scores_N: (N,) finite scores.
        positive_N: (N,) bool, P of them.
    """
    ascending_N, scores_P = np.sort(scores_N), scores_N[positive_N]
    below_P = np.searchsorted(ascending_N, scores_P, "left")
    not_above_P = np.searchsorted(ascending_N, scores_P, "right")
    rank_P = len(scores_N) - below_P
    shared_P = not_above_P - below_P > 1
    if shared_P.any():
        values = np.unique(scores_P[shared_P])
        nearest_N = np.searchsorted(values, scores_N).clip(max=len(values) - 1)
        tied = np.flatnonzero(values[nearest_N] == scores_N)
        tied = tied[np.argsort(scores_N[tied], kind="stable")]  # by score, then as the images stand
        place = np.arange(len(tied)) - np.searchsorted(scores_N[tied], scores_N[tied], "left")
        rank = len(scores_N) - np.searchsorted(ascending_N, scores_N[tied], "right") + place + 1
        rank_P = np.concatenate([rank_P[~shared_P], rank[positive_N[tied]]])
    return np.sort(rank_P)


def mean_average_precision(scores_NC: np.ndarray, targets_NC: np.ndarray, empty_as: str = "zero") -> float | None:
    """Mean AP in percent.

    Args:
        scores_NC, targets_NC: see :func:`average_precision`.
        empty_as: a class without positives counts as 0 (``'zero'``, official) or is left out (``'skip'``).

    Returns:
        Percent, or ``None`` when no class is left.
    """
    return mean_of_ap(average_precision(scores_NC, targets_NC), empty_as)


def mean_of_ap(ap_C: np.ndarray, empty_as: str = "zero") -> float | None:
    """Mean of APs in percent with the policy for classes without positives (NaN).

    Raises:
        ValueError: unknown ``empty_as``.
    """
    if empty_as not in ("zero", "skip"):
        raise ValueError(f"empty_classes {empty_as!r} is unknown; use 'zero' (official) or 'skip'")
    kept = np.nan_to_num(ap_C, nan=0.0) if empty_as == "zero" else ap_C[~np.isnan(ap_C)]
    return float(100 * kept.mean()) if len(kept) else None


def precision_recall_f1(scores_NC: np.ndarray, targets_NC: np.ndarray, threshold: float) -> dict[str, float]:
    """Per-class and overall precision, recall and F1 in percent at a threshold (score > threshold).

    ``CP``, ``CR``: means over classes. ``CF1_mean``: mean of the classes' F1 (KRT, MULTI-LANE).
    ``CF1_harmonic``: 2 CP CR / (CP + CR) (ASL, ML-GCN). ``OP``, ``OR``, ``OF1``: from pooled counts; OP and
    OF1 are NaN when nothing is predicted, OR and OF1 when nothing is present. A class without true positives
    has P = R = F1 = 0.

    Quotients of counts are float32, class means and the classes' F1 are double, OF1 is float32 (KRT official
    behaviour: without this the numbers differ from it in the eighth digit).

    Args:
        scores_NC: (N, C) scores.
        targets_NC: (N, C), 1 positive, 0 negative, negative numbers: not judged, not counted.
        threshold: a score must be greater, not equal.
    """
    judged = targets_NC >= 0
    predicted, present = (scores_NC > threshold) & judged, targets_NC > 0
    hit, guessed, positives = (predicted & present).sum(0), predicted.sum(0), present.sum(0)
    precision, recall = (_quotient(hit, out_of).astype(np.float64) for out_of in (guessed, positives))
    f1 = np.divide(2 * precision * recall, precision + recall, out=np.zeros(len(hit)), where=hit > 0)
    cp, cr = 100 * precision.mean(), 100 * recall.mean()
    overall = {}
    for name, out_of in (("OP", guessed.sum()), ("OR", positives.sum())):
        overall[name] = np.float32(100) * _quotient(hit.sum(), out_of) if out_of else np.float32(np.nan)
    op, orr = overall["OP"], overall["OR"]
    return {
        "CP": float(cp),
        "CR": float(cr),
        "CF1_mean": float(100 * f1.mean()),
        "CF1_harmonic": float(2 * cp * cr / (cp + cr)) if cp + cr > 0 else 0.0,
        "OP": float(op),
        "OR": float(orr),
        "OF1": float(np.float32(2) * op * orr / (op + orr)) if op + orr != 0 else 0.0,
    }


def _quotient(hit: np.ndarray, out_of: np.ndarray) -> np.ndarray:
    """Counts divided in float32; 0 where nothing was hit."""
    hit, out_of = np.asarray(hit, np.float32), np.asarray(out_of, np.float32)
    return np.divide(hit, out_of, out=np.zeros_like(hit), where=hit > 0)
