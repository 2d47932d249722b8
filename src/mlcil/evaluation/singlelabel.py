"""Accuracy of score matrices where every image shows exactly one class.

Predictions are task-agnostic: the best of all classes seen so far, whatever session the image's class came in.

Legend: N test images, S classes seen so far, T sessions so far; ``a[t][j]`` accuracy on session j's classes after
session t.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

TOP = 5
#: how local_session_accuracy counts: every test image of the session, or as ABD's release does, which loses the images
#: of the session's last class
LOCAL_ACCURACIES = ("all", "official")
GLOSSARY: dict[str, str] = {
    "accuracy": "test images of the classes in question whose best score among all seen classes is right, in percent",
    "base / seen / new / old": "classes of session 0 / all so far / of this session / of earlier sessions",
    "top5": "the same with the right class among the five best (all classes, when there are fewer)",
    "session_accuracy": "accuracy on the classes of each session so far: a row of the accuracy matrix",
    "mean_session_accuracy": "unweighted mean of session_accuracy (ABD's global accuracy)",
    "local_session_accuracy": "the same with predictions among that session's classes alone (ABD's local accuracy)",
    "class_accuracy": "accuracy on the test images of each seen class",
    "average_accuracy": "average incremental accuracy: mean over sessions, session 0 included, on seen classes",
    "average_accuracy_without_base": "the same without session 0",
    "last_accuracy": "accuracy on all classes after the last session",
    "average_mean_session_accuracy / last_mean_session_accuracy": "the same two of mean_session_accuracy",
    "average_top5 / last_top5": "the same two of top5",
    "accuracy_matrix": "a[t][j], None where session j is still to come",
    "forgetting": "mean over old sessions j of the best earlier a[t][j], t from j on, minus the last (points)",
    "backward_transfer": "mean over old sessions j of the last a[t][j] minus a[j][j] (points)",
    "forgetting_learned": "minus backward_transfer",
    "plasticity": "mean over sessions of a[j][j] (percent)",
    "continuum_forgetting / continuum_backward_transfer / continuum_forward_transfer": (
        "as the logs of DyTox, DKT and DAFormer print them, which is not the usual way; see continuum_transfer"
    ),
}


def ranks(scores_NS: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Place of the right class among all scores: 0 is the best, (N,) int64.

    Of equal scores the lower class index is the better one, as in ``argmax``.

    Args:
        scores_NS: (N, S) scores, any monotone ones; NaN is worse than every number.
        labels_N: (N,) right classes in [0, S).
    """
    scores_NS = np.where(np.isnan(scores_NS), -np.inf, scores_NS)
    own_N1 = np.take_along_axis(scores_NS, labels_N[:, None], 1)
    earlier_NS = np.arange(scores_NS.shape[1])[None, :] < labels_N[:, None]
    return ((scores_NS > own_N1) | ((scores_NS == own_N1) & earlier_NS)).sum(1)


def evaluate_session(
    scores_NS: np.ndarray,
    labels_N: np.ndarray,
    edges: Sequence[tuple[int, int]],
    base_high: int,
    local_accuracy: str = "all",
) -> dict[str, Any]:
    """Metrics of one session as builtins (None where there is no test image).

    Args:
        scores_NS: (N, S) scores of all test images of seen classes.
        labels_N: (N,) their classes in [0, S).
        edges: classes [low, high) of every session so far; the last ends at S.
        base_high: number of base classes.
        local_accuracy: one of :data:`LOCAL_ACCURACIES`.

    Returns:
        ``accuracy`` {base, seen, new, old}, ``top5`` {base, seen, new, old}, ``session_accuracy`` and
        ``local_session_accuracy`` a session, ``mean_session_accuracy``, ``class_accuracy`` a seen class, in
        percent; ``images`` per test set;
        ``classes_without_images``, seen classes that no test image shows. See :data:`GLOSSARY`.
    """
    low, high = edges[-1]
    assert scores_NS.shape == (len(labels_N), high)
    place_N = ranks(scores_NS, labels_N)
    splits = {"base": (0, min(base_high, high)), "seen": (0, high), "new": (low, high), "old": (0, low)}
    chosen = {name: (labels_N >= a) & (labels_N < b) for name, (a, b) in splits.items()}
    by_session = [_percent(place_N[(labels_N >= a) & (labels_N < b)] < 1) for a, b in edges]
    images_S = np.bincount(labels_N, minlength=high)
    right_S = np.bincount(labels_N[place_N < 1], minlength=high)
    return {
        "accuracy": {name: _percent(place_N[mask] < 1) for name, mask in chosen.items()},
        "top5": {name: _percent(place_N[mask] < TOP) for name, mask in chosen.items()},
        "session_accuracy": by_session,
        "mean_session_accuracy": _mean(by_session),
        "local_session_accuracy": [
            local_session_accuracy(scores_NS, labels_N, a, b, official=local_accuracy == "official") for a, b in edges
        ],
        "class_accuracy": [float(100 * r / n) if n else None for r, n in zip(right_S, images_S, strict=True)],
        "images": {name: int(mask.sum()) for name, mask in chosen.items()},
        "classes_without_images": [int(c) for c in np.flatnonzero(images_S == 0)],
    }


def local_session_accuracy(
    scores_NS: np.ndarray, labels_N: np.ndarray, low: int, high: int, official: bool = False
) -> float | None:
    """Accuracy on the classes [low, high) with predictions among them alone, in percent.

    Args:
        scores_NS, labels_N: as in :func:`evaluate_session`.
        low, high: classes of a session.
        official: leave out the images of class ``high - 1`` (ABD's release, whose bound is strict).
    """
    rows = (labels_N >= low) & (labels_N < (high - 1 if official else high))
    return _percent(ranks(scores_NS[rows, low:high], labels_N[rows] - low) < 1)


def summarise(sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers of a run (terms: :data:`GLOSSARY`) from its sessions' results, in order."""
    if not sessions:
        return {}
    seen = [s["accuracy"]["seen"] for s in sessions]
    means = [s["mean_session_accuracy"] for s in sessions]
    top = [s["top5"]["seen"] for s in sessions]
    matrix = accuracy_matrix(sessions)
    last = len(matrix) - 1
    learned = [matrix[j][j] for j in range(last + 1)]
    best = [_best([matrix[t][j] for t in range(j, last)]) for j in range(last)]
    transfer = _mean([_minus(matrix[last][j], learned[j]) for j in range(last)])
    return {
        "average_accuracy": _mean(seen),
        "average_accuracy_without_base": _mean(seen[1:]),
        "last_accuracy": seen[-1],
        "average_mean_session_accuracy": _mean(means),
        "last_mean_session_accuracy": means[-1],
        "average_top5": _mean(top),
        "last_top5": top[-1],
        "forgetting": _mean([_minus(best[j], matrix[last][j]) for j in range(last)]),
        "forgetting_learned": None if transfer is None else -transfer,
        "backward_transfer": transfer,
        "plasticity": _mean(learned),
        **continuum_transfer(matrix),
        "accuracy_matrix": matrix,
    }


def accuracy_matrix(sessions: Sequence[Mapping[str, Any]]) -> list[list[float | None]]:
    """``a[t][j]`` as T rows of T entries; ``None`` above the diagonal and where there is no test image."""
    rows = [list(s["session_accuracy"]) for s in sessions]
    return [row + [None] * (len(rows) - len(row)) for row in rows]


def continuum_transfer(matrix: Sequence[Sequence[float | None]]) -> dict[str, float | None]:
    """Forgetting and transfer as the library of DyTox's, DKT's and DAFormer's logs (continuum) counts them, in points.

    They are not the usual definitions: forgetting leaves the last two sessions out, backward transfer each session's
    predecessor, and forward transfer is the mean of the accuracies below the diagonal. 0 after the first session.

    Args:
        matrix: :func:`accuracy_matrix`.
    """
    last = len(matrix) - 1
    pairs = max((last + 1) * last / 2, 1)
    best = [_best([matrix[t][j] for t in range(j, last - 1)]) for j in range(last - 1)]
    lost = [_minus(best[j], matrix[last][j]) for j in range(last - 1)]
    gained = [_minus(matrix[i][j], matrix[j][j]) for i in range(1, last + 1) for j in range(i - 1)]
    below = [matrix[i][j] for i in range(1, last + 1) for j in range(i)]
    return {
        "continuum_forgetting": _share(lost, max(last, 1)),
        "continuum_backward_transfer": _share(gained, pairs),
        "continuum_forward_transfer": _share(below, pairs),
    }


def _share(values: Sequence[float | None], count: float) -> float | None:
    kept = [v for v in values if v is not None]
    return sum(kept) / count if len(kept) == len(values) else None


def _percent(right: np.ndarray) -> float | None:
    return float(100 * right.mean()) if len(right) else None


def _mean(values: Sequence[float | None]) -> float | None:
    kept = [v for v in values if v is not None]
    return sum(kept) / len(kept) if kept else None


def _best(values: Sequence[float | None]) -> float | None:
    return max((v for v in values if v is not None), default=None)


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
