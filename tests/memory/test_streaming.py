"""Reservoir, PRS and OCDM against cases worked out by hand."""

import numpy as np
import pytest

from mlcil.errors import UserError
from mlcil.memory import ExemplarMemory, StreamingMemory, build_memory
from mlcil.memory.base import GRID, best_f1_threshold
from mlcil.memory.streaming import match_distribution, partitioning_reservoir, sample_in_probability

RNG = np.random.default_rng(0)


def feed(memory, labels, session=0, low=0, high=None):
    """One session whose image k has the class ``labels[k]``."""
    high = high or max(labels) + 1
    targets = np.zeros((len(labels), high), np.int8)
    targets[np.arange(len(labels)), labels] = 1
    rows = 100 * session + np.arange(len(labels))
    return memory.update(session, low, high, rows, np.zeros((len(labels), 1)), targets)


def test_a_reservoir_keeps_every_image_with_equal_probability():
    hits = np.zeros(20)
    for seed in range(600):
        memory = StreamingMemory(total=5, seed=seed)
        feed(memory, [0] * 20)
        hits[memory.contents()[0]] += 1
    # 600 draws of 5 in 20: mean 150, standard deviation about 10.6
    assert hits.min() > 105
    assert hits.max() < 195


def test_the_budget_holds_over_sessions_and_origins_are_kept():
    for selection in ("reservoir", "prs", "ocdm"):
        memory = StreamingMemory(total=6, selection=selection)
        feed(memory, [0, 1] * 10)
        counts = feed(memory, [2, 3] * 10, session=1, low=2)
        rows, origins = memory.contents()
        assert len(rows) == 6 == counts["total"]
        assert ((rows >= 100) == (origins == 1)).all()
        assert counts["stored"] == (origins == 1).sum()


def test_prs_sample_in_probability_by_hand():
    # classes 0 and 1 with n = (2, 1): w = softmax(-2, -1) = (1, e) / (1 + e); k_i = 4 * share
    e = np.e
    wanted = (1 / (1 + e)) * 4 * 0.25 / 2 + (e / (1 + e)) * 4 * 0.75 / 10
    found = sample_in_probability(np.array([0, 1]), np.array([2.0, 10.0]), np.array([0.25, 0.75]), 4)
    w = np.exp(-np.array([2.0, 10.0]))
    w /= w.sum()
    assert found == pytest.approx(w[0] * 4 * 0.25 / 2 + w[1] * 4 * 0.75 / 10)
    assert found != pytest.approx(wanted)  # equal counts only would give the other
    assert sample_in_probability(np.array([], int), np.array([1.0]), np.array([1.0]), 4) == 0
    assert sample_in_probability(np.array([0]), np.array([1.0]), np.array([1.0]), 4) == 1


def test_prs_takes_from_the_class_above_its_share():
    # class 0 has three samples, class 1 one; equal shares: only class 0 is above
    labels = np.array([[1, 0], [1, 0], [1, 1]], bool)
    out = partitioning_reservoir(labels, np.array([0.5, 0.5]), RNG)
    assert out == 0  # sample 2 also carries the scarce class; 0 and 1 are equal, the first leaves


def test_prs_prefers_the_removal_that_comes_nearest_to_the_shares():
    # counts 0: 3, 1: 3, 2: 1 and thirds: classes 0 and 1 are above; the sample with both of them leaves
    labels = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1]], bool)
    assert partitioning_reservoir(labels, np.full(3, 1 / 3), RNG) == 1


def test_ocdm_by_hand():
    # counts (3, 1) and equal shares: removing a class-0 sample leaves (2, 1), then (1, 1)
    labels = np.array([[0, 1], [1, 0], [1, 0], [1, 0]], bool)
    assert match_distribution(labels, np.array([0.5, 0.5]), 2) == [1, 2]


def test_ocdm_counts_all_labels_of_a_sample():
    # (2, 2, 1): without sample 0 (1, 1, 1), which is the target
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], bool)
    assert match_distribution(labels, np.full(3, 1 / 3), 3) == [0]


@pytest.mark.parametrize("selection", ["prs", "ocdm"])
def test_a_rare_class_keeps_its_place(selection):
    memory = StreamingMemory(total=10, selection=selection)
    feed(memory, [0] * 90 + [1] * 5)
    stored = [labels[0] for labels in memory.labels_of]
    assert stored.count(1) >= 4  # a plain reservoir would keep one in two cases of three


def test_state_goes_round():
    memory = StreamingMemory(total=4, selection="prs")
    feed(memory, [0, 1, 1, 0, 1, 1])
    again = StreamingMemory(total=4, selection="prs")
    again.load_state_dict(memory.state_dict())
    for m in (memory, again):
        feed(m, [2, 3, 2, 3], session=1, low=2)
    assert memory.state_dict() == again.state_dict()


def test_build_memory_picks_the_class_by_the_selection():
    assert isinstance(build_memory({"per_class": 2}), ExemplarMemory)
    assert isinstance(build_memory({"total": 2, "selection": "ocdm"}), StreamingMemory)
    with pytest.raises(UserError, match="labels 'odd' is unknown"):
        build_memory({"total": 2, "selection": "ocdm", "labels": "odd"})
    with pytest.raises(UserError, match="total is 0"):
        build_memory({"total": 0, "selection": "prs"})


def test_image_bytes_count_an_image_once():
    memory = ExemplarMemory(per_class=2, deduplicate=False)
    memory.rows_of_class, memory.session_of_class = {0: [4, 5], 1: [5, 6]}, {0: 0, 1: 0}
    assert len(memory) == 4
    assert memory.image_bytes(10) == 3 * 300


def test_best_f1_threshold_by_hand():
    scores = np.array([0.9, 0.8, 0.6, 0.4, 0.2])
    # thresholds behind 1, 2, 3, ... scores: F1 = 2/3, 1/2, 4/5, 2/3, 4/7; the middle between 0.6 and 0.4
    assert best_f1_threshold(scores, np.array([1, 0, 1, 0, 0])) == pytest.approx(0.5, abs=1e-4)
    assert best_f1_threshold(scores, np.zeros(5)) == 0.5
    # equal scores cannot be split
    assert best_f1_threshold(np.array([0.7, 0.7, 0.1]), np.array([1, 0, 0])) == pytest.approx(0.4, abs=1e-4)
    # two runs of thresholds are as good (2/3 each): the higher one, between 0.9 and 0.8
    assert best_f1_threshold(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 0, 1])) == pytest.approx(0.85, abs=1e-4)
    assert best_f1_threshold(scores, np.array([1, 0, 1, 0, 0])) in GRID


def test_propagated_labels_go_both_ways():
    memory = StreamingMemory(total=5, labels="propagate")
    feed(memory, [0, 1], high=2)  # rows 0 and 1; row 2 is not trained on
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.3]])
    truth = np.array([[1, 0], [0, 1], [1, 0]])
    memory.propagate(0, np.arange(3), scores, truth, np.ones(3, bool), np.array([0, 0, 1], bool))
    assert memory.given[0].tolist() == [1, 0]
    assert 2 not in memory.given
    # row 2 alone shows class 0 but lacks none, so it tells nothing; class 1 is not on it: threshold from all images
    assert memory.thresholds == pytest.approx([0.5, 0.55], abs=1e-4)
    feed(memory, [2, 2, 2], session=1, low=2, high=3)  # rows 100 to 102
    memory.guess(np.array([100, 101, 102]), np.array([[0.6, 0.1], [0.1, 0.56], [0.5, 0.5]]))
    rows = np.array([100, 101, 102, 0, 1])
    scores = np.array([[0.0, 0.9, 0.9], [0.9, 0.0, 0.2], [0.9, 0.9, 0.8], [0.0, 0.9, 0.7], [0.9, 0.0, 0.1]])
    truth = np.array([[0, 0, 1], [0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]])
    memory.propagate(2, rows, scores, truth, rows >= 100, np.array([1, 1, 0, 0, 0], bool))
    assert memory.thresholds[:2] == pytest.approx([0.5, 0.55], abs=1e-4)  # for good
    assert memory.thresholds[2] == pytest.approx(0.55, abs=1e-4)  # between 0.9 and 0.2, what was set aside
    assert memory.given[100].tolist() == [1, 0, 1]  # backward: what the network before said of old classes
    assert memory.given[101].tolist() == [0, 1, 0]  # its own label as given
    assert memory.given[102].tolist() == [0, 0, 1]
    assert memory.given[0].tolist() == [1, 0, 1]  # forward: given labels stay, the new class is filled in
    assert memory.given[1].tolist() == [0, 1, 0]
    assert memory.propagated_targets(np.array([0]), 5).tolist() == [[1, 0, 1, -1, -1]]
    again = StreamingMemory(total=4, labels="propagate")
    again.load_state_dict(memory.state_dict())
    assert again.given[100].tolist() == [1, 0, 1]


def test_new_images_get_old_labels_only_where_it_is_asked_for():
    rows, targets = np.array([7, 8]), np.array([[-1, -1, 1], [-1, -1, 0]], np.int8)
    for labels, expected in (("propagate", targets), ("rclp", [[1, 0, 1], [0, 1, 0]])):
        memory = StreamingMemory(total=5, labels=labels)
        memory.thresholds = [0.5, 0.6]
        assert memory.new_targets(rows, targets).tolist() == targets.tolist()  # nobody was asked yet
        memory.guess(rows, np.array([[0.51, 0.6], [0.5, 0.61]]))
        assert memory.new_targets(rows, targets).tolist() == np.asarray(expected).tolist()


def test_a_tenth_is_set_aside_but_no_class_loses_its_last_image():
    targets = np.zeros((40, 4), np.int8)
    targets[np.arange(40), np.minimum(np.arange(40), 3)] = 1  # classes 0 to 2 have one image each
    for seed in range(20):
        aside = StreamingMemory(total=5, labels="rclp", seed=seed).set_aside(1, targets)
        assert aside.sum() == 4
        assert not aside[:3].any()
    again = StreamingMemory(total=5, labels="propagate", seed=3).set_aside(1, targets)
    assert np.array_equal(again, StreamingMemory(total=5, labels="propagate", seed=3).set_aside(1, targets))
    assert not np.array_equal(again, StreamingMemory(total=5, labels="propagate", seed=3).set_aside(2, targets))
    assert not StreamingMemory(total=5, labels="frozen").set_aside(1, targets).any()
