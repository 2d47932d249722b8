"""A frozen backbone: never trained, shared with the teacher, computed once for both."""

import pytest
import torch
from golden import BACKBONE, LINEAR, SIZE

from mlcil.models.network import IncrementalNetwork, Maps


@pytest.fixture
def frozen():
    torch.manual_seed(0)
    network = IncrementalNetwork(BACKBONE, LINEAR, SIZE, frozen_backbone=True)
    network.grow(2)
    return network.requires_grad_(True).train()


def count_calls(module):
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_only_the_head_learns_and_statistics_stay(frozen):
    images = torch.rand(3, 3, SIZE, SIZE)
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in frozen.parameters() if p.requires_grad], lr=1.0)
    frozen(images).logits_BC.sum().backward()
    optimizer.step()
    changed = {name for name, value in frozen.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.linear.weight", "head.linear.bias"}
    assert not any(module.training for module in frozen.backbone.modules())


def test_images_that_are_learnt_get_their_gradient(frozen):
    images = torch.rand(2, 3, SIZE, SIZE, requires_grad=True)
    frozen(images).logits_BC.sum().backward()
    assert images.grad.abs().sum() > 0


def test_teacher_shares_backbone_and_maps_but_not_the_head(frozen):
    teacher = frozen.frozen_copy()
    calls = count_calls(frozen.backbone)
    images = torch.rand(3, 3, SIZE, SIZE)
    ours, theirs = frozen(images), teacher(images)
    assert len(calls) == 1
    torch.testing.assert_close(ours.logits_BC, theirs.logits_BC, rtol=0, atol=0)
    with torch.no_grad():
        frozen.head.linear.bias += 1
    torch.testing.assert_close(frozen(images).logits_BC, teacher(images).logits_BC + 1)
    assert teacher.backbone is frozen.backbone
    assert not any(p.requires_grad for p in teacher.parameters())


def test_other_images_content_weights_or_mode_are_computed_again(frozen):
    calls = count_calls(frozen.backbone)
    images = torch.rand(2, 3, SIZE, SIZE)
    frozen(images)
    frozen(images.clone())
    frozen(images)
    images += 0.5
    other = frozen(images).logits_BC
    assert len(calls) == 4
    with torch.inference_mode():
        torch.testing.assert_close(frozen(images).logits_BC, other, rtol=0, atol=0)
    frozen(images).logits_BC.sum().backward()  # maps made in inference mode could not be used here
    assert len(calls) == 6
    frozen.load_state_dict({name: 2 * value for name, value in frozen.state_dict().items()})
    frozen(images)
    assert len(calls) == 7


def test_without_the_option_the_teacher_is_a_copy():
    network = IncrementalNetwork(BACKBONE, LINEAR, SIZE)
    network.grow(2)
    teacher = network.requires_grad_(True).frozen_copy()
    assert teacher.backbone is not network.backbone
    assert all(p.requires_grad for p in network.parameters())


def test_maps_stand_in_for_images_whatever_is_made_of_them(frozen):
    images = torch.rand(4, 3, SIZE, SIZE)
    maps = Maps.of(frozen.backbone(images)[-1].detach())
    calls = count_calls(frozen.backbone)
    expected = frozen(images)
    for given in (maps, maps[:3], maps.clone(), maps.to("cpu", torch.float32), torch.cat([maps[:1], maps[1:]])):
        output = frozen(given)
        assert type(output.logits_BC) is torch.Tensor
        assert type(output.maps[-1]) is torch.Tensor
        torch.testing.assert_close(output.logits_BC, expected.logits_BC[: len(given)])
    assert len(calls) == 1


def test_only_the_type_tells_maps_from_images(frozen):
    """Maps with as many channels as an image, and images with as many channels as a map."""
    frozen.backbone.out_channels = 3
    images = torch.rand(2, 3, SIZE, SIZE)
    calls = count_calls(frozen.backbone)
    frozen(images)
    assert len(calls) == 1
    trained = IncrementalNetwork(BACKBONE, LINEAR, SIZE)
    trained.grow(2)
    with pytest.raises(AssertionError, match="maps belong to a backbone that stays as it is"):
        trained(Maps.of(images))
