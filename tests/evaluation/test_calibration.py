import numpy as np
import pytest

from mlcil.evaluation.calibration import platt


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_a_known_scale_and_shift_are_found_again():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20000, 2))
    targets = (rng.random(logits.shape) < sigmoid(np.array([2.0, 0.5]) * logits + np.array([-1.0, 0.3]))).astype(int)
    assert platt(logits, targets) == pytest.approx(np.array([[2.0, -1.0], [0.5, 0.3]]), abs=0.06)


def test_mean_score_is_the_share_of_positives_and_unknown_says_nothing():
    rng = np.random.default_rng(1)
    logits = rng.normal(0.2, 0.05, (400, 1))  # cosines: far from a logit's range
    targets = (logits > 0.25).astype(int)
    targets[:20, 0] ^= 1
    with_unknown = np.concatenate([targets, np.full((100, 1), -1)])
    found = platt(np.concatenate([logits, rng.normal(9, 1, (100, 1))]), with_unknown)
    scores = sigmoid(found[0, 0] * logits[:, 0] + found[0, 1])
    assert scores.mean() == pytest.approx(targets.mean(), abs=0.01)
    assert found == pytest.approx(platt(logits, targets))


@pytest.mark.parametrize("label", [0, 1, -1])
def test_a_class_with_one_kind_of_label_stays(label):
    assert platt(np.arange(5.0)[:, None], np.full((5, 1), label)).tolist() == [[1.0, 0.0]]


def test_a_ranking_that_is_upside_down_is_not_turned():
    logits = np.linspace(-1, 1, 40)[:, None]
    scale, shift = platt(logits, (logits < 0).astype(int))[0]
    assert scale == 1e-3
    assert sigmoid(shift) == pytest.approx(0.5, abs=0.01)
