"""Losses that one method alone has, by hand."""

import pytest
import torch
import torch.nn.functional as F

from mlcil.losses.distillation import soft_target_kd
from mlcil.methods.abd import weighted_feature_kd
from mlcil.methods.daformer import divergence_targets, nearest_neighbours, neighbour_invariance
from mlcil.methods.dkt import cluster_separation, relations
from mlcil.methods.e2e import sessions_kd
from mlcil.methods.krt import token_loss
from mlcil.methods.lwf_mc import sigmoid_kd, softmax_kd
from mlcil.methods.pod import pod_spatial
from mlcil.methods.rdfcil import RelationKD, angle_loss, angles, balancing_weights

torch.manual_seed(0)
LOGITS, OLD = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 3, 4, 3])


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_token_loss_is_one_cosine_over_the_concatenation():
    old, new = rand(4, 3, 5), rand(4, 3, 5, seed=1)
    expected = (1 - torch.cosine_similarity(old.flatten(1), new.flatten(1))).mean()
    torch.testing.assert_close(token_loss(old, new), expected)
    of_each = (1 - torch.cosine_similarity(old, new, dim=2)).mean()
    assert not torch.isclose(token_loss(old, new), of_each)


def test_token_loss_range():
    tokens = rand(4, 3, 5)
    assert token_loss(tokens, 7 * tokens).item() == pytest.approx(0, abs=1e-9)
    assert token_loss(tokens, -tokens).item() == pytest.approx(2)


def test_pod_spatial_by_hand():
    # one image, one channel, 1 x 2 positions: sums over the width [a^2 + b^2], over the height [a^2, b^2]
    old, new = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    # vectors [1, 1, 0] and [1, 0, 1] over sqrt(2): distance 1
    assert pod_spatial([old], [new]).item() == pytest.approx(1)
    # 'height' keeps the sums over the width ([1] and [1]), 'width' those over the height ([1, 0] and [0, 1])
    assert pod_spatial([old], [new], "height").item() == pytest.approx(0)
    assert pod_spatial([old], [new], "width").item() == pytest.approx(2**0.5)
    assert pod_spatial([old, old], [new, old]).item() == pytest.approx(0.5)


@pytest.mark.parametrize("collapse", ["spatial", "channels", "width", "height", "gap"])
def test_pod_ignores_the_scale_of_an_image_and_the_teacher_gets_no_gradient(collapse):
    old, new = rand(2, 3, 4, 4).requires_grad_(), rand(2, 3, 4, 4, seed=1).requires_grad_()
    loss = pod_spatial([old], [new], collapse)
    torch.testing.assert_close(loss, pod_spatial([2 * old], [3 * new], collapse))
    loss.backward()
    assert old.grad is None
    assert new.grad.abs().sum() > 0


@pytest.mark.parametrize("collapse", ["spatial", "channels", "width", "height", "gap"])
def test_pod_of_equal_or_empty_maps_has_finite_gradient(collapse):
    for value in (rand(2, 3, 4, 4), torch.zeros(2, 3, 4, 4, dtype=torch.float64)):
        new = value.clone().requires_grad_()
        loss = pod_spatial([value], [new], collapse)
        loss.backward()
        assert loss.item() == 0
        assert new.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_promoted(dtype):
    zero = torch.zeros(2, 3, 4, dtype=dtype)
    assert token_loss(zero, zero).dtype == torch.float32
    assert token_loss(zero, zero).item() == 1
    large = torch.full((1, 2, 4, 4), 300.0, dtype=dtype)  # its square is beyond half precision
    assert pod_spatial([large], [large / 2]).item() == pytest.approx(0, abs=1e-6)


def test_refusals():
    with pytest.raises(ValueError, match="unknown"):
        pod_spatial([rand(1, 1, 2, 2)], [rand(1, 1, 2, 2)], "diagonal")
    with pytest.raises(ValueError, match="zip"):
        pod_spatial([rand(1, 1, 2, 2)], [])


def test_one_distillation_a_session():
    expected = soft_target_kd(LOGITS[:, :1], OLD[:, :1]) / 3 + soft_target_kd(LOGITS[:, 1:3], OLD[:, 1:]) * 2 / 3
    torch.testing.assert_close(sessions_kd(LOGITS, OLD, [1, 2], 3), expected)


@pytest.mark.parametrize("teacher", [None, OLD])
def test_targets_of_lwf_mc(teacher):
    targets = F.one_hot(LABELS, 5).double()
    sigmoid, softmax = targets.clone(), targets.clone()
    if teacher is not None:
        sigmoid[:, :3], softmax[:, :3] = teacher.sigmoid(), teacher.softmax(1)
    expected = F.binary_cross_entropy(LOGITS.sigmoid(), sigmoid, reduction="sum") / 6
    torch.testing.assert_close(sigmoid_kd(LOGITS, LABELS, teacher), expected)
    torch.testing.assert_close(softmax_kd(LOGITS, LABELS, teacher), -(softmax * LOGITS.log_softmax(1)).sum(1).mean())


def test_feature_distance_through_the_classifier():
    features, teacher, rows = torch.randn(4, 7), torch.randn(4, 7), torch.randn(3, 7)
    expected = torch.stack([(rows @ d).square().sum() / 3 for d in features - teacher]).mean()
    torch.testing.assert_close(weighted_feature_kd(features, teacher, rows), expected)


def test_angles_of_three_points():
    corner = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    found = angles(corner)
    assert float(found[0, 1, 2]) == pytest.approx(0)
    assert float(found[0, 1, 1]) == pytest.approx(1)
    assert found[0, 0].tolist() == [0, 0, 0]
    assert float(found[1, 0, 2]) == pytest.approx(2 / 13**0.5)


def test_angles_ignore_scale_shift_and_rotation():
    points = torch.randn(5, 4, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    assert float(angle_loss(3 * points @ rotation + 1, points)) == pytest.approx(0, abs=1e-12)


def test_both_projections_learn_and_equal_points_do_no_harm():
    relation = RelationKD(4).double()
    student, teacher = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    student[1] = student[0]
    student.requires_grad_(True)
    relation(student, teacher).backward()
    assert student.grad.isfinite().all()
    assert relation.student.weight.grad.abs().sum() > 0
    assert relation.teacher.weight.grad.abs().sum() > 0


def test_weights_of_classes():
    assert balancing_weights(torch.tensor([8.0, 4.0, 0.0])).tolist() == [1, 2, 8]


def test_relations_by_hand():
    expected = [[4, -1, -4], [-1, 4, -4], [-4, -4, 4]]  # two old classes, one new
    assert relations(torch.tensor([0, 1, 2]), low=2).tolist() == expected


def test_cluster_separation_by_hand():
    old = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    new = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    # same class: distance 0; old against new, at right angles: -4 * 1, twice of four pairs
    assert cluster_separation(old, new, torch.tensor([0, 1]), low=1).item() == pytest.approx(-2.0)


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


def test_divergence_targets_of_hard_labels():
    targets = torch.eye(5)
    expected = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(divergence_targets(targets, 3), expected)
