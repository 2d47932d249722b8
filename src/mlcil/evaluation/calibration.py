"""Scores that mean something: a scale and a shift a class that turn logits into calibrated ones.

Legend: N images, C classes.
"""

from __future__ import annotations

import numpy as np


def platt(logits_NC: np.ndarray, targets_NC: np.ndarray, absent_C: np.ndarray | None = None) -> np.ndarray:
    """Scale and shift of every class, so that ``sigmoid(scale * logit + shift)`` is the share of positives among
    images with such a logit (Platt, "Probabilistic Outputs for Support Vector Machines", 1999, with his targets that
    are never quite 0 or 1).

    A class's ranking stays as it is, since its scale is above 0.

    Args:
        logits_NC: (N, C) finite scores, best of images that the classifier was not trained on.
        targets_NC: (N, C) 1 present, 0 absent; negative numbers, unknown, say nothing.
        absent_C: what an absent label of each class counts for; ``None`` is 1.

    Returns:
        (C, 2) float64. Of a class without known positives or without known negatives scale 1 and shift 0; where higher
        logits do not go with more positives, a scale of 1e-3 and the shift that gives its share of positives.
    """
    from sklearn.linear_model import LogisticRegression  # heavy: only when asked for

    found_C2 = np.tile([1.0, 0.0], (logits_NC.shape[1], 1))
    for column in range(len(found_C2)):
        known_N = targets_NC[:, column] >= 0
        logits_N = np.asarray(logits_NC[known_N, column], np.float64)
        positive_N = targets_NC[known_N, column] > 0
        positives, negatives = int(positive_N.sum()), int((~positive_N).sum())
        if not positives or not negatives:
            continue
        target_N = np.where(positive_N, (positives + 1) / (positives + 2), 1 / (negatives + 2))
        spread, middle = max(float(logits_N.std()), 1e-12), float(logits_N.mean())
        doubled = np.tile((logits_N - middle) / spread, 2)[:, None]
        labels = np.repeat([1, 0], len(logits_N))
        weight_N = np.where(positive_N, 1.0, 1.0 if absent_C is None else absent_C[column])
        weights = np.concatenate([weight_N * target_N, weight_N * (1 - target_N)])
        fit = LogisticRegression(C=1e6, max_iter=200).fit(doubled, labels, weights)
        scale = float(fit.coef_[0, 0]) / spread
        if scale > 1e-3:
            found_C2[column] = scale, float(fit.intercept_[0]) - scale * middle
        else:
            share = (positives + 1) / (positives + negatives + 2)
            found_C2[column] = 1e-3, np.log(share / (1 - share)) - 1e-3 * middle
    return found_C2
