import torch
import torch.nn.functional as F

from mlcil.losses.classification import class_labels, share_weights, weighted_cross_entropy

torch.manual_seed(0)
LOGITS = torch.randn(6, 5, dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 3, 4, 3])


def test_labels_of_one_hot_rows():
    rows = F.one_hot(LABELS, 5).float()
    assert class_labels(rows).tolist() == LABELS.tolist()
    rows[rows == 0] = -1  # nobody said that the others are absent
    assert class_labels(rows).tolist() == LABELS.tolist()


def test_weighted_cross_entropy_is_a_mean_over_images():
    weights = torch.rand(6, dtype=torch.float64)
    cost = F.cross_entropy(LOGITS, LABELS, reduction="none")
    torch.testing.assert_close(weighted_cross_entropy(LOGITS, LABELS, weights), (weights * cost).sum() / 6)
    torch.testing.assert_close(weighted_cross_entropy(LOGITS, LABELS), cost.mean())


def test_weights_of_shares():
    assert share_weights(LABELS, 3, 4).tolist() == [0.75, 0.75, 0.75, 0.25, 0.25, 0.25]
