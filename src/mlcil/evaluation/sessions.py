"""All metrics of a session from one score matrix, and of a run from its sessions.

Two test sets stand side by side. *Growing* (official): the images that show a class of the split in
question; the set grows with the sessions, so mAP falls even for a scorer that never changes. *Fixed*: the
same images in every session; forgetting, backward transfer and plasticity are computed there only.

Legend: N test images, C classes of the scenario, S seen classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlcil.evaluation.multilabel import average_precision, mean_of_ap, precision_recall_f1

GLOSSARY: dict[str, str] = {
    "mAP": "mean AP in percent on test images showing at least one class of the split (official, growing)",
    "fixed_mAP": "mean AP in percent on the same test images in every session",
    "base / seen / new / old": "classes of session 0 / all so far / of this session / of earlier sessions",
    "average_mAP": "mean over sessions, session 0 included, of mAP on seen classes",
    "average_mAP_without_base": "the same without session 0",
    "last_mAP": "mAP on seen classes after the last session",
    "average_fixed_mAP": "mean over sessions, session 0 included, of fixed_mAP on seen classes",
    "last_fixed_mAP": "fixed_mAP on seen classes after the last session",
    "forgetting": "mean over old classes of the best earlier fixed AP minus the last fixed AP (points)",
    "forgetting_learned": "the same with the fixed AP right after the class was learned instead of the best",
    "backward_transfer": "minus forgetting_learned",
    "plasticity": "mean over classes of the fixed AP in the session that brought the class (percent)",
    "judged": "share of the labels that are known; the others count in no metric",
    "CF1_mean": "mean of the classes' F1 (KRT)",
    "CF1_harmonic": "2 CP CR / (CP + CR) (ASL, ML-GCN)",
    "CP / CR": "mean over classes of precision / recall in percent, score above the threshold",
    "OP / OR / OF1": "precision / recall / F1 in percent from the counts of all classes together",
}


def needed_rows(selects_NC: np.ndarray, high: int, fixed_rows: np.ndarray) -> np.ndarray:
    """Rows that any metric of a session with ``high`` seen classes needs, sorted."""
    shown = np.flatnonzero(selects_NC[:, :high].any(1))
    return np.union1d(shown, fixed_rows)


def evaluate_session(
    scores_NS: np.ndarray,
    targets_NC: np.ndarray,
    *,
    selects_NC: np.ndarray,
    low: int,
    high: int,
    base_high: int,
    fixed_rows: np.ndarray,
    thresholds: Sequence[float] = (0.8, 0.5),
    empty_as: str = "zero",
) -> dict[str, Any]:
    """Metrics of one session as builtins (None where a number does not exist).

    Args:
        scores_NS: (N, high) scores of all test images; rows that no metric needs may be NaN.
        targets_NC: (N, C) labels, 1, 0 or -1 (not judged).
        selects_NC: (N, C) bool, class c makes image n part of a test set that holds c.
        low, high: classes of the session.
        base_high: number of classes of session 0.
        fixed_rows: rows of the fixed test set.
        thresholds: score thresholds of precision, recall and F1.
        empty_as: policy for classes without positives, see
            :func:`~mlcil.evaluation.multilabel.mean_average_precision`.

    Returns:
        ``mAP`` (growing set) and ``fixed_mAP`` {base, seen, new; fixed also old}, ``f1`` and ``fixed_f1``
        {threshold: measures} on seen classes, ``AP`` and ``fixed_AP`` per seen class, all in percent;
        ``images`` per test set; ``classes_without_positives``: seen classes that no image of the growing
        seen set shows; where labels of the growing seen set are unknown, ``judged``: the share of the others.
    """
    splits = {"base": (0, min(base_high, high)), "seen": (0, high), "new": (low, high)}
    growing = {name: np.flatnonzero(selects_NC[:, a:b].any(1)) for name, (a, b) in splits.items()}
    result: dict[str, Any] = {"mAP": {}, "fixed_mAP": {}, "images": {k: len(v) for k, v in growing.items()}}
    result["images"]["fixed"] = len(fixed_rows)
    for name, (a, b) in splits.items():
        rows = growing[name]
        ap = average_precision(scores_NS[rows, a:b], targets_NC[rows, a:b])
        result["mAP"][name] = mean_of_ap(ap, empty_as)
        if name == "seen":
            result["AP"] = _percent(ap)
    fixed_ap = average_precision(scores_NS[fixed_rows, :high], targets_NC[fixed_rows, :high])
    result["fixed_AP"] = _percent(fixed_ap)
    for name, (a, b) in {**splits, "old": (0, low)}.items():
        result["fixed_mAP"][name] = mean_of_ap(fixed_ap[a:b], empty_as) if b > a else None
    for key, rows in (("f1", growing["seen"]), ("fixed_f1", fixed_rows)):
        result[key] = {
            f"{t:g}": _clean(precision_recall_f1(scores_NS[rows, :high], targets_NC[rows, :high], t))
            for t in thresholds
        }
    positives = (targets_NC[growing["seen"], :high] == 1).any(0)
    result["classes_without_positives"] = [int(c) for c in np.flatnonzero(~positives)]
    judged = targets_NC[growing["seen"], :high] >= 0
    if not judged.all():
        result["judged"] = float(judged.mean())
    return result


def summarise(sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers of a run (terms: :data:`GLOSSARY`) from its sessions' results, in order."""
    if not sessions:
        return {}
    seen = [s["mAP"]["seen"] for s in sessions]
    fixed_seen = [s["fixed_mAP"]["seen"] for s in sessions]
    table = [[math.nan if v is None else v for v in s["fixed_AP"]] for s in sessions]
    sizes = [len(row) for row in table]
    learned = [next(t for t, size in enumerate(sizes) if c < size) for c in range(sizes[-1])]
    last = table[-1]
    old = [c for c in range(sizes[-1]) if learned[c] < len(table) - 1]
    best = [max(table[t][c] for t in range(learned[c], len(table) - 1)) for c in old]
    forgotten = _mean([b - last[c] for b, c in zip(best, old, strict=True)])
    lost = _mean([table[learned[c]][c] - last[c] for c in old])
    return {
        "average_mAP": _mean(seen),
        "average_mAP_without_base": _mean(seen[1:]),
        "last_mAP": seen[-1],
        "average_fixed_mAP": _mean(fixed_seen),
        "last_fixed_mAP": fixed_seen[-1],
        "forgetting": forgotten,
        "forgetting_learned": lost,
        "backward_transfer": None if lost is None else -lost,
        "plasticity": _mean([table[learned[c]][c] for c in range(sizes[-1])]),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    kept = [v for v in values if v is not None and not math.isnan(v)]
    return sum(kept) / len(kept) if kept else None


def _percent(ap: np.ndarray) -> list[float | None]:
    return [None if math.isnan(v) else float(100 * v) for v in ap]


def _clean(values: Mapping[str, float]) -> dict[str, float | None]:
    return {k: None if math.isnan(v) else v for k, v in values.items()}
