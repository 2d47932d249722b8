import pytest
import torch

from mlcil.losses.neighbours import (
    cluster_separation,
    cosine_matrix,
    nearest_neighbours,
    neighbour_invariance,
    relations,
)


def test_relations_by_hand():
    expected = [[4, -1, -4], [-1, 4, -4], [-4, -4, 4]]  # two old classes, one new
    assert relations(torch.tensor([0, 1, 2]), low=2).tolist() == expected


def test_cluster_separation_by_hand():
    old = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    new = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    # same class: distance 0; old against new, at right angles: -4 * 1, twice of four pairs
    assert cluster_separation(old, new, torch.tensor([0, 1]), low=1).item() == pytest.approx(-2.0)


def test_cosine_of_a_zero_row_is_zero():
    assert cosine_matrix(torch.zeros(1, 3), torch.ones(1, 3)).item() == 0


def test_cosines_stay_in_float32_under_autocast():
    a = torch.randn(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cosine_matrix(a, a.bfloat16().float()), cosine_matrix(a, a.bfloat16()))
        assert cosine_matrix(a, a).dtype == torch.float32


def test_neighbours_are_others_and_the_earlier_of_equals_comes_first():
    similarity = torch.tensor([[1.0, 0.5, 0.5], [0.5, 1.0, 0.9], [0.5, 0.9, 1.0]])
    assert nearest_neighbours(similarity, 2).tolist() == [[1, 2], [2, 0], [1, 0]]


def test_neighbours_need_enough_images():
    with pytest.raises(ValueError, match="5 neighbours need a batch of at least 6 images, not 5"):
        neighbour_invariance(torch.randn(5, 3), torch.randn(5, 3), 5)


def test_neighbour_invariance_is_zero_for_the_same_or_turned_features_and_positive_else():
    torch.manual_seed(0)
    old = torch.randn(12, 4, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    assert neighbour_invariance(old, 3 * old @ turn).item() == pytest.approx(0, abs=1e-12)
    assert neighbour_invariance(old, torch.randn(12, 4, dtype=torch.float64)).item() > 0
