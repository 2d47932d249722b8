import numpy as np
import pytest

from mlcil.errors import UserError
from mlcil.memory.coreset import CoresetMemory, greedy_herding, nearest_to_mean, quotas
from mlcil.methods.bic import held_out


def test_quotas_share_the_rest_among_the_newest():
    assert quotas({0: 9, 1: 9, 2: 9, 3: 9}, 10) == {0: 2, 1: 2, 2: 3, 3: 3}
    assert quotas({0: 9, 1: 9, 2: 2, 3: 1}, 10) == {0: 3, 1: 3, 2: 2, 3: 1}
    assert quotas({0: 1}, 10) == {0: 1}


def test_nearest_to_mean():
    assert nearest_to_mean(np.array([[0.0], [10.0], [4.0], [6.0]])) == [2, 3, 0, 1]


def test_greedy_herding_follows_the_mean():
    features = np.random.default_rng(0).normal(size=(30, 4))
    chosen = greedy_herding(features, 10)
    assert len(set(chosen)) == 10
    distance = np.linalg.norm(features[chosen].mean(0) - features.mean(0))
    assert distance < np.linalg.norm(features[:10].mean(0) - features.mean(0))
    assert sorted(greedy_herding(features, 99)) == list(range(30))


def test_held_out_images_are_the_first_of_each_class():
    new, old = np.repeat([2, 3], 5), np.repeat([0, 1], 10)
    from_new, from_old = held_out(new, old, 2)
    assert np.flatnonzero(from_new).tolist() == [0, 5]
    assert np.flatnonzero(from_old).tolist() == [0, 10]
    assert not any(mask.any() for mask in held_out(new, old[:6], 2))


def sessions(memory, count=3, per_class=10):
    rng = np.random.default_rng(1)
    for t in range(count):
        labels = np.repeat([2 * t, 2 * t + 1], per_class)
        rows = 100 * t + np.arange(len(labels))
        memory.begin_session()
        targets = np.eye(2 * t + 2, dtype=np.int8)[labels]
        yield t, rows, memory.update(t, 2 * t, 2 * t + 2, rows, rng.normal(size=(len(rows), 3)), targets)


@pytest.mark.parametrize("selection", ["random_coreset", "nearest_coreset", "herding_coreset"])
def test_the_budget_is_kept_and_balanced(selection):
    memory = CoresetMemory(15, selection)
    for t, _, counts in sessions(memory):
        assert counts["total"] == len(memory) == 15
        sizes = np.bincount(memory.classes())
        assert len(sizes) == 2 * t + 2
        assert sizes.max() - sizes.min() <= 1
        rows, origins = memory.contents()
        assert (rows // 100 == origins).all()
        assert (memory.classes() // 2 == origins).all()


def test_replay_is_as_long_as_the_new_images_and_repeats():
    memory = CoresetMemory(6, "random_coreset", seed=2)
    list(sessions(memory, count=1))
    assert len(memory.replayed(1, 40)) == 40
    assert memory.replayed(1, 40).tolist() == memory.replayed(1, 40).tolist()
    assert memory.replayed(1, 40).tolist() != memory.replayed(2, 40).tolist()
    assert CoresetMemory(6, "nearest_coreset").oversample is False
    large = CoresetMemory(6, "random_coreset", seed=2**40 + 2)
    list(sessions(large, count=1))
    assert len(large.replayed(1, 40)) == 40


def test_state_survives():
    memory = CoresetMemory(6, "herding_coreset")
    list(sessions(memory))
    other = CoresetMemory(6, "herding_coreset")
    other.load_state_dict(memory.state_dict())
    assert other.contents()[0].tolist() == memory.contents()[0].tolist()


@pytest.mark.parametrize("options", [{"total": 0}, {"total": 3, "selection": "best"}])
def test_options_are_checked(options):
    with pytest.raises(UserError, match="memory"):
        CoresetMemory(**options)
