"""Which images a memory keeps.

Legend: N images, D embedding width, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

MAX_ITERATIONS = 1000
_EPS = 1e-8


def herding(features_ND: np.ndarray, count: int, fill: bool = False) -> list[int]:
    """Greedy choice whose running mean follows the class mean (Rebuffi et al., iCaRL, CVPR 2017, algorithm 4).

    KRT official behaviour: features are divided by (norm + 1e-8); ``w`` starts at the mean; every iteration
    picks the image with the largest ``w . f`` over ALL images (the first on ties), keeps it when it is new,
    and adds ``mean - f`` to ``w`` in any case; after 1000 iterations the choice is what it is.

    Args:
        features_ND: (N, D) embeddings of one class.
        count: how many are wanted; all when N is smaller.
        fill: add the first images that were not chosen when the iterations end too early (DyTox, DKT).

    Returns:
        Positions in the order of choice.
    """
    if len(features_ND) == 0:
        return []
    features = features_ND / (np.linalg.norm(features_ND, axis=1, keepdims=True) + _EPS)
    mean = features.mean(0)
    w = mean.copy()
    chosen: list[int] = []
    seen: set[int] = set()
    for _ in range(MAX_ITERATIONS):
        if len(chosen) == min(count, len(features)):
            break
        pick = int(np.argmax(features @ w))
        if pick not in seen:
            seen.add(pick)
            chosen.append(pick)
        w = w + mean - features[pick]
    if fill:
        chosen += [i for i in range(len(features)) if i not in seen][: count - len(chosen)]
    return chosen


def per_class_herding(
    features_ND: np.ndarray, targets_NC: np.ndarray, low: int, high: int, count: int, fill: bool = False
) -> list[list[int]]:
    """Herding among the images of each class of [low, high); a class without images gets an empty list."""
    lists = []
    for c in range(low, high):
        candidates = np.flatnonzero(targets_NC[:, c] == 1)
        lists.append([int(candidates[i]) for i in herding(features_ND[candidates], count, fill)])
    return lists


def random_selection(candidates: np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    """``count`` draws with replacement, without removing duplicates (KRT official behaviour)."""
    return [int(i) for i in rng.choice(candidates, size=count, replace=True)] if len(candidates) else []


def deduplicate(per_class: Sequence[Sequence[int]], stored: Iterable[int]) -> list[list[int]]:
    """Drop images chosen before, by an earlier class or an earlier session; nothing is drawn in their place."""
    taken = set(stored)
    kept: list[list[int]] = []
    for chosen in per_class:
        fresh = [i for i in chosen if i not in taken]
        taken.update(fresh)
        kept.append(fresh)
    return kept


def truncate_to_budget(per_class: Sequence[Sequence[int]], budget: int, hard_cap: bool = True) -> list[list[int]]:
    """Cut every list to its first ceil(budget / classes) entries.

    The ceiling may exceed the budget (official); with ``hard_cap`` the last entries of the last classes go
    until it fits.
    """
    if not per_class:
        return []
    share = math.ceil(budget / len(per_class))
    cut = [list(chosen[:share]) for chosen in per_class]
    if hard_cap:
        # the longest lists give first, and among equals the later classes
        for i in sorted(range(len(cut)), key=lambda i: (len(cut[i]), i), reverse=True):
            excess = sum(map(len, cut)) - budget
            if excess <= 0:
                break
            if cut[i]:
                cut[i].pop()
    return cut
