"""Memories that watch a stream of images with a fixed budget: reservoir, PRS and OCDM.

Sessions pass through once, image by image, in a seeded order, when they end. Labels are those that the
session gives; an image that comes again with other labels is a new sample of the stream.

Legend: M stored samples, C classes seen so far.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlcil.errors import UserError
from mlcil.memory.base import Memory
from mlcil.schema import Count, Natural

SELECTIONS = ("reservoir", "prs", "ocdm")


class StreamingMemory(Memory):
    """A fixed number of images; every batch of new ones comes with as many of them, as in the papers.

    Args:
        total: M, the budget.
        selection: ``reservoir`` (every image of the stream with equal probability, Vitter 1985),
            ``prs`` (:func:`partitioning_reservoir`) or ``ocdm`` (:func:`match_distribution`).
        labels: see :class:`~mlcil.memory.base.Memory`.
        power: rho of PRS and OCDM; a class's target share is proportional to (its count in the stream)^rho.
            0 asks for equal shares, 1 for those of the stream.
        batch: images that OCDM takes in at a time.
        seed: seed of the order of the stream and of all draws.

    Raises:
        UserError: a budget below one, or an unknown option.
    """

    beside = True

    def __init__(
        self,
        total: int,
        selection: str = "reservoir",
        labels: str = "oracle",
        power: float = 0.0,
        batch: Count = 16,
        seed: Natural = 0,
    ) -> None:
        super().__init__(labels)
        if type(total) is not int or total < 1:
            raise UserError(f"memory: total is {total!r}; expected at least one image")
        if selection not in SELECTIONS:
            raise UserError(f"memory: selection {selection!r} is unknown; use one of {', '.join(SELECTIONS)}")
        self.total, self.selection = total, selection
        self.power, self.batch, self.seed = power, batch, seed
        self.rows: list[int] = []
        self.sessions: list[int] = []
        self.labels_of: list[list[int]] = []  # class indices given when stored
        self.seen = 0  # images of the stream so far
        self.counts: list[int] = []  # (C,) labels of the stream so far

    def contents(self) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self.rows, np.int64), np.asarray(self.sessions, np.int64)

    def update(
        self, session: int, low: int, high: int, rows: np.ndarray, features_ND: np.ndarray, targets_NC: np.ndarray
    ) -> dict[str, int]:
        rng = np.random.default_rng((self.seed, session))
        self.counts = [*self.counts, *[0] * (high - len(self.counts))]
        order = rng.permutation(len(rows))
        stream = [(int(rows[n]), np.flatnonzero(targets_NC[n, low:high] == 1) + low) for n in order]
        chosen = 0
        size = self.batch if self.selection == "ocdm" else 1
        for start in range(0, len(stream), size):
            for row, labels in stream[start : start + size]:
                self.seen += 1
                for c in labels:
                    self.counts[c] += 1
                if self._take_in(labels, rng):
                    chosen += 1
                    self.rows.append(row)
                    self.sessions.append(session)
                    self.labels_of.append([int(c) for c in labels])
            if self.selection == "ocdm" and len(self.rows) > self.total:
                for index in sorted(match_distribution(self._label_matrix(), self.shares(), self.total), reverse=True):
                    self._drop(index)
        return {"chosen": chosen, "stored": self.sessions.count(session), "total": len(self.rows)}

    def shares(self) -> np.ndarray:
        """(C,) target share of every class, summing to one."""
        counts = np.asarray(self.counts, np.float64)
        weights = np.where(counts > 0, np.maximum(counts, 1) ** self.power, 0.0)
        return np.asarray(weights / max(weights.sum(), 1e-12))

    def _take_in(self, labels: np.ndarray, rng: np.random.Generator) -> bool:
        """Whether the next image is stored; makes room for it."""
        if self.selection == "ocdm" or len(self.rows) < self.total:
            return True
        if self.selection == "reservoir":
            slot = int(rng.integers(self.seen))
            if slot < self.total:
                self._drop(slot)
            return slot < self.total
        counts, shares = np.asarray(self.counts, np.float64), self.shares()
        if rng.random() >= sample_in_probability(labels, counts, shares, self.total):
            return False
        self._drop(partitioning_reservoir(self._label_matrix(), shares, rng))
        return True

    def _drop(self, index: int) -> None:
        del self.rows[index], self.sessions[index], self.labels_of[index]

    def _label_matrix(self) -> np.ndarray:
        labels_MC = np.zeros((len(self.rows), len(self.counts)), bool)
        for row_C, labels in zip(labels_MC, self.labels_of, strict=True):
            row_C[labels] = True
        return labels_MC

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "rows": list(self.rows),
            "sessions": list(self.sessions),
            "labels_of": [list(labels) for labels in self.labels_of],
            "seen": self.seen,
            "counts": list(self.counts),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.rows, self.sessions = list(state["rows"]), list(state["sessions"])
        self.labels_of = [list(labels) for labels in state["labels_of"]]
        self.seen, self.counts = int(state["seen"]), list(state["counts"])


def sample_in_probability(labels: np.ndarray, counts_C: np.ndarray, shares_C: np.ndarray, total: int) -> float:
    """PRS: with which probability an image enters a full memory (Kim et al., ECCV 2020, section 4.2).

    s = sum over the image's classes of w_i k_i / n_i, with the partition k_i = total * share_i, the stream's
    count n_i, and w the softmax of -n over the image's classes, so that its rarest class decides.

    Args:
        labels: class indices of the image.
        counts_C: (C,) n, with this image counted.
        shares_C: (C,) target shares.
        total: the budget.
    """
    if not len(labels):
        return 0.0
    n = counts_C[labels]
    w = np.exp(-(n - n.min()))
    return float(min(1.0, ((w / w.sum()) * total * shares_C[labels] / n).sum()))


def partitioning_reservoir(labels_MC: np.ndarray, shares_C: np.ndarray, rng: np.random.Generator) -> int:
    """PRS: which stored sample leaves (Kim et al., ECCV 2020, section 4.2).

    A class is drawn among those above their share (softmax of the excess); of its samples those with the
    fewest labels of classes at or below their share are candidates; of these the one leaves whose removal
    brings the label counts nearest to the shares, the first of equals.

    Args:
        labels_MC: (M, C) bool labels of the stored samples.
        shares_C: (C,) target shares.
        rng: draws the class.

    Returns:
        Index of the sample.
    """
    counts_C = labels_MC.sum(0).astype(np.float64)
    excess_C = counts_C - shares_C * counts_C.sum()
    over = np.flatnonzero(excess_C > 1e-9)
    if not len(over):
        return int(rng.integers(len(labels_MC)))
    weight = np.exp(excess_C[over] - excess_C[over].max())
    drawn = int(rng.choice(over, p=weight / weight.sum()))
    candidates = np.flatnonzero(labels_MC[:, drawn])
    scarce = labels_MC[candidates][:, excess_C <= 1e-9].sum(1)
    candidates = candidates[scarce == scarce.min()]
    left_KC = counts_C - labels_MC[candidates]
    distance = np.abs(left_KC - shares_C * left_KC.sum(1, keepdims=True)).sum(1)
    return int(candidates[int(np.argmin(distance))])


def match_distribution(labels_MC: np.ndarray, shares_C: np.ndarray, total: int) -> list[int]:
    """OCDM: which samples leave so that ``total`` are left (Liang and Li, 2022, algorithm 1).

    One after the other, the sample leaves whose removal gives the smallest KL divergence from the memory's
    label distribution to the target; the first of equals.

    Args:
        labels_MC: (M, C) bool labels of memory and batch together.
        shares_C: (C,) target shares; classes with a label have a positive one.
        total: samples that stay.

    Returns:
        Indices of the samples that leave, in the order of leaving.
    """
    labels_MC = labels_MC.astype(np.float64)
    counts_C = labels_MC.sum(0)
    target_C = np.maximum(shares_C, 1e-12)
    stays = np.ones(len(labels_MC), bool)
    left: list[int] = []
    while stays.sum() > total:
        index = np.flatnonzero(stays)
        remaining_MC = counts_C - labels_MC[index]
        p_MC = remaining_MC / np.maximum(remaining_MC.sum(1, keepdims=True), 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms_MC = np.where(p_MC > 0, p_MC * np.log(p_MC / target_C), 0.0)
        leaves = int(index[int(np.argmin(terms_MC.sum(1)))])
        stays[leaves] = False
        counts_C -= labels_MC[leaves]
        left.append(leaves)
    return left
