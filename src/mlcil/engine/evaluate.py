"""One prediction pass over the test images that any metric of the session needs, and the metrics."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, barrier

from mlcil.datasets.loading import Loader
from mlcil.datasets.scenario import Scenario
from mlcil.engine.data import Data
from mlcil.engine.run import Run
from mlcil.errors import UserError
from mlcil.evaluation.metrics import METRICS, TestSet
from mlcil.methods.base import Method
from mlcil.models.folding import can_fold, folded
from mlcil.models.numerics import autocast, resolve_precision
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

    Raises:
        UserError: a logit is no number; names the image.
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
    logits_NC = _interleave([part[0] for part in parts], length)
    wrong = np.flatnonzero(~np.isfinite(logits_NC).all(1))
    if len(wrong):
        table, row = loader.dataset.source.table, int(loader.dataset.rows[wrong[0]])
        more = f" and of {len(wrong) - 1} more images" if len(wrong) > 1 else ""
        raise UserError(
            f"the network's scores of image {table.files[row] if table.files else table.ids[row]} ({table.name}){more} "
            "are no numbers; expected finite ones, so lower the learning rate or set precision='fp32', and train again"
        )
    return logits_NC, _interleave([part[1] for part in parts], length)


@contextlib.contextmanager
def folded_inside(method: Method, fold: bool = True) -> Iterator[None]:
    """The method with :func:`~mlcil.models.folding.folded` of its network, for a while, where that changes anything."""
    network = method.network
    if fold and can_fold(network):
        method.network = folded(network)
    try:
        yield
    finally:
        method.network = network


@dataclass(frozen=True)
class SessionResult:
    """What an evaluation found.

    Attributes:
        metrics: see :mod:`mlcil.evaluation.metrics`; with ``evaluation_seconds``, and ``unreadable_images`` when some
            images are left out of the run.
        rows: (N,) rows of the test table that were predicted.
        logits_NC: (N, C) their logits, float32.
    """

    metrics: dict[str, Any]
    rows: np.ndarray
    logits_NC: np.ndarray


class Evaluator:
    """Predicts every test image that a session's metrics need once and computes all metrics from these logits.

    Args:
        run: which test images, metrics and precision.
        data: its loaders.
    """

    def __init__(self, run: Run, data: Data) -> None:
        self.run, self.data = run, data
        self._loader: Loader | None = None

    def __call__(self, method: Method, session: Session) -> SessionResult:
        """Evaluate on the classes seen up to ``session``; every process gets the same result."""
        run, scenario = self.run, self.run.scenario
        rows = test_rows(scenario, session)
        if self._loader is None or not np.array_equal(rows, self._loader.dataset.rows):
            self._loader = self.data.plain_loader(self.data.plain_view(scenario.test, rows))
        started = time.monotonic()
        dtype = resolve_precision(run.test_loader.precision, next(method.parameters()).device)
        logits_NC, _ = predict_view(method, self._loader, dtype, run.fold)
        options = {"empty_as": run.settings.empty_classes, "local_accuracy": run.settings.local_accuracy}
        metrics = session_metrics(scenario, session, rows, logits_NC, **options)
        if left_out := sum(map(len, self.data.unreadable.values())):
            metrics["unreadable_images"] = left_out
        metrics["evaluation_seconds"] = round(time.monotonic() - started, 1)
        barrier()
        return SessionResult(metrics, rows, logits_NC)


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
        options: of :class:`~mlcil.evaluation.metrics.TestSet`.
    """
    return METRICS[scenario.task].session(_test_set(scenario, session, **options), rows, logits_NC)


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
