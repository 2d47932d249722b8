import pytest
import torch
import torch.nn.functional as F

from mlcil.losses.asymmetric import asymmetric_loss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 5, generator=generator, dtype=torch.float64)
    targets = (torch.rand(6, 5, generator=generator) < 0.3).double()
    return logits, targets


def test_without_focusing_and_margin_it_is_summed_cross_entropy(batch):
    logits, targets = batch
    loss = asymmetric_loss(logits, targets, gamma_neg=0, gamma_pos=0, clip=0)
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum")
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_one_negative_by_hand():
    # p = 0.5, q = 0.55, weight = 0.45^4
    loss = asymmetric_loss(torch.zeros(1, 1, dtype=torch.float64), torch.zeros(1, 1))
    expected = -(0.45**4) * torch.tensor(0.55, dtype=torch.float64).log()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_easy_negative_costs_nothing():
    logits = torch.full((1, 3), -6.0, requires_grad=True)
    loss = asymmetric_loss(logits, torch.zeros(1, 3))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().sum() == 0


def test_no_gradient_through_the_focusing_weight():
    x = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    asymmetric_loss(x, torch.zeros(1, 1), gamma_neg=2, clip=0).backward()
    p = torch.sigmoid(x.detach())
    # -log(1 - p) has gradient p; the weight p^2 is a constant
    torch.testing.assert_close(x.grad, p**2 * p, rtol=1e-9, atol=0)


@pytest.mark.parametrize("gammas", [(4.0, 0.0), (1.3, 0.7), (0.0, 3.0), (0.0, 0.0)])
def test_what_is_not_judged_contributes_nothing(batch, gammas):
    logits, targets = (t.clone() for t in batch)
    mask = torch.zeros_like(targets, dtype=torch.bool)
    mask[:, 1::2] = True
    x = logits.clone().requires_grad_()
    asymmetric_loss(x, targets.masked_fill(mask, -1), *gammas).backward()
    y = logits[:, ::2].clone().requires_grad_()
    asymmetric_loss(y, targets[:, ::2], *gammas).backward()
    torch.testing.assert_close(x.grad[:, ::2], y.grad)
    assert x.grad[mask].eq(0).all()


def test_leaves_gradient_mode_alone(batch):
    with torch.no_grad():
        loss = asymmetric_loss(*batch)
        assert not torch.is_grad_enabled()
    assert not loss.requires_grad
    asymmetric_loss(*batch)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(batch, dtype):
    logits, targets = batch
    loss = asymmetric_loss(logits.to(dtype), targets)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # half precision: exactly the loss of the promoted logits
    torch.testing.assert_close(loss, asymmetric_loss(logits.to(dtype).to(loss.dtype), targets), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_stay_finite(dtype):
    logits = torch.tensor([[-1e4, 1e4, -1e4, 1e4]], dtype=dtype, requires_grad=True)
    loss = asymmetric_loss(logits, torch.tensor([[0, 0, 1, 1]]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(4, 1\)"):
        asymmetric_loss(torch.zeros(4, 3), torch.zeros(4, 1))
