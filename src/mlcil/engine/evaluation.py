"""One prediction pass over the rows that any metric of the session needs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, all_reduce

from mlcil.datasets.loading import Loader
from mlcil.datasets.scenario import Scenario
from mlcil.datasets.table import ImageTable
from mlcil.engine.optim import autocast
from mlcil.evaluation.metrics import METRICS, TestSet
from mlcil.methods.base import Method
from mlcil.models.folding import folded
from mlcil.protocols import Session


def predict_view(
    method: Method, loader: Loader, dtype: torch.dtype = torch.float32, fold: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Predict every image of an unshuffled loader's view.

    Each image is predicted by exactly one process, so nothing is counted twice.

    Args:
        method: what predicts.
        loader: images of this process.
        dtype: of matrix products.
        fold: with batch norms inside the convolutions, see :mod:`mlcil.models.folding`.

    Returns:
        Logits (N, C) and pooled features (N, K), float32, in the order of the view, on every process.
    """
    was_training = method.training
    method.eval()
    logits, features = [], []
    device = next(method.parameters()).device
    with torch.inference_mode(), autocast(device, dtype), folded_inside(method, fold):
        for batch in loader:
            data = method.data_preprocessor(batch)
            logits_BC, features_BK = method(data["inputs"], mode="predict")
            logits.append(logits_BC.float().cpu().numpy())
            features.append(features_BK.float().cpu().numpy())
    method.train(was_training)
    length = len(loader.dataset)
    parts = all_gather_object((_stack(logits), _stack(features)))
    return _interleave([part[0] for part in parts], length), _interleave([part[1] for part in parts], length)


def audit_pseudo_labels(method: Method, table: ImageTable) -> dict[str, float]:
    """The session's pseudo-labels against the labels that are hidden from the method, for the report only.

    Args:
        method: what made them.
        table: the training images.

    Returns:
        ``true``: old-class labels per image that are really there; ``precision`` and ``recall`` of the
        pseudo-labels, in [0, 1]. Empty when the method makes none.
    """
    found = method.pseudo_label_decisions()
    if found is None:
        return {}
    rows, fires_NO = found
    truth_NO = table.labels_of(rows, fires_NO.shape[1]) == 1
    counts = torch.tensor([len(rows), truth_NO.sum(), fires_NO.sum(), (truth_NO & fires_NO).sum()], dtype=torch.float64)
    all_reduce(counts)
    images, true, made, right = counts.tolist()
    return {
        "true": true / max(images, 1),
        "precision": right / made if made else float("nan"),
        "recall": right / true if true else float("nan"),
    }


@contextlib.contextmanager
def folded_inside(method: Method, fold: bool = True) -> Iterator[None]:
    """The method with :func:`~mlcil.models.folding.folded` of its network, for a while."""
    network = method.network
    if fold:
        method.network = folded(network)
    try:
        yield
    finally:
        method.network = network


def test_rows(scenario: Scenario, session: Session) -> np.ndarray:
    """Rows of the test table that the session's metrics need, in table order."""
    return METRICS[scenario.task].rows(_test_set(scenario, session))


def session_metrics(
    scenario: Scenario,
    session: Session,
    rows: np.ndarray,
    logits_NC: np.ndarray,
    **options: str,
) -> dict[str, Any]:
    """All metrics of a session from the logits of its :func:`test_rows`.

    Args:
        scenario, session: which test images and classes.
        rows: (N,) rows that were predicted.
        logits_NC: (N, C) their logits.
        options: of :class:`~mlcil.evaluation.metrics.TestSet`, see :func:`metric_options`.
    """
    return METRICS[scenario.task].session(_test_set(scenario, session, **options), rows, logits_NC)


def metric_options(cfg: Mapping[str, Any]) -> dict[str, str]:
    """What a config says of the metrics, for :func:`session_metrics`."""
    return {"empty_as": cfg["empty_classes"], "local_accuracy": cfg["local_accuracy"]}


def _test_set(scenario: Scenario, session: Session, **options: str) -> TestSet:
    test = scenario.test
    edges = [(s.low, s.high) for s in scenario.sessions[: session.index + 1]]
    fixed_rows = scenario.fixed_test_rows()
    return TestSet(test.labels_NC, test.selects_NC, fixed_rows, edges, scenario.base_high, **options)


def _stack(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros((0, 0), np.float32)


def _interleave(parts: list[np.ndarray], length: int) -> np.ndarray:
    """Undo the sampler's dealing: process r predicted positions r, r + W, ..."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.shape[1] for part in parts)
    whole = np.empty((length, width), np.float32)
    for rank, part in enumerate(parts):
        if len(part):
            whole[rank :: len(parts)] = part
    return whole
