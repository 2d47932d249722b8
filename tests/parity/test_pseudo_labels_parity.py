"""Case e: the search of the pseudo-label threshold."""

import numpy as np
import pytest
import torch
from krt_fixtures import each

from mlcil.methods.pseudo_labels import (
    ThresholdSearch,
    apply_pseudo_labels,
    search_threshold,
    search_threshold_from_count,
)


def cases(Z):
    return Z.parts("e/")


def problem(Z, case):
    """Logits, the target count per image and the first threshold."""
    high, step = map(int, Z[f"e/{case}/numclasses_tasksize"])
    per_image, classes = (1.4, 20) if str(Z[f"e/{case}/dataset"]) == "voc" else (2.9, 80)
    logits = torch.tensor(Z[f"e/{case}/old_logits"])
    assert logits.shape[1] == high - step
    return logits, per_image * (high - step) / classes, float(Z[f"e/{case}/thr_init"])


@each("case", cases)
def test_search(Z, case):
    logits, target, start = problem(Z, case)
    result = search_threshold(logits, target, start=start)
    assert result.landed != bool(Z[f"e/{case}/raised"])
    assert result.evaluations == int(Z[f"e/{case}/n_evaluations"])
    assert result.last_threshold == pytest.approx(float(Z[f"e/{case}/thr"]), abs=1e-9)
    if result.landed:
        assert result.threshold == result.last_threshold
        assert np.float32(result.reached) == Z[f"e/{case}/avg_pseudo"]
        given = apply_pseudo_labels(torch.zeros_like(logits), logits, result.threshold)
        assert given.sum(1).mean().item() == pytest.approx(result.reached, abs=1e-6)


@each("case", cases)
def test_sorting_once_equals_counting_every_time(Z, case):
    logits, target, start = problem(Z, case)
    scores = torch.sigmoid(logits)
    visited = []

    def count(threshold):
        visited.append(threshold)
        return int((scores > threshold).sum())

    direct = search_threshold_from_count(count, len(logits), target, ThresholdSearch(), start)
    assert direct == search_threshold(logits, target, start=start)
    gaps = {t: abs(int((scores > t).sum()) / len(logits) - target) for t in visited}
    if not direct.landed:
        assert gaps[direct.threshold] == pytest.approx(min(gaps.values()), abs=1e-6)


@each("case", lambda Z: [case for case in cases(Z) if Z[f"e/{case}/raised"]])
def test_strict_search_raises(Z, case):
    logits, target, start = problem(Z, case)
    with pytest.raises(RuntimeError, match="no threshold gives"):
        search_threshold(logits, target, ThresholdSearch(strict=True), start)
