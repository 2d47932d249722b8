import pytest
import torch

from mlcil.losses.distillation import pod_flat, pod_spatial, token_loss


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


@pytest.mark.parametrize("loss", [token_loss, pod_flat])
def test_no_gradient_to_the_teacher(loss):
    old, new = rand(4, 5).requires_grad_(), rand(4, 5, seed=1).requires_grad_()
    loss(old, new).backward()
    assert old.grad is None
    assert new.grad.abs().sum() > 0


def test_zero_embedding_costs_one():
    old = torch.stack([torch.zeros(5), torch.ones(5)])
    new = torch.ones(2, 5, requires_grad=True)
    loss = pod_flat(old, new)
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    assert new.grad.isfinite().all()


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
