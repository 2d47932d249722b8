import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mlcil.evaluation.sessions import GLOSSARY, evaluate_session, needed_rows, summarise

# Three sessions of one class each; five images, the last shows nothing.
TARGETS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
SELECTS = TARGETS == 1
FIXED = np.arange(5)
SCORES = np.array([[0.9, 0.1, 0.2], [0.4, 0.8, 0.3], [0.6, 0.7, 0.1], [0.5, 0.2, 0.95], [0.3, 0.75, 0.4]])


def session(t, scores=SCORES, fixed=FIXED, **options):
    return evaluate_session(
        scores[:, : t + 1],
        TARGETS,
        selects_NC=SELECTS,
        low=t,
        high=t + 1,
        base_high=1,
        fixed_rows=fixed,
        **options,
    )


def test_base_session_by_hand():
    result = session(0)
    # growing: images 0 and 1, both positive; fixed: 0.9 (+) 0.6 0.5 0.4 (+) 0.3
    assert result["mAP"] == {"base": pytest.approx(100), "seen": pytest.approx(100), "new": pytest.approx(100)}
    fixed = pytest.approx(100 * (1 + 2 / 4) / 2)
    assert result["fixed_mAP"] == {"base": fixed, "seen": fixed, "new": fixed, "old": None}
    assert result["AP"] == [pytest.approx(100)]
    assert result["fixed_AP"] == [fixed]
    assert result["images"] == {"base": 2, "seen": 2, "new": 2, "fixed": 5}
    assert result["classes_without_positives"] == []


def test_second_session_by_hand():
    result = session(1)
    # seen: images 0, 1, 2. class 0: 0.9 (+) 0.6 0.4 (+); class 1: 0.8 (+) 0.7 (+) 0.1
    assert result["AP"] == [pytest.approx(100 * (1 + 2 / 3) / 2), pytest.approx(100)]
    # base: images 0 and 1 only; new: images 1 and 2 only
    assert result["mAP"]["base"] == pytest.approx(100)
    assert result["mAP"]["new"] == pytest.approx(100)
    assert result["mAP"]["seen"] == pytest.approx(100 * (5 / 6 + 1) / 2)
    # fixed, class 1: 0.8 (+) 0.75 0.7 (+)
    fixed = [100 * (1 + 2 / 4) / 2, 100 * (1 + 2 / 3) / 2]
    assert result["fixed_AP"] == pytest.approx(fixed)
    assert result["fixed_mAP"] == {
        "base": pytest.approx(fixed[0]),
        "old": pytest.approx(fixed[0]),
        "new": pytest.approx(fixed[1]),
        "seen": pytest.approx(np.mean(fixed)),
    }
    assert result["images"] == {"base": 2, "seen": 3, "new": 2, "fixed": 5}


def test_f1_on_seen_and_on_fixed_images():
    result = session(1)
    assert list(result["f1"]) == list(result["fixed_f1"]) == ["0.8", "0.5"]
    # seen images at 0.5: class 0 predicts 0 and 2 (one right), class 1 predicts 1 and 2 (both right)
    assert result["f1"]["0.5"]["OP"] == pytest.approx(75)
    assert result["f1"]["0.5"]["OR"] == pytest.approx(75)
    # fixed images: class 1 also predicts the image that shows nothing
    assert result["fixed_f1"]["0.5"]["OP"] == pytest.approx(60)
    assert list(session(1, thresholds=[0.25])["f1"]) == ["0.25"]


def test_a_scorer_that_never_changes_forgets_nothing_on_the_fixed_set():
    """The growing set makes its base mAP on seen images fall all the same."""
    sessions = [session(t) for t in range(3)]
    seen_base_ap = [result["AP"][0] for result in sessions]
    assert seen_base_ap[0] > seen_base_ap[1] > seen_base_ap[2]
    summary = summarise(sessions)
    assert summary["forgetting"] == summary["forgetting_learned"] == summary["backward_transfer"] == 0


def test_rows_that_are_not_needed_may_be_nan():
    fixed = np.array([0, 2])
    for t in range(3):
        rows = needed_rows(SELECTS, t + 1, fixed)
        expected = set(np.flatnonzero(TARGETS[:, : t + 1].any(1))) | {0, 2}
        assert rows.tolist() == sorted(expected)
        sparse = np.full_like(SCORES, np.nan)
        sparse[rows, : t + 1] = SCORES[rows, : t + 1]
        assert session(t, sparse, fixed) == session(t, SCORES, fixed)


def test_an_image_is_selected_by_more_than_its_labels():
    """COCO's crowds bring an image in without a label."""
    selects = SELECTS.copy()
    selects[4, 0] = True
    result = evaluate_session(SCORES[:, :1], TARGETS, selects_NC=selects, low=0, high=1, base_high=1, fixed_rows=FIXED)
    assert result["images"]["seen"] == 3


def test_classes_without_positives():
    targets = TARGETS.copy()
    targets[:, 1] = 0
    arguments = {"selects_NC": SELECTS, "low": 1, "high": 2, "base_high": 1, "fixed_rows": FIXED}
    zero = evaluate_session(SCORES[:, :2], targets, **arguments)
    skip = evaluate_session(SCORES[:, :2], targets, empty_as="skip", **arguments)
    assert zero["classes_without_positives"] == skip["classes_without_positives"] == [1]
    assert zero["AP"][1] is None
    assert zero["fixed_AP"][1] is None
    assert zero["mAP"]["seen"] == pytest.approx(skip["mAP"]["seen"] / 2)
    assert zero["mAP"]["new"] == 0
    assert skip["mAP"]["new"] is None


def test_larger_table_against_scikit_learn():
    rng = np.random.default_rng(4)
    targets = (rng.random((300, 9)) < 0.1).astype(int)
    targets[:2] = 1
    scores = rng.permutation(targets.size).reshape(targets.shape) / targets.size
    low, high, base_high = 5, 7, 3
    fixed = np.flatnonzero(targets.any(1))
    result = evaluate_session(
        scores[:, :high],
        targets,
        selects_NC=targets == 1,
        low=low,
        high=high,
        base_high=base_high,
        fixed_rows=fixed,
    )
    for name, (a, b) in {"base": (0, base_high), "seen": (0, high), "new": (low, high), "old": (0, low)}.items():
        rows = np.flatnonzero(targets[:, a:b].any(1))
        if name != "old":
            expected = 100 * average_precision_score(targets[rows, a:b], scores[rows, a:b], average="macro")
            assert result["mAP"][name] == pytest.approx(expected)
            assert result["images"][name] == len(rows)
        expected = 100 * average_precision_score(targets[fixed, a:b], scores[fixed, a:b], average="macro")
        assert result["fixed_mAP"][name] == pytest.approx(expected)


def test_json_without_nan():
    result = session(2, np.zeros_like(SCORES))
    assert result["f1"]["0.5"]["OP"] is None
    text = json.dumps({"sessions": [result], "summary": summarise([result])}, allow_nan=False)
    assert json.loads(text)["sessions"][0] == result


def results(seen, fixed_ap):
    return [
        {"mAP": {"seen": s}, "fixed_mAP": {"seen": float(np.mean([v for v in ap if v is not None]))}, "fixed_AP": ap}
        for s, ap in zip(seen, fixed_ap, strict=True)
    ]


def test_summary_by_hand():
    summary = summarise(results([90, 70, 50], [[80.0, 60.0], [85.0, 50.0, 70.0], [75.0, 55.0, 40.0, 90.0]]))
    assert summary == {
        "average_mAP": pytest.approx(70),
        "average_mAP_without_base": pytest.approx(60),
        "last_mAP": 50,
        "average_fixed_mAP": pytest.approx(np.mean([70, 205 / 3, 65])),
        "last_fixed_mAP": pytest.approx(65),
        # the best earlier value: 85, 60 and 70
        "forgetting": pytest.approx((10 + 5 + 30) / 3),
        # the value when it was learned: 80, 60 and 70
        "forgetting_learned": pytest.approx((5 + 5 + 30) / 3),
        "backward_transfer": pytest.approx(-(5 + 5 + 30) / 3),
        "plasticity": pytest.approx((80 + 60 + 70 + 90) / 4),
    }


def test_forgetting_may_be_negative():
    assert summarise(results([50, 60], [[40.0], [45.0, 60.0]]))["forgetting"] == pytest.approx(-5)


def test_summary_of_one_session_and_of_none():
    summary = summarise(results([90], [[80.0, 60.0]]))
    assert summary["average_mAP"] == summary["last_mAP"] == 90
    assert summary["plasticity"] == pytest.approx(70)
    for name in ("average_mAP_without_base", "forgetting", "forgetting_learned", "backward_transfer"):
        assert summary[name] is None
    assert summarise([]) == {}


def test_summary_leaves_out_classes_without_fixed_positives():
    summary = summarise(results([90, 70], [[80.0, None], [70.0, None, 60.0]]))
    assert summary["forgetting"] == pytest.approx(10)
    assert summary["plasticity"] == pytest.approx(70)


def test_every_number_is_defined():
    defined = {word for words in GLOSSARY for word in words.split(" / ")}
    summary = summarise([session(0), session(1)])
    assert set(summary) <= defined
    assert set(session(1)["f1"]["0.5"]) <= defined
    assert set(session(1)["fixed_mAP"]) <= defined


def test_a_metric_that_rests_on_few_labels_says_so():
    from mlcil.reporting import log_lines

    rng = np.random.default_rng(0)
    targets = (rng.random((40, 4)) < 0.4).astype(np.int8)
    scores = np.clip(targets + rng.normal(scale=0.6, size=targets.shape), -3, 3)
    options = {"selects_NC": targets == 1, "low": 2, "high": 4, "base_high": 2, "fixed_rows": np.arange(40)}
    whole = evaluate_session(scores, targets, **options)
    assert "judged" not in whole
    assert not any("judged on" in line for line in log_lines.metrics(whole, "session"))
    known = targets.copy()
    known[::3, 0] = -1
    part = evaluate_session(scores, known, **options)
    rows = (targets == 1).any(1)
    assert part["judged"] == pytest.approx((known[rows] >= 0).mean())
    assert part["AP"][1:] == whole["AP"][1:]
    line = next(line for line in log_lines.metrics(part, "session") if "judged on" in line)
    assert (
        line == f"session judged on {100 * part['judged']:.1f}% of the labels; the others are unknown and count nowhere"
    )
