import numpy as np
import pytest
import torch

from mlcil.methods.pseudo_labels import (
    HIGHEST,
    LOWEST,
    SearchResult,
    ThresholdSearch,
    apply_pseudo_labels,
    search_threshold,
    search_threshold_from_count,
    sorted_counter,
)


def logits(count=400, classes=12, seed=0):
    return 3 * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)) - 2


def test_counter_counts_as_torch_compares():
    """A float32 tensor is compared with a python number after the number is rounded to float32."""
    x = logits()
    scores, count = torch.sigmoid(x), sorted_counter(x)
    near = [float(s) + d for s in scores[0] for d in (-1e-9, 0, 1e-9)]
    for threshold in [*np.linspace(0, 1, 101), 0.8 + 0.005 + 0.005, *near]:
        assert count(float(threshold)) == int((scores > float(threshold)).sum())


def test_counter_is_strict_and_nan_is_never_above():
    count = sorted_counter(torch.tensor([[0.0, float("nan"), float("inf")]], requires_grad=True))
    assert count(0.5) == 1
    assert count(0.4999) == 2


def test_search_lands_within_the_band():
    x = logits()
    for target in (0.3, 1.0, 2.0):
        result = search_threshold(x, target)
        assert result.landed
        assert abs(result.reached - target) <= 0.1 + 1e-6
        assert result.reached == pytest.approx((torch.sigmoid(x) > result.threshold).sum().item() / len(x))
        assert result.target == target
        assert result.last_threshold == result.threshold


def test_start_is_kept_when_it_is_already_right():
    x = logits()
    target = (torch.sigmoid(x) > 0.7).sum().item() / len(x)
    result = search_threshold(x, target, start=0.7)
    assert (result.threshold, result.evaluations) == (0.7, 1)
    # settings give the first threshold when none is carried over
    assert search_threshold(x, target, ThresholdSearch(start=0.7)).evaluations == 1


def test_steps_add_up_in_double_precision():
    visited = []

    def count(threshold):
        visited.append(threshold)
        return 1000

    search_threshold_from_count(count, 10, 1.0, ThresholdSearch(max_evaluations=4))
    expected = [0.8]
    for _ in range(3):
        expected.append(expected[-1] + 0.005)
    assert visited == expected


@pytest.mark.parametrize(("count", "limit"), [(1000, HIGHEST), (0, LOWEST)])
def test_thresholds_stay_within_their_limits(count, limit):
    search = ThresholdSearch(step=0.05)
    result = search_threshold_from_count(lambda threshold: count, 10, 1.0, search)
    assert not result.landed
    assert result.last_threshold == limit
    assert result.evaluations == search.max_evaluations
    assert result.threshold == 0.8  # all visited are equally far: the first
    assert result.reached == count / 10


def test_failure_keeps_the_visited_threshold_that_came_nearest():
    # below 0.83 three labels an image, from 0.83 on 0.7: the search swings around the jump
    result = search_threshold_from_count(lambda t: 30 if t < 0.8299 else 7, 10, 1.0, ThresholdSearch())
    assert not result.landed
    assert result.reached == pytest.approx(0.7)
    assert result.threshold == pytest.approx(0.83)
    with pytest.raises(RuntimeError, match=r"nearest, 0\.8300, gives 0\.700"):
        search_threshold_from_count(lambda t: 30 if t < 0.8299 else 7, 10, 1.0, ThresholdSearch(strict=True))


def test_counts_of_several_processes():
    x = logits()
    parts = [sorted_counter(part) for part in x.chunk(3)]
    summed = search_threshold_from_count(lambda t: sum(p(t) for p in parts), len(x), 1.0, ThresholdSearch())
    assert isinstance(summed, SearchResult)
    assert summed == search_threshold(x, 1.0)


def test_no_images():
    with pytest.raises(ValueError, match="without images"):
        search_threshold(torch.zeros(0, 3), 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_pseudo_labels_only_set_ones(dtype):
    targets = torch.tensor([[0, 1, -1, 0, 1], [-1, 0, 1, -1, 0]], dtype=dtype)
    before = targets.clone()
    old = torch.tensor([[9.0, -9.0, 9.0], [-9.0, 0.0, 9.0]])
    given = apply_pseudo_labels(targets, old, 0.5)
    # strictly above 0.5 on the three old columns, also over what is not judged; the rest stays
    assert given.tolist() == [[1, 1, 1, 0, 1], [-1, 0, 1, -1, 0]]
    assert given.dtype == dtype
    torch.testing.assert_close(targets, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_training_labels_by_the_scores_that_the_search_counted(dtype):
    """Half precision rounds a score or threshold of 0.9985 to 1, which nothing exceeds."""
    old = torch.linspace(3, 12, 40).reshape(20, 2).to(dtype)
    for threshold in (0.9, 0.9985, 0.99995):
        new = apply_pseudo_labels(torch.zeros(20, 3), old, threshold)
        assert int(new.sum()) == sorted_counter(old)(threshold) > 0
        assert torch.equal(new, apply_pseudo_labels(torch.zeros(20, 3), old, torch.full((2,), threshold)))
