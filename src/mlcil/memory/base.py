"""What the loop asks of a memory, and the labels that stored images carry.

Nothing is copied: a stored image is a row of the training table and the session it was stored in. Its pixels
are read from disk again and pass the training transforms again.

Legend: N images, M stored images, C classes seen so far.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from mlcil.errors import UserError

#: which labels a replayed image carries, see :class:`Memory`
LABELS = ("oracle", "frozen", "propagate")


class Memory(ABC):
    """Base of the memories.

    Args:
        labels: which labels a replayed image carries: ``oracle`` (KRT official behaviour: ground truth for
            its own session's classes and all later ones), ``frozen`` (its own session's classes only, absent
            otherwise), or ``propagate`` (its own labels, and for all other seen classes what the network of
            the session that knew both said; a running session's classes are not judged on it).

    Raises:
        UserError: unknown ``labels``.
    """

    #: every batch of new images comes with as many stored ones, drawn anew; else stored images are among the new ones
    beside = False
    views = "test"  # what ``update`` looks at: images as in a test, or one augmented view each as in a "train" epoch

    def __init__(self, labels: str) -> None:
        if labels not in LABELS:
            raise UserError(f"memory: labels {labels!r} is unknown; use one of {', '.join(map(repr, LABELS))}")
        self.labels = labels
        self.given: dict[int, np.ndarray] = {}  # row -> (C,) int8, only with ``propagate``
        self.thresholds: list[float] = []  # score threshold of each class, only with ``propagate``

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

    def propagate(
        self, low: int, rows: np.ndarray, scores_NC: np.ndarray, truth_NC: np.ndarray, origins: np.ndarray
    ) -> None:
        """Fill in the labels that nobody gave, after :meth:`update`.

        A class gets the score threshold with the best F1 on the images of the session that introduced it
        (the first of equals, label propagation replay), and keeps it.

        Args:
            low: first class of the session that ends.
            rows: (N,) the session's new images, then stored images of earlier sessions.
            scores_NC: (N, C) scores of the trained network.
            truth_NC: (N, C) given labels of the session; rows of earlier sessions are not looked at.
            origins: (N,) 1 for new images, 0 for earlier ones.
        """
        new = origins == 1
        self.thresholds = self.thresholds[:low]
        for c in range(low, scores_NC.shape[1]):
            self.thresholds.append(best_f1_threshold(scores_NC[new, c], truth_NC[new, c]))
        guessed_NC = (scores_NC > np.asarray(self.thresholds)).astype(np.int8)
        stored = set(self.contents()[0].tolist())
        for row, is_new, guess_C, truth_C in zip(rows.tolist(), new, guessed_NC, truth_NC, strict=True):
            if row not in stored:
                continue
            known = self.given.get(row, guess_C[:low])[:low]
            self.given[row] = np.concatenate([known, (truth_C if is_new else guess_C)[low:]]).astype(np.int8)
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


def best_f1_threshold(scores_N: np.ndarray, truth_N: np.ndarray) -> float:
    """The largest midpoint between two neighbouring scores with the best F1; 0.5 without positives or negatives.

    Args:
        scores_N: (N,) in [0, 1].
        truth_N: (N,) 1 or not.
    """
    positive_N = truth_N == 1
    if not positive_N.any() or positive_N.all():
        return 0.5
    order = np.argsort(-scores_N, kind="stable")
    sorted_N = scores_N[order]
    hits_N = np.cumsum(positive_N[order])
    f1_N = 2 * hits_N / (np.arange(1, len(hits_N) + 1) + hits_N[-1])
    f1_N[:-1][sorted_N[:-1] == sorted_N[1:]] = -1  # a threshold cannot split equal scores
    best = int(np.argmax(f1_N))
    below = sorted_N[best + 1] if best + 1 < len(sorted_N) else 0.0
    return float((sorted_N[best] + below) / 2)
