import time

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from mlcil.evaluation.multilabel import (
    average_precision,
    mean_average_precision,
    mean_of_ap,
    precision_recall_f1,
    ranks_of_positives,
)


def table(seed, count=200, classes=7, share=0.2):
    """Scores without ties and targets; every class has a positive."""
    rng = np.random.default_rng(seed)
    scores = rng.permutation(count * classes).reshape(count, classes) / (count * classes)
    targets = (rng.random((count, classes)) < share).astype(np.float32)
    targets[0] = 1
    return scores, targets


@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn_without_ties(seed):
    scores, targets = table(seed)
    expected = average_precision_score(targets, scores, average=None)
    ap = average_precision(scores, targets)
    assert ap.dtype == np.float64
    np.testing.assert_allclose(ap, expected, rtol=1e-7)
    assert mean_average_precision(scores, targets) == pytest.approx(100 * expected.mean(), rel=1e-7)


def test_by_hand():
    scores = np.array([[0.9], [0.8], [0.7], [0.6]])
    targets = np.array([[1], [0], [1], [0]])
    assert average_precision(scores, targets)[0] == pytest.approx((1 + 2 / 3) / 2)


def test_ties_keep_the_order_of_the_images():
    scores = np.full((2, 2), 0.5)
    targets = np.array([[1, 0], [0, 1]])
    np.testing.assert_allclose(average_precision(scores, targets), [1, 0.5])


@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_judged_is_left_out_of_its_class_only(seed):
    scores, targets = table(seed)
    hidden = np.random.default_rng(seed + 100).random(targets.shape) < 0.3
    hidden[0] = False
    ap = average_precision(np.where(hidden, np.nan, scores), np.where(hidden, -1, targets))
    for c in range(targets.shape[1]):
        kept = ~hidden[:, c]
        expected = average_precision_score(targets[kept, c], scores[kept, c])
        assert ap[c] == pytest.approx(expected, rel=1e-7)


def test_class_without_positives():
    scores, targets = table(0)
    targets[:, 2] = 0
    ap = average_precision(scores, targets)
    assert np.flatnonzero(np.isnan(ap)).tolist() == [2]
    rest = 100 * np.delete(ap, 2)
    assert mean_average_precision(scores, targets) == pytest.approx(rest.sum() / 7)
    assert mean_average_precision(scores, targets, "zero") == pytest.approx(rest.sum() / 7)
    assert mean_average_precision(scores, targets, "skip") == pytest.approx(rest.mean())
    assert mean_of_ap(np.array([np.nan]), "skip") is None
    assert mean_of_ap(np.array([np.nan]), "zero") == 0
    with pytest.raises(ValueError, match="'ignore'"):
        mean_average_precision(scores, targets, "ignore")


def test_no_images():
    nothing = np.zeros((0, 3))
    assert np.isnan(average_precision(nothing, nothing)).all()
    assert mean_average_precision(nothing, nothing, "skip") is None


def test_inputs_are_left_alone():
    scores, targets = table(1)
    before = scores.copy(), targets.copy()
    average_precision(scores, targets)
    precision_recall_f1(scores, targets, 0.5)
    np.testing.assert_array_equal(scores, before[0])
    np.testing.assert_array_equal(targets, before[1])


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_precision_recall_f1_equal_scikit_learn(threshold):
    scores, targets = table(3)
    predicted = scores > threshold
    found = precision_recall_f1(scores, targets, threshold)
    for name, average, score in [
        ("CP", "macro", precision_score),
        ("CR", "macro", recall_score),
        ("CF1_mean", "macro", f1_score),
        ("OP", "micro", precision_score),
        ("OR", "micro", recall_score),
        ("OF1", "micro", f1_score),
    ]:
        expected = 100 * score(targets, predicted, average=average, zero_division=0)
        assert found[name] == pytest.approx(expected, rel=1e-6), name
    harmonic = 2 * found["CP"] * found["CR"] / (found["CP"] + found["CR"])
    assert found["CF1_harmonic"] == pytest.approx(harmonic)
    assert found["CF1_harmonic"] != pytest.approx(found["CF1_mean"], rel=1e-6)


def test_threshold_is_strict_and_unjudged_elements_do_not_count():
    scores = np.array([[0.5, 0.9], [0.6, 0.9]])
    targets = np.array([[0, 1], [1, -1]])
    found = precision_recall_f1(scores, targets, 0.5)
    assert found == dict.fromkeys(["CP", "CR", "CF1_mean", "CF1_harmonic", "OP", "OR", "OF1"], 100.0)


def test_degenerate_counts():
    targets = np.array([[1.0, 0.0]])
    nothing_predicted = precision_recall_f1(np.zeros((1, 2)), targets, 0.5)
    assert np.isnan([nothing_predicted["OP"], nothing_predicted["OF1"]]).all()
    assert nothing_predicted["OR"] == nothing_predicted["CP"] == nothing_predicted["CF1_harmonic"] == 0
    nothing_right = precision_recall_f1(np.array([[0.0, 1.0]]), targets, 0.5)
    assert set(nothing_right.values()) == {0.0}
    nothing_present = precision_recall_f1(np.ones((1, 2)), np.zeros((1, 2)), 0.5)
    assert nothing_present["OP"] == 0
    assert np.isnan([nothing_present["OR"], nothing_present["OF1"]]).all()


def test_fast_enough_for_coco():
    rng = np.random.default_rng(0)
    scores, targets = rng.random((40_000, 80)), rng.random((40_000, 80)) < 0.04
    start = time.process_time()
    average_precision(scores, targets)
    assert time.process_time() - start < 5  # about half a second; a loop in Python would need minutes


@pytest.mark.parametrize("digits", [1, 2, 16])
def test_ap_is_the_mean_precision_over_the_whole_ranking(digits):
    """With and without ties, written out image by image."""
    rng = np.random.default_rng(digits)
    scores = np.round(rng.random((150, 4)), digits)
    targets = rng.choice([-1, 0, 1], size=scores.shape, p=[0.1, 0.7, 0.2])
    for column, found in enumerate(average_precision(scores, targets)):
        ranked = sorted(range(150), key=lambda i: -scores[i, column])  # python's sort is stable
        ranked = [targets[i, column] for i in ranked if targets[i, column] >= 0]
        precisions = [sum(ranked[: k + 1]) / (k + 1) for k, label in enumerate(ranked) if label]
        assert found == pytest.approx(sum(precisions) / (len(precisions) + 1e-8), rel=1e-12)


@pytest.mark.parametrize("values", [1, 2, 7, 200, None])
@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_ranks_are_those_of_a_stable_order(values, share):
    rng = np.random.default_rng(values)
    scores = rng.standard_normal(500).astype(np.float32)
    if values is not None:
        scores = rng.integers(0, values, 500).astype(np.float32) - values // 2
    positive = rng.random(500) < share
    expected = np.flatnonzero(positive[np.argsort(-scores, kind="stable")]) + 1
    np.testing.assert_array_equal(ranks_of_positives(scores, positive), expected)


def test_scores_that_are_no_numbers_are_not_ranked():
    scores = np.array([[0.9, 0.1], [np.nan, 0.2], [0.3, 0.7]])
    targets = np.array([[1, 0], [0, 1], [1, 0]])
    for wrong in (np.nan, np.inf):
        scores[1, 0] = wrong
        with pytest.raises(ValueError, match="a score is no number"):
            average_precision(scores, targets)
    targets[1, 0] = -1  # nobody judges it
    assert average_precision(scores, targets)[0] == pytest.approx(1.0)
