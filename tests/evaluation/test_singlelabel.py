import json
from typing import Any

import numpy as np
import pytest

from mlcil.evaluation import singlelabel
from mlcil.evaluation.metrics import METRICS, TestSet, metrics_of, scores_of
from mlcil.evaluation.singlelabel import evaluate_session, ranks, summarise

EDGES = [(0, 2), (2, 4), (4, 6)]


def scores(high: int, images: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(images, high)), rng.integers(0, high, images)


def test_ranks() -> None:
    values = np.array([[0.1, 0.5, 0.4], [0.9, 0.1, 0.0], [0.2, 0.2, 0.2], [0.2, 0.2, 0.2], [0.0, 1.0, 1.0]])
    assert ranks(values, np.array([1, 2, 0, 2, 2])).tolist() == [0, 2, 0, 2, 1]


def test_ranks_are_argmax_and_topk() -> None:
    values, labels = scores(9, 200)
    np.testing.assert_array_equal(ranks(values, labels) == 0, values.argmax(1) == labels)
    order = np.argsort(-values, 1, kind="stable")
    for k in (1, 3, 5):
        np.testing.assert_array_equal(ranks(values, labels) < k, (order[:, :k] == labels[:, None]).any(1))


def test_ranks_agree_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    values, labels = scores(12, 300)
    for k in (1, 5):
        expected = metrics.top_k_accuracy_score(labels, values, k=k, labels=np.arange(12))
        assert (ranks(values, labels) < k).mean() == pytest.approx(expected)


def test_a_score_that_is_no_number_is_never_right() -> None:
    values = np.full((3, 4), np.nan)
    values[0, 1] = values[1, 2] = -5.0
    assert ranks(values, np.array([3, 2, 1])).tolist() == [3, 0, 1]


def test_accuracies_by_hand() -> None:
    labels = np.array([0, 0, 1, 2, 2, 3, 3, 3])
    predicted = np.array([0, 3, 1, 0, 2, 3, 3, 0])
    result = evaluate_session(np.eye(4)[predicted], labels, EDGES[:2], base_high=2)
    assert result["accuracy"] == pytest.approx({"base": 200 / 3, "seen": 62.5, "new": 60.0, "old": 200 / 3})
    assert result["session_accuracy"] == pytest.approx([200 / 3, 60.0])
    assert result["mean_session_accuracy"] == pytest.approx((200 / 3 + 60) / 2)
    assert result["class_accuracy"] == pytest.approx([50.0, 100.0, 50.0, 200 / 3])
    assert result["images"] == {"base": 3, "seen": 8, "new": 5, "old": 3}
    assert result["top5"]["seen"] == 100.0  # fewer than five classes
    assert result["classes_without_images"] == []
    assert json.loads(json.dumps(result)) == result


def test_predictions_are_task_agnostic() -> None:
    """A class of another session may win; images of classes to come are not in the test."""
    result = evaluate_session(np.array([[1.0, 0.0, 2.0]]), np.array([0]), [(0, 2), (2, 3)], 2)
    assert result["accuracy"]["seen"] == 0.0


def test_classes_without_test_images() -> None:
    result = evaluate_session(np.eye(4)[[0, 1]], np.array([0, 1]), EDGES[:2], 2)
    assert result["accuracy"] == {"base": 100.0, "seen": 100.0, "new": None, "old": 100.0}
    assert (result["session_accuracy"], result["mean_session_accuracy"]) == ([100.0, None], 100.0)
    assert result["class_accuracy"] == [100.0, 100.0, None, None]
    assert result["classes_without_images"] == [2, 3]
    first = evaluate_session(np.eye(2), np.array([0, 1]), EDGES[:1], 2)
    assert summarise([first, result])["accuracy_matrix"] == [[100.0, None], [100.0, None]]
    assert summarise([first, result])["plasticity"] == 100.0


def session(row: list[float], seen: float, top: float = 90.0) -> dict[str, Any]:
    return {
        "accuracy": {"seen": seen},
        "top5": {"seen": top},
        "session_accuracy": row,
        "mean_session_accuracy": sum(row) / len(row),
    }


def test_summary_by_hand() -> None:
    runs = [session([80.0], 80.0), session([50.0, 70.0], 61.0, 80.0), session([60.0, 40.0, 90.0], 62.0, 70.0)]
    found = summarise(runs)
    matrix = found.pop("accuracy_matrix")
    assert found == pytest.approx(
        {
            "average_accuracy": (80 + 61 + 62) / 3,
            "average_accuracy_without_base": 61.5,
            "last_accuracy": 62.0,
            "average_mean_session_accuracy": (80 + 60 + 190 / 3) / 3,
            "last_mean_session_accuracy": 190 / 3,
            "average_top5": 80.0,
            "last_top5": 70.0,
            "forgetting": ((80 - 60) + (70 - 40)) / 2,
            "forgetting_learned": 25.0,
            "backward_transfer": ((60 - 80) + (40 - 70)) / 2,
            "plasticity": 80.0,
            "continuum_forgetting": (80 - 60) / 2,
            "continuum_backward_transfer": (60 - 80) / 3,
            "continuum_forward_transfer": (50 + 60 + 40) / 3,
        }
    )
    assert matrix == [[80.0, None, None], [50.0, 70.0, None], [60.0, 40.0, 90.0]]


def test_forgetting_looks_for_the_best_before_the_last() -> None:
    runs = [session([50.0], 50), session([80.0, 60.0], 70), session([90.0, 60.0, 50.0], 66)]
    assert summarise(runs)["forgetting"] == pytest.approx(((80 - 90) + 0) / 2)
    assert summarise(runs)["backward_transfer"] == pytest.approx((40 + 0) / 2)


def test_a_single_session_forgets_nothing() -> None:
    found = summarise([session([80.0], 80.0)])
    assert found["last_accuracy"] == found["average_accuracy"] == 80.0
    assert found["forgetting"] is found["backward_transfer"] is found["average_accuracy_without_base"] is None
    assert summarise([]) == {}


def test_summary_agrees_with_the_definitions() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.uniform(0, 100, (6, 6))
    found = summarise([session(matrix[t, : t + 1].tolist(), 50.0) for t in range(6)])
    best = [matrix[j:5, j].max() for j in range(5)]
    assert found["forgetting"] == pytest.approx(np.mean(best - matrix[5, :5]))
    assert found["backward_transfer"] == pytest.approx(np.mean([matrix[5, j] - matrix[j, j] for j in range(5)]))
    assert found["plasticity"] == pytest.approx(np.mean(np.diag(matrix)))


def test_every_number_is_explained() -> None:
    words = " ".join(singlelabel.GLOSSARY)
    values, labels = scores(6)
    result = evaluate_session(values, labels, EDGES, 2)
    for key in {*result, *summarise([result] * 1)} - {"images", "classes_without_images"}:
        assert key in words, key


def test_the_metrics_of_both_kinds_answer_the_same_questions() -> None:
    rng = np.random.default_rng(1)
    labels_N = np.repeat(np.arange(6), 5)
    labels_NC = np.eye(6, dtype=np.int8)[labels_N]
    for name, metrics in METRICS.items():
        results = []
        for t in range(3):
            high = EDGES[t][1]
            test = TestSet(labels_NC, labels_NC == 1, np.arange(len(labels_NC)), EDGES[: t + 1], 2)
            rows = metrics.rows(test)
            assert set(rows.tolist()) >= set(np.flatnonzero(labels_N < high).tolist())
            logits = labels_NC[rows, :high] * 4 + rng.normal(size=(len(rows), high)).astype(np.float32)
            result = metrics.session(test, rows, logits)
            assert set(result[metrics.headline]) >= {"base", "seen", "new"}
            assert len(result[metrics.per_class]) == high
            assert metrics_of(result) is metrics is METRICS[name]
            assert set(metrics.kept) <= set(result)
            results.append(json.loads(json.dumps(result)))
        assert metrics.summarise([]) == {}
        assert metrics.summarise(results)[f"average_{metrics.headline}"] > 60


def test_single_label_needs_the_images_of_seen_classes_only() -> None:
    labels_NC = np.eye(6, dtype=np.int8)[[5, 0, 3, 1]]
    test = TestSet(labels_NC, labels_NC == 1, np.arange(4), EDGES[:1], 2)
    assert METRICS["single_label"].rows(test).tolist() == [1, 3]
    assert METRICS["multi_label"].rows(test).tolist() == [0, 1, 2, 3]


def test_scores_have_no_ties_that_logits_do_not_have() -> None:
    logits = np.array([[-1000.0, -20.0, 0.0, 17.0, 17.000002]], np.float32)
    assert (np.diff(scores_of(logits)[0]) > 0).all()


def test_local_accuracy_and_the_one_of_the_release() -> None:
    """Predictions among a session's own classes; the release loses the images of its last class."""
    scores = np.array([[0.1, 0.2, 0.9], [0.3, 0.1, 0.9], [0.5, 0.4, 0.3], [0.0, 0.0, 0.1]])
    labels = np.array([1, 1, 0, 2])
    result = evaluate_session(scores, labels, [(0, 2), (2, 3)], 2)
    assert result["session_accuracy"] == [pytest.approx(100 / 3), 100.0]
    assert result["local_session_accuracy"] == [pytest.approx(200 / 3), 100.0]
    official = evaluate_session(scores, labels, [(0, 2), (2, 3)], 2, "official")
    assert official["local_session_accuracy"] == [100.0, None]
    assert {**official, "local_session_accuracy": None} == {**result, "local_session_accuracy": None}
