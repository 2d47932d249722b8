"""KRT's dynamic pseudo-labels (DPL): a threshold so that old classes get about as many labels as expected.

KRT section 3.3, and the search of the authors' release: start at the previous session's threshold, move it
by ``step`` until the old-class labels per image come within ``band`` of the target. Where the official
search raises after 100 evaluations, the visited threshold that came nearest is kept.

Legend: N images, B images of a batch, O old classes, C seen classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlcil.models.numerics import at_least_float32
from mlcil.schema import AboveZero, Count, Share, Weight

HIGHEST, LOWEST = 0.999999, 0.0001


@dataclass(frozen=True)
class ThresholdSearch:
    """Settings of the search; the defaults are the official constants."""

    start: Share = 0.8
    step: AboveZero = 0.005
    band: Weight = 0.1
    max_evaluations: Count = 100
    strict: bool = False  # raise instead of keeping the nearest threshold


@dataclass(frozen=True)
class SearchResult:
    """What the search found."""

    threshold: float
    reached: float  # old-class labels per image at the threshold
    target: float
    evaluations: int
    landed: bool  # within the band
    last_threshold: float  # where the official loop stands at its end (equal to threshold when landed)


def sorted_counter(logits_NO: Tensor) -> Callable[[float], int]:
    """A function that counts scores strictly above a threshold, from one sort.

    Scores are float32 sigmoids, and a threshold is compared the way PyTorch compares a float32 tensor with
    a python number: after rounding it to float32. As there, a score that is not a number is never above.

    Args:
        logits_NO: (N, O), any floating dtype and device.
    """
    scores = torch.sigmoid(logits_NO.detach().float()).flatten().cpu().numpy()
    scores = np.sort(scores[~np.isnan(scores)])
    return lambda threshold: int(len(scores) - np.searchsorted(scores, np.float32(threshold), side="right"))


def search_threshold_from_count(
    count_above: Callable[[float], float],
    num_images: int,
    target: float,
    search: ThresholdSearch,
    start: float | None = None,
) -> SearchResult:
    """The official search over a function that counts scores above a threshold (over all processes).

    Args:
        count_above: number of scores strictly above a threshold.
        num_images: N.
        target: labels per image aimed at.
        search: settings.
        start: first threshold; default ``search.start``.

    Raises:
        ValueError: there is no image to count on.
        RuntimeError: nothing landed and ``search.strict``.
    """
    if num_images < 1:
        raise ValueError("the pseudo-label threshold cannot be searched without images")
    theta = search.start if start is None else start
    nearest, gap, reached_there = theta, float("inf"), float("nan")
    for evaluation in range(1, search.max_evaluations + 1):
        reached = float(np.float32(count_above(theta)) / np.float32(num_images))
        if abs(reached - target) < gap:
            nearest, gap, reached_there = theta, abs(reached - target), reached
        if reached > target + search.band:
            theta = min(HIGHEST, theta + search.step)
        elif reached < target - search.band:
            theta = max(LOWEST, theta - search.step)
        else:
            return SearchResult(theta, reached, target, evaluation, True, theta)
    if search.strict:
        raise RuntimeError(
            f"no threshold gives {target:.3f} labels per image within {search.band} after "
            f"{search.max_evaluations} evaluations; the nearest, {nearest:.4f}, gives {reached_there:.3f}"
        )
    return SearchResult(nearest, reached_there, target, search.max_evaluations, False, theta)


def search_threshold(
    logits_NO: Tensor, target: float, search: ThresholdSearch | None = None, start: float | None = None
) -> SearchResult:
    """The search on one process's old-class logits (N, O)."""
    return search_threshold_from_count(
        sorted_counter(logits_NO), len(logits_NO), target, search or ThresholdSearch(), start
    )


def apply_pseudo_labels(targets_BC: Tensor, old_logits_BO: Tensor, threshold: float | Tensor) -> Tensor:
    """New targets (B, C): 1 where the teacher's score of an old class is above the threshold, else as given.

    Pseudo-labels only ever set 1; they never remove a label. Scores and threshold are compared in float32 (float64
    for logits of that kind), as in the search: half precision would round 0.9985 and above to 1, which nothing exceeds.

    Args:
        targets_BC: (B, C) given labels.
        old_logits_BO: (B, O) the teacher's logits.
        threshold: one for all old classes, or (O,) one a class.
    """
    old = old_logits_BO.shape[1]
    scores_BO = torch.sigmoid(at_least_float32(old_logits_BO))
    fires = scores_BO > (threshold.to(scores_BO) if isinstance(threshold, Tensor) else threshold)
    return torch.cat([targets_BC[:, :old].masked_fill(fires, 1.0), targets_BC[:, old:]], 1)


def mean_score_of_positives(logits_NC: Tensor, targets_NC: Tensor) -> Tensor:
    """(C,) mean score of the images that show a class, 1 (never exceeded) for a class that none shows.

    The per-class threshold of recall ``class``: a later image is labelled when the teacher is as sure as it
    was, on average, of the images it learned the class from.
    """
    return mean_over_positives(torch.sigmoid(logits_NC), targets_NC, 1.0)


def mean_over_positives(values_NC: Tensor, targets_NC: Tensor, without: float) -> Tensor:
    """(C,) mean of a class's values over the images that show it; ``without`` for a class that none shows."""
    shown_NC = (targets_NC == 1).to(values_NC)
    count_C = shown_NC.sum(0)
    mean_C = (values_NC * shown_NC).sum(0) / count_C.clamp(min=1)
    return torch.where(count_C > 0, mean_C, torch.full_like(mean_C, without))


def quantile_thresholds(logits_NO: Tensor, rates_O: Tensor) -> Tensor:
    """(O,) thresholds above which a share ``rates_O`` of the images scores (recall ``quantile``).

    Args:
        logits_NO: (N, O) the teacher's logits.
        rates_O: (O,) wanted shares in [0, 1]; round(N * rate) images score above the threshold, fewer on ties.
    """
    scores_NO = torch.sigmoid(logits_NO.float()).sort(0, descending=True).values
    images = len(scores_NO)
    kept_O = (rates_O * images).round().long().clamp(0, images)
    below_NO = torch.cat([scores_NO, torch.zeros_like(scores_NO[:1])])
    # the best score that is not to fire; with nothing to leave out, everything above 0
    return below_NO.gather(0, kept_O[None])[0]
