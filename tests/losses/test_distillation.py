import pytest
import torch

from mlcil.losses.distillation import cosine_matrix, one_minus_cosine, soft_target_kd


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_no_gradient_to_the_teacher():
    old, new = rand(4, 5).requires_grad_(), rand(4, 5, seed=1).requires_grad_()
    one_minus_cosine(old, new).backward()
    assert old.grad is None
    assert new.grad.abs().sum() > 0


def test_zero_embedding_costs_one():
    old = torch.stack([torch.zeros(5), torch.ones(5)])
    new = torch.ones(2, 5, requires_grad=True)
    loss = one_minus_cosine(old, new)
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    assert new.grad.isfinite().all()


def test_soft_targets_are_least_at_the_teacher():
    old, logits = rand(6, 3), rand(6, 5, seed=1)
    own = soft_target_kd(old, old)
    p = (old / 2).softmax(1)
    torch.testing.assert_close(own, -(p * p.log()).sum(1).mean())
    assert soft_target_kd(logits[:, :3], old) > own


def test_cosine_of_a_zero_row_is_zero():
    assert cosine_matrix(torch.zeros(1, 3), torch.ones(1, 3)).item() == 0


def test_cosines_stay_in_float32_under_autocast():
    a = torch.randn(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cosine_matrix(a, a.bfloat16().float()), cosine_matrix(a, a.bfloat16()))
        assert cosine_matrix(a, a).dtype == torch.float32
