"""The metrics of a scenario as an object, so that the loop asks the same of images with many labels and with one.

Legend: N test images, C classes of the scenario, S seen classes, R rows that were predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mlcil.evaluation import sessions, singlelabel


@dataclass(frozen=True)
class TestSet:
    """What metrics need to know of the test images and of the session that is evaluated.

    Attributes:
        labels_NC: (N, C) int8; 1 present, 0 absent, -1 not judged.
        selects_NC: (N, C) bool; class c makes image n part of a test set that holds c.
        fixed_rows: rows of the fixed test set.
        edges: classes [low, high) of every session so far, the last one is evaluated.
        base_high: number of base classes.
        empty_as: policy for classes without positives, ``zero`` or ``skip`` (multi-label only).
        local_accuracy: see :func:`mlcil.evaluation.singlelabel.evaluate_session` (single-label only).
    """

    labels_NC: np.ndarray
    selects_NC: np.ndarray
    fixed_rows: np.ndarray
    edges: Sequence[tuple[int, int]]
    base_high: int
    empty_as: str = "zero"
    local_accuracy: str = "all"

    __test__ = False  # no test of pytest's

    @property
    def high(self) -> int:
        """Number of seen classes."""
        return self.edges[-1][1]


class Metrics(Protocol):
    """What the engine and the reports ask of a kind of scenario.

    Attributes:
        headline: key of a session's main number, a mapping from ``base``, ``seen`` and ``new`` to percent.
        per_class: key of the list of each seen class's number in percent.
        kept: keys of a session's result that its stage checkpoint holds.
    """

    headline: str
    per_class: str
    kept: tuple[str, ...]

    def rows(self, test: TestSet) -> np.ndarray:
        """Rows (R,) of the test table that the session's metrics need, in table order."""

    def session(self, test: TestSet, rows: np.ndarray, logits_RS: np.ndarray) -> dict[str, Any]:
        """All metrics of the session, as builtins, from the logits (R, S) of these rows."""

    def summarise(self, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Numbers of the run so far from its sessions' results, in order; empty without any."""


class MultiLabel:
    """Average precision and F1, see :mod:`mlcil.evaluation.sessions`."""

    headline = "mAP"
    per_class = "AP"
    kept: tuple[str, ...] = ("mAP", "fixed_mAP")

    def rows(self, test: TestSet) -> np.ndarray:
        return sessions.needed_rows(test.selects_NC, test.high, test.fixed_rows)

    def session(self, test: TestSet, rows: np.ndarray, logits_RS: np.ndarray) -> dict[str, Any]:
        scores = np.full((len(test.labels_NC), test.high), np.nan)
        scores[rows] = scores_of(logits_RS)
        low, high = test.edges[-1]
        return sessions.evaluate_session(
            scores,
            test.labels_NC,
            selects_NC=test.selects_NC,
            low=low,
            high=high,
            base_high=test.base_high,
            fixed_rows=test.fixed_rows,
            empty_as=test.empty_as,
        )

    def summarise(self, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return sessions.summarise(results)


class SingleLabel:
    """Accuracy, see :mod:`mlcil.evaluation.singlelabel`."""

    headline = "accuracy"
    per_class = "class_accuracy"
    kept: tuple[str, ...] = ("accuracy", "top5")

    def rows(self, test: TestSet) -> np.ndarray:
        return np.flatnonzero(test.selects_NC[:, : test.high].any(1))

    def session(self, test: TestSet, rows: np.ndarray, logits_RS: np.ndarray) -> dict[str, Any]:
        labels_R = test.labels_NC[rows, : test.high].argmax(1)
        scores_RS = logits_RS.reshape(len(rows), test.high)  # of no image at all nobody knows the width
        return singlelabel.evaluate_session(scores_RS, labels_R, test.edges, test.base_high, test.local_accuracy)

    def summarise(self, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return singlelabel.summarise(results)


METRICS: dict[str, Metrics] = {"multi_label": MultiLabel(), "single_label": SingleLabel()}


def metrics_of(result: Mapping[str, Any]) -> Metrics:
    """The metrics that a session's result, perhaps read from a file, was made by."""
    return METRICS["single_label" if "accuracy" in result else "multi_label"]


def scores_of(logits_NC: np.ndarray) -> np.ndarray:
    """Sigmoid in float64 of float32 logits: no ties that the logits do not have."""
    x = logits_NC.astype(np.float64)
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-x))
