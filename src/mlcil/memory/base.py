"""What the loop asks of a memory, and the labels that stored images carry.

Nothing is copied: a stored image is a row of the training table and the session it was stored in. Its pixels
are read from disk again and pass the training transforms again.

Legend: N images, M stored images, C classes seen so far.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from mlcil.datasets.scenario import PROPAGATED, REPLAY_LABELS
from mlcil.errors import UserError

#: share of a session's new images that thresholds are chosen on
HELD_OUT = 0.1
#: thresholds that are tried
GRID = np.arange(1, 10_000) / 10_000


class Memory(ABC):
    """Base of the memories.

    Args:
        labels: which labels a replayed image carries: ``oracle`` (KRT official behaviour: ground truth for
            its own session's classes and all later ones), ``frozen`` (its own session's classes only, absent
            otherwise), ``propagate`` (its own, earlier classes by the network before the session that it comes from,
            later ones by the network that has just learned them; a running session's classes are not judged on it),
            or ``rclp`` (the same, and a session's new images too are given old classes by the network before it).

    The latter two are the label propagation of RCLP (its loss: :mod:`mlcil.methods.rclp`): a tenth of a session's new
    images is not trained on, and with it every class of the session gets the score threshold of the best F1, for good.

    Raises:
        UserError: unknown ``labels``.
    """

    #: every batch of new images comes with as many stored ones, drawn anew; else stored images are among the new ones
    beside = False
    seed: int  # of all draws
    views = "test"  # what ``update`` looks at: images as in a test, or one augmented view each as in a "train" epoch

    def __init__(self, labels: str) -> None:
        if labels not in REPLAY_LABELS:
            raise UserError(f"memory: labels {labels!r} is unknown; use one of {', '.join(map(repr, REPLAY_LABELS))}")
        self.labels = labels
        self.propagates = labels in PROPAGATED
        self.given: dict[int, np.ndarray] = {}  # row -> (C,) int8 of stored images, only when labels are propagated
        self.thresholds: list[float] = []  # score threshold of each class, likewise
        self.guessed: dict[int, np.ndarray] = {}  # row -> (O,) int8 of the running session's new images, likewise

    def __len__(self) -> int:
        """Stored entries; an image that two classes chose counts twice."""
        return len(self.contents()[0])

    @abstractmethod
    def contents(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows (M,) int64 and the session each was stored in (M,)."""

    def begin_session(self) -> None:
        """Told before a session's images are put together."""
        return None

    @abstractmethod
    def update(
        self, session: int, low: int, high: int, rows: np.ndarray, features_ND: np.ndarray, targets_NC: np.ndarray
    ) -> dict[str, int]:
        """Take in images of a session that ends.

        Args:
            session: its index.
            low, high: its classes.
            rows: (N,) rows of its new images.
            features_ND: (N, D) pooled embeddings, with the transforms of ``views``.
            targets_NC: (N, >= high) given labels.

        Returns:
            Counts for the log: ``chosen`` now, ``stored`` of them, and the ``total`` in memory.
        """

    def replayed(self, session: int, new_images: int) -> np.ndarray:
        """Positions in :meth:`contents` that a session is trained on: all of them."""
        del session, new_images
        return np.arange(len(self))

    def image_bytes(self, image_size: int) -> int:
        """Bytes of the stored images as uint8 pixels at the training size, each image once."""
        return len(np.unique(self.contents()[0])) * 3 * image_size * image_size

    # -- propagated labels ----------------------------------------------------------------------------------

    def set_aside(self, session: int, targets_NC: np.ndarray) -> np.ndarray:
        """Which of a session's new images are not trained on, (N,) bool; every class keeps at least one image.

        Args:
            session: its index.
            targets_NC: (N, C) given labels.
        """
        aside = np.zeros(len(targets_NC), bool)
        if not self.propagates:
            return aside
        shown_NC = targets_NC == 1
        left_C = shown_NC.sum(0)
        for n in np.random.default_rng((self.seed, session)).permutation(len(aside)):
            if aside.sum() < round(HELD_OUT * len(aside)) and (left_C[shown_NC[n]] > 1).all():
                aside[n] = True
                left_C = left_C - shown_NC[n]
        return aside

    def guess(self, rows: np.ndarray, scores_NO: np.ndarray) -> None:
        """Take in what the network before a session says of old classes on its new images.

        Args:
            rows: (N,) of all new images.
            scores_NO: (N, O) its scores.
        """
        labels_NO = (scores_NO > np.asarray(self.thresholds[: scores_NO.shape[1]])).astype(np.int8)
        self.guessed = dict(zip(rows.tolist(), labels_NO, strict=True))

    def new_targets(self, rows: np.ndarray, targets_NC: np.ndarray) -> np.ndarray:
        """Targets of a session's new images, with ``rclp`` those of old classes too."""
        if self.labels != "rclp" or not self.guessed:
            return targets_NC
        labels_NO = np.stack([self.guessed[row] for row in rows.tolist()])
        return np.concatenate([labels_NO, targets_NC[:, labels_NO.shape[1] :]], 1)

    def propagate(
        self,
        low: int,
        rows: np.ndarray,
        scores_NC: np.ndarray,
        truth_NC: np.ndarray,
        new: np.ndarray,
        aside: np.ndarray,
    ) -> None:
        """Fill in the labels that nobody gave, after :meth:`update`.

        Args:
            low: first class of the session that ends.
            rows: (N,) the session's new images and stored images of earlier sessions.
            scores_NC: (N, C) scores of the trained network.
            truth_NC: (N, C) given labels of the session; rows of earlier sessions are not looked at.
            new: (N,) bool, the session's.
            aside: (N,) bool, those of them that it was not trained on. A class that none of them shows gets its
                threshold from all new images.
        """
        self.thresholds = self.thresholds[:low]
        for c in range(low, scores_NC.shape[1]):
            judged = aside if (truth_NC[aside, c] == 1).any() else new
            self.thresholds.append(best_f1_threshold(scores_NC[judged, c], truth_NC[judged, c]))
        passed_NC = (scores_NC > np.asarray(self.thresholds)).astype(np.int8)
        stored = set(self.contents()[0].tolist())
        nothing = np.zeros(0, np.int8)
        for row, is_new, passed_C, truth_C in zip(rows.tolist(), new, passed_NC, truth_NC, strict=True):
            if row in stored:
                known = self.given.get(row, self.guessed.get(row, nothing))[:low]
                self.given[row] = np.concatenate([known, (truth_C if is_new else passed_C)[low:]]).astype(np.int8)
        self.given = {row: labels for row, labels in self.given.items() if row in stored}

    def propagated_targets(self, rows: np.ndarray, high: int) -> np.ndarray:
        """(M, high) int8: the labels known of each row; -1 for classes that came after."""
        targets = np.full((len(rows), high), -1, np.int8)
        for target_C, row in zip(targets, rows.tolist(), strict=True):
            known = self.given[int(row)]
            target_C[: len(known)] = known
        return targets

    # -- state ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Builtins only."""
        given = {row: labels.tolist() for row, labels in self.given.items()}
        return {"given": given, "thresholds": list(self.thresholds)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.given = {int(row): np.asarray(labels, np.int8) for row, labels in state["given"].items()}
        self.thresholds = [float(value) for value in state["thresholds"]]


class MemoryByClass(Memory):
    """Base of the memories with a list of images for every class.

    Attributes:
        rows_of_class: class -> rows, the best first.
        session_of_class: class -> the session that its images were stored in.
    """

    def __init__(self, labels: str) -> None:
        super().__init__(labels)
        self.rows_of_class: dict[int, list[int]] = {}
        self.session_of_class: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self.rows_of_class.values()))

    def contents(self) -> tuple[np.ndarray, np.ndarray]:
        classes = sorted(self.rows_of_class)
        rows = [row for c in classes for row in self.rows_of_class[c]]
        origins = [self.session_of_class[c] for c in classes for _ in self.rows_of_class[c]]
        return np.asarray(rows, np.int64), np.asarray(origins, np.int64)

    def state_dict(self) -> dict[str, Any]:
        mine = {"rows_of_class": self.rows_of_class, "session_of_class": self.session_of_class}
        return {**super().state_dict(), **mine}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.rows_of_class = {int(c): [int(r) for r in rows] for c, rows in state["rows_of_class"].items()}
        self.session_of_class = {int(c): int(s) for c, s in state["session_of_class"].items()}


def best_f1_threshold(scores_N: np.ndarray, truth_N: np.ndarray) -> float:
    """The threshold of :data:`GRID` with the best F1, in the middle of the highest such run; 0.5 without positives or
    negatives.

    Args:
        scores_N: (N,) in [0, 1]; what is above the threshold counts as present.
        truth_N: (N,) 1 or not.
    """
    scores_N = np.asarray(scores_N, np.float64)
    positive_N = truth_N == 1
    if not positive_N.any() or positive_N.all():
        return 0.5
    given, hits = (
        len(part) - np.searchsorted(np.sort(part), GRID, "right") for part in (scores_N, scores_N[positive_N])
    )
    f1 = 2 * hits / (given + positive_N.sum())
    best = np.flatnonzero(f1 == f1.max())
    run = best[best - np.arange(len(best)) == best[-1] - len(best) + 1]
    return float(GRID[run[len(run) // 2]])
