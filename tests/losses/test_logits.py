import pytest
import torch

from mlcil.losses.logits import mean_bce, softened_kl


def test_mean_bce_by_hand():
    logits = torch.tensor([[0.0, 2.0]])
    expected = (torch.log(torch.tensor(2.0)) + torch.log1p(torch.exp(torch.tensor(-2.0)))) / 2
    torch.testing.assert_close(mean_bce(logits, torch.tensor([[1.0, 1.0]])), expected)


def test_mean_bce_refuses_other_shapes_and_promotes_half_precision():
    with pytest.raises(ValueError, match="size"):
        mean_bce(torch.zeros(2, 3), torch.zeros(2, 4))
    assert mean_bce(torch.zeros(2, 3, dtype=torch.bfloat16), torch.zeros(2, 3)).dtype == torch.float32


def test_distillation_is_zero_at_the_teacher_and_sees_old_columns_only():
    old = torch.randn(4, 3)
    new = torch.cat([old, torch.randn(4, 2)], 1).requires_grad_()
    loss = softened_kl(old, new)
    assert loss.item() == pytest.approx(0, abs=1e-7)
    (softened_kl(old + torch.randn(4, 3), new)).backward()
    assert (new.grad[:, 3:] == 0).all()


def test_distillation_is_a_mean_over_elements():
    old, new = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    p, q = (old / 2).softmax(1), (new[:, :3] / 2).softmax(1)
    expected = (p * (p.log() - q.log())).sum() / (4 * 3) * 2**2
    torch.testing.assert_close(softened_kl(old, new, 2.0), expected)


def test_no_gradient_reaches_the_teacher():
    old = torch.randn(2, 2, requires_grad=True)
    softened_kl(old, torch.randn(2, 3, requires_grad=True)).backward()
    assert old.grad is None
