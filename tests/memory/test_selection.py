import numpy as np
import pytest

from mlcil.memory.selection import (
    deduplicate,
    herding,
    per_class_herding,
    random_selection,
    truncate_to_budget,
)


def features(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)


def test_herding_first_pick_is_nearest_to_the_mean_direction():
    x = features(30)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert herding(x, 1) == [int(np.argmax(unit @ unit.mean(0)))]


def test_herding_ignores_the_length_of_features():
    x = features(30)
    assert herding(x, 8) == herding(x * np.linspace(1, 9, 30, dtype=np.float32)[:, None], 8)


def test_herding_by_hand():
    # two images are equal: the mean leans to the pair (the first wins), then the third makes up for it
    assert herding(np.array([[0.0, 2.0], [5.0, 0.0], [5.0, 0.0]]), 2) == [1, 0]


def test_herding_follows_the_mean_better_than_chance():
    x = features(200)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)

    def gap(rows):
        return np.linalg.norm(unit[rows].mean(0) - unit.mean(0))

    rng = np.random.default_rng(1)
    by_chance = [gap(rng.choice(200, 10, replace=False)) for _ in range(50)]
    assert gap(herding(x, 10)) < min(by_chance)


def test_herding_choices_are_distinct_and_a_longer_list_begins_with_the_shorter():
    x = features(40)
    longer = herding(x, 25)
    assert len(set(longer)) == len(longer) == 25
    assert herding(x, 10) == longer[:10]


def test_herding_edges():
    assert herding(features(3)[:0], 5) == []
    assert sorted(herding(features(3), 5)) == [0, 1, 2]
    assert herding(features(3), 0) == []
    # equal images: the first wins every time, and the search gives up
    assert herding(np.ones((3, 4)), 2) == [0]
    assert herding(np.zeros((2, 4)), 2) == [0]


def test_per_class_herding_and_a_class_without_images():
    targets = np.zeros((20, 4))
    targets[::2, 1], targets[1::2, 3] = 1, 1
    targets[:, 0] = 1
    targets[3, 3] = -1  # not judged is not a positive
    x = features(20)
    lists = per_class_herding(x, targets, 1, 4, 3)
    assert [len(chosen) for chosen in lists] == [3, 0, 3]
    assert lists[0] == [2 * i for i in herding(x[::2], 3)]
    assert 3 not in per_class_herding(x, targets, 3, 4, 20)[0]


def test_random_selection():
    candidates = np.array([5, 9, 11])
    drawn = random_selection(candidates, 50, np.random.default_rng(0))
    assert len(drawn) == 50
    assert set(drawn) == {5, 9, 11}
    assert drawn == random_selection(candidates, 50, np.random.default_rng(0))
    assert drawn != random_selection(candidates, 50, np.random.default_rng(1))
    assert all(type(i) is int for i in drawn)
    assert random_selection(candidates[:0], 5, np.random.default_rng(0)) == []


def test_deduplicate():
    lists, stored = [[1, 2, 3], [3, 4], [2, 9]], {9}
    assert deduplicate(lists, stored) == [[1, 2, 3], [4], []]
    assert lists == [[1, 2, 3], [3, 4], [2, 9]]
    assert stored == {9}


@pytest.mark.parametrize("budget", range(20))
@pytest.mark.parametrize("lengths", [[6, 6, 6], [6, 1, 6], [0, 6, 2, 6], [1, 1], [5]])
def test_truncate_to_budget(budget, lengths):
    lists = [[100 * c + i for i in range(length)] for c, length in enumerate(lengths)]
    share = -(-budget // len(lists))
    official = truncate_to_budget(lists, budget, hard_cap=False)
    assert official == [chosen[:share] for chosen in lists]
    capped = truncate_to_budget(lists, budget)
    assert sum(map(len, capped)) == min(budget, sum(map(len, official)))
    for mine, whole in zip(capped, official, strict=True):
        assert mine == whole[: len(mine)]
        assert len(whole) - len(mine) <= 1
    assert [len(chosen) for chosen in lists] == lengths


def test_truncate_no_classes():
    assert truncate_to_budget([], 10) == []
