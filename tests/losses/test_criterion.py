import torch
import torch.nn.functional as F

from mlcil.losses.criterion import SINGLE_LABEL


def test_cross_entropy_takes_shares_and_single_ones():
    logits = torch.randn(4, 3, dtype=torch.float64)
    labels = torch.tensor([2, 0, 1, 1])
    hard = F.one_hot(labels, 3).double()
    torch.testing.assert_close(SINGLE_LABEL.classify(logits, hard), F.cross_entropy(logits, labels), rtol=1e-12, atol=0)
    unknown = hard.clone()
    unknown[0, 0] = -1  # nobody said so; the row still has its 1
    torch.testing.assert_close(SINGLE_LABEL.classify(logits, unknown), F.cross_entropy(logits, labels))
    soft = 0.9 * hard + 0.1 / 3
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(SINGLE_LABEL.classify(logits, soft), expected)
    assert SINGLE_LABEL.classify(logits[:0], hard[:0]) == 0
