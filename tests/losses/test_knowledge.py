import pytest
import torch
import torch.nn.functional as F

from mlcil.losses.classification import balancing_weights, class_labels, share_weights, weighted_cross_entropy
from mlcil.losses.knowledge import sessions_kd, sigmoid_kd, soft_target_kd, softmax_kd, weighted_feature_kd
from mlcil.losses.relation import RelationKD, angle_loss, angles

torch.manual_seed(0)
LOGITS, OLD = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 3, 4, 3])


def test_labels_of_one_hot_rows():
    assert class_labels(F.one_hot(LABELS, 5).float()).tolist() == LABELS.tolist()


def test_weighted_cross_entropy_is_a_mean_over_images():
    weights = torch.rand(6, dtype=torch.float64)
    cost = F.cross_entropy(LOGITS, LABELS, reduction="none")
    torch.testing.assert_close(weighted_cross_entropy(LOGITS, LABELS, weights), (weights * cost).sum() / 6)
    torch.testing.assert_close(weighted_cross_entropy(LOGITS, LABELS), cost.mean())


def test_weights_of_classes_and_shares():
    assert balancing_weights(torch.tensor([8.0, 4.0, 0.0])).tolist() == [1, 2, 8]
    assert share_weights(LABELS, 3, 4).tolist() == [0.75, 0.75, 0.75, 0.25, 0.25, 0.25]


def test_soft_targets_are_least_at_the_teacher():
    own = soft_target_kd(OLD, OLD)
    p = (OLD / 2).softmax(1)
    torch.testing.assert_close(own, -(p * p.log()).sum(1).mean())
    assert soft_target_kd(LOGITS[:, :3], OLD) > own


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
