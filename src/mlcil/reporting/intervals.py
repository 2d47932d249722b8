"""How sure the difference of two methods is: a paired bootstrap over test images.

The same resampled images judge both methods, in every pair of runs with the same class order and seed. So the interval
is about other test images, not about other seeds or orders, whose deviations stand beside the means.

Legend: N test images, C classes, P positives of a class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mlcil.errors import UserError
from mlcil.evaluation.metrics import metrics_of
from mlcil.evaluation.multilabel import EPS
from mlcil.reporting.comparison import find_results, place_of, task_of
from mlcil.reporting.contact_sheet import Scores, read_scores
from mlcil.reporting.run_settings import settings_of

REPLICATES = 500
SEED = 20231  # of the resampled images, the same for every comparison
LEVEL = 95  # percent

#: below a table of differences
NOTE = (
    "Difference of the main number after the last session, runs paired by class order and seed; interval: paired "
    "bootstrap over the test images."
)

Measured = Callable[[np.ndarray], float]  # how often each image counts (N,) -> percent


@dataclass(frozen=True)
class Interval:
    """Mean difference over pairs of runs in points, with an interval of :data:`LEVEL` percent."""

    difference: float
    low: float
    high: float
    pairs: int


def paired(pairs: Sequence[tuple[Scores, Scores]], single: bool = False, skip: bool = False) -> Interval | None:
    """The second run's main number after the last session less the first one's.

    Args:
        pairs: runs of two methods, each pair with the same class order and seed.
        single: every image shows one class: accuracy in place of mAP.
        skip: see :func:`mean_ap`.

    Returns:
        ``None`` without a pair, or where runs have other test images than the first one.
    """
    if not pairs or any(scores.paths != pairs[0][0].paths for pair in pairs for scores in pair):
        return None
    measure = accuracy if single else partial(mean_ap, skip=skip)
    measured = [(measure(first), measure(second)) for first, second in pairs]
    shown = np.flatnonzero(pairs[0][0].shown_N)
    everything = np.zeros(len(pairs[0][0].paths), np.int64)
    everything[shown] = 1

    def difference(times_N: np.ndarray) -> float:
        return float(np.mean([second(times_N) - first(times_N) for first, second in measured]))

    generator = np.random.default_rng(SEED)
    found = [
        difference(np.bincount(shown[generator.integers(0, len(shown), len(shown))], minlength=len(everything)))
        for _ in range(REPLICATES)
    ]
    low, high = np.percentile(found, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return Interval(difference(everything), float(low), float(high), len(pairs))


def accuracy(scores: Scores) -> Measured:
    """Share of the images whose highest score is that of their class."""
    right_N = np.nan_to_num(scores.scores_NS, nan=-1.0).argmax(1) == scores.targets_NS.argmax(1)
    return lambda times_N: float(100 * (times_N * right_N).sum() / max(times_N.sum(), 1))


def mean_ap(scores: Scores, skip: bool = False) -> Measured:
    """MAP of any number of copies of each image; a class that no test image shows counts as 0, or not with ``skip``.

    A copy stands behind its original in the ranking: k copies of a positive behind p positives and r images add
    (p + j) / (r + j) for j = 1 ... k to the class's sum of precisions.
    """
    ranked = []
    for column in range(scores.scores_NS.shape[1]):
        values_N, targets_N = scores.scores_NS[:, column], scores.targets_NS[:, column]
        rows = np.flatnonzero((targets_N >= 0) & np.isfinite(values_N))
        rows = rows[np.argsort(-values_N[rows], kind="stable")]
        places_P = np.flatnonzero(targets_N[rows] == 1)
        if len(places_P):
            ranked.append((rows, places_P))

    def measure(times_N: np.ndarray) -> float:
        total = 0.0
        for rows, places_P in ranked:
            times = times_N[rows]
            copies_P = times[places_P]
            before_P = np.cumsum(times)[places_P] - copies_P
            positives_P = np.cumsum(copies_P) - copies_P
            found = 0.0
            for copy in range(1, int(copies_P.max()) + 1):
                some = copies_P >= copy
                found += float(((positives_P[some] + copy) / (before_P[some] + copy)).sum())
            total += found / (float(copies_P.sum()) + EPS)
        return 100 * total / max(len(ranked) if skip else scores.scores_NS.shape[1], 1)

    return measure


def differences(groups: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Interval]:
    """Every group but the first against the first one, over the runs of the same class order and seed.

    Args:
        groups: label -> folder -> content of results.json; runs without scores, or with damaged ones, do not count.
    """
    (_, first), *others = groups.items()
    base = {place_of(run): _scores(name, run) for name, run in first.items()}
    single = any(task_of(run) == "single_label" for run in first.values())
    skip = any(settings_of(run).get("empty_classes") == "skip" for run in first.values())
    found = {}
    for label, members in others:
        pairs = []
        for name, run in members.items():
            ours, theirs = base.get(place_of(run)), _scores(name, run)
            if ours is not None and theirs is not None:
                pairs.append((ours, theirs))
        interval = paired(pairs, single, skip)
        if interval is not None:
            found[label] = interval
    return found


def _scores(folder: str, run: Mapping[str, Any]) -> Scores | None:
    single = task_of(run) == "single_label"
    seen = len(run["sessions"][-1][metrics_of(run["sessions"][-1]).per_class])
    try:
        return read_scores(find_results(Path(folder)).parent, len(run["sessions"]), seen, single)
    except UserError:
        return None


def difference_cells(first: str, found: Mapping[str, Interval]) -> list[list[str]]:
    """Header and rows of a table of differences."""
    rows = [[f"less {first}", "pairs of runs", "difference (points)", f"{LEVEL}% interval"]]
    for label, interval in found.items():
        between = f"{interval.low:+.1f} to {interval.high:+.1f}"
        rows.append([label, str(interval.pairs), f"{interval.difference:+.1f}", between])
    return rows
