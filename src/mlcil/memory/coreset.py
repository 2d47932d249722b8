"""The memory of ABD's tables: a fixed number of images, one class each, shared equally by the classes seen.

Behaviour of ABD's release (ICCV 2021), where the memory is called coreset. Legend: N images, D embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mlcil.errors import UserError
from mlcil.memory.base import MemoryByClass
from mlcil.schema import Natural

SELECTIONS = ("random_coreset", "nearest_coreset", "herding_coreset")


def _draws(seed: int) -> np.random.RandomState:
    return np.random.RandomState(seed % 2**32)  # it takes no larger ones


def quotas(candidates: Mapping[int, int], total: int) -> dict[int, int]:
    """How many images each class keeps.

    Everyone gets ``total // classes``; what is left over goes one each to the newest classes that have more
    candidates than that. Nobody gets more than its candidates.

    Args:
        candidates: images to choose from, by class index, for all classes seen.
        total: images in all.
    """
    share, left = divmod(total, len(candidates))
    found = {}
    for c in sorted(candidates, reverse=True):
        extra = int(left > 0 and candidates[c] > share)
        left -= extra
        found[c] = min(share + extra, candidates[c])
    return dict(sorted(found.items()))


def draw_classes(labels_N: np.ndarray, total: int, rng: np.random.RandomState) -> dict[int, list[int]]:
    """Positions drawn without replacement by :func:`quotas`, from the newest class to the oldest."""
    where = {int(c): np.flatnonzero(labels_N == c) for c in np.unique(labels_N)}
    counts = quotas({c: len(positions) for c, positions in where.items()}, total)
    drawn = {c: rng.choice(where[c], counts[c], replace=False) for c in sorted(where, reverse=True)}
    return {c: [int(i) for i in drawn[c]] for c in sorted(drawn)}


def nearest_to_mean(features_ND: np.ndarray) -> list[int]:
    """All positions of a class, those nearest to its mean embedding first (E2E), the first on ties."""
    distances = np.linalg.norm(features_ND - features_ND.mean(0), axis=1)
    return [int(i) for i in np.argsort(distances, kind="stable")]


def greedy_herding(features_ND: np.ndarray, count: int) -> list[int]:
    """``count`` positions of a class, each the one that brings the mean of the chosen nearest to the class mean.

    Features are not normalised (BiC); the first on ties.
    """
    mean = features_ND.mean(0)
    chosen: list[int] = []
    total = np.zeros_like(mean)
    left = np.ones(len(features_ND), bool)
    for step in range(min(count, len(features_ND))):
        distances = np.linalg.norm(mean - (features_ND + total) / (step + 1), axis=1)
        distances[~left] = np.inf
        pick = int(np.argmin(distances))
        chosen.append(pick)
        left[pick] = False
        total = total + features_ND[pick]
    return chosen


class CoresetMemory(MemoryByClass):
    """``total`` images, shared equally by all classes seen; every image shows one class.

    Args:
        total: images in all.
        selection: ``random_coreset`` draws all classes anew from the images that a session was trained on (so
            old classes slowly lose distinct images), ``nearest_coreset`` keeps the images nearest to the class
            mean (E2E), ``herding_coreset`` follows the class mean (BiC); the latter two only shorten the lists
            of old classes.
        oversample: a session trains on as many replayed images as it has new ones, drawn with replacement;
            ``None`` means with ``random_coreset`` only.
        seed: of the draws.
        labels: see :class:`~mlcil.memory.base.Memory`; of no consequence for images of one class each.

    Raises:
        UserError: no budget, one of no image, or an unknown selection.
    """

    def __init__(
        self,
        total: int | None = None,
        selection: str = "random_coreset",
        oversample: bool | None = None,
        seed: Natural = 0,
        labels: str = "oracle",
    ) -> None:
        super().__init__(labels)
        if total is None or total < 1:
            raise UserError(f"memory: a coreset of total={total} images; give memory.total of at least 1")
        if selection not in SELECTIONS:
            raise UserError(f"memory: selection {selection!r} is unknown; use one of {', '.join(SELECTIONS)}")
        self.total, self.selection, self.seed = total, selection, seed
        self.oversample = selection == "random_coreset" if oversample is None else oversample

    def classes(self) -> np.ndarray:
        """Class index of every image of :meth:`contents`, (M,) int64."""
        return np.repeat(sorted(self.rows_of_class), [len(self.rows_of_class[c]) for c in sorted(self.rows_of_class)])

    def replayed(self, session: int, new_images: int) -> np.ndarray:
        if not self.oversample:
            return np.arange(len(self))
        return _draws(100 * self.seed + session).choice(len(self), new_images)

    def update(
        self, session: int, low: int, high: int, rows: np.ndarray, features_ND: np.ndarray, targets_NC: np.ndarray
    ) -> dict[str, int]:
        labels_N = targets_NC.argmax(1)
        if self.selection == "random_coreset":
            if len(self):
                again = self.replayed(session, len(rows))
                rows = np.concatenate([rows, self.contents()[0][again]])
                labels_N = np.concatenate([labels_N, self.classes()[again]])
            drawn = draw_classes(labels_N, self.total, _draws(self.seed * 10000 + session))
            self.rows_of_class = {c: [int(rows[i]) for i in positions] for c, positions in drawn.items()}
        else:
            for c in range(low, high):
                positions = np.flatnonzero(labels_N == c)
                if len(positions):
                    order = self._order(features_ND[positions])
                    self.rows_of_class[c] = [int(rows[i]) for i in positions[order]]
            counts = quotas({c: len(kept) for c, kept in self.rows_of_class.items()}, self.total)
            self.rows_of_class = {c: self.rows_of_class[c][: counts[c]] for c in counts}
        self.session_of_class.update({c: session for c in range(low, high) if c in self.rows_of_class})
        chosen = sum(len(self.rows_of_class.get(c, [])) for c in range(low, high))
        return {"chosen": chosen, "stored": chosen, "total": len(self)}

    def _order(self, features_ND: np.ndarray) -> list[int]:
        if self.selection == "nearest_coreset":
            return nearest_to_mean(features_ND)
        return greedy_herding(features_ND, self.total)
